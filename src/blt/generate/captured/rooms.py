"""How much room the steps' own caches have, and what moves in them when texts come and go."""

from __future__ import annotations

import torch

from blt.generate.caches.rings import MAX_ROWS
from blt.generate.captured.blt_steps import BLTSteps
from blt.generate.captured.slots import bucket, power_of_two
from blt.generate.captured.steps import Writing
from blt.generate.incremental_blt import CachedBLT

FIRST_PATCHES = 64  # slots for patches at first
FIRST_OPEN = 256  # bytes of an open patch that all rows have room for: more takes new graphs


class Rooms:
    """Caches that grow, and their rows."""

    def __init__(self, steps: Writing) -> None:
        self.steps = steps

    def reserve(
        self, n: int, texts: int, *, open_bytes: int, patches: int, most_patches: int
    ) -> list[str]:
        """Make room for a step of n places.

        Args:
            texts: rows that are in use.
            open_bytes: of the longest open patch.
            patches: of the text that has the most.
            most_patches: that any of them can come to have.

        Returns:
            names of steps that must be captured anew.
        """
        steps, changed = self.steps, list[str]()
        steps.work(n)
        if not isinstance(steps, BLTSteps):
            return changed
        if steps.seeing.reserve(n):
            changed += ["guess", "close", "write"]
        cache, rows = steps.patches, bucket(texts, steps.most)
        open_rows, _, _, open_room, _ = steps.patching.open.shape
        if steps.crossing is not None and (rows > open_rows or open_bytes > open_room):
            room = max(FIRST_OPEN, power_of_two(open_bytes))
            self._resize_open(steps, steps.most if room == FIRST_OPEN else rows, room)
            changed += ["encode", "close"]
        needed = min(patches, most_patches)
        if rows > cache.rows or needed > cache.room:
            room = max(FIRST_PATCHES, power_of_two(needed + 1)) - 1  # and the slot nobody reads
            cache.resize(rows, min(room, max(needed, most_patches)), steps.device)
            changed.append("close")
        return changed

    def of_open(self, bytes_read: int) -> int:
        """Bytes for the open patch of a text, as long as it can be, beyond what all rows have."""
        steps = self.steps
        if not isinstance(steps, BLTSteps) or steps.crossing is None:
            return 0
        room = power_of_two(CachedBLT.longest_patch(steps.net, bytes_read) + 2 * MAX_ROWS)
        one = steps.patching.open[:1, :, :, :1]
        return 0 if room <= FIRST_OPEN else room * one.numel() * one.element_size()

    @staticmethod
    def _resize_open(steps: BLTSteps, rows: int, room: int) -> None:
        """Give every byte of the open patches its slot in a ring of another size."""
        old = steps.patching.open  # [B, 2, H, OPEN, D]
        new = old.new_zeros(rows, *old.shape[1:3], room, old.shape[4])
        both, last = min(len(old), rows), min(old.shape[3], room)
        back = torch.arange(1, 1 + last, dtype=torch.int64, device=old.device)
        position = steps.texts.position[:both, None] - back  # [B, OPEN]
        row = torch.arange(both, dtype=torch.int64, device=old.device)[:, None]
        if last:
            new[row, :, :, position % room] = old[row, :, :, position % old.shape[3]]
        steps.patching.open = new

    def move(self, source: int, target: int) -> None:
        """The text in row ``source`` takes row ``target``; its old row is empty."""
        steps = self.steps
        if source != target:
            steps.texts.move(source, target)
            steps.texts.home[target] = target
            if isinstance(steps, BLTSteps):
                steps.patching.move(source, target)
                seen, patches = steps.seeing.memory, steps.patches.memory
                seen[:, :, target] = seen[:, :, source]
                patches[:, target] = patches[:, source]
        steps.texts.put(source, {})

    def clear(self, row: int) -> None:
        """Leave nothing of a text that is not finite: what nobody sees is multiplied by 0."""
        steps = self.steps
        if isinstance(steps, BLTSteps):
            steps.patching.part(row, 1).open.zero_()
            steps.seeing.memory[:, :, row] = 0
            steps.patches.memory[:, row] = 0
