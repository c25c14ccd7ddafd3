"""How much room the steps' own caches have, and what moves in them when texts come and go."""

from __future__ import annotations

import torch

from blt.generate.captured.blt_steps import BLTSteps
from blt.generate.captured.slots import bucket, power_of_two
from blt.generate.captured.steps import Writing

FIRST_PATCHES = 64  # slots for patches at first


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
        if steps.crossing is not None and open_bytes > steps.patching.open.shape[3]:
            self._grow_open(steps, power_of_two(open_bytes))
            changed += ["encode", "close"]
        cache, rows = steps.patches, bucket(texts, steps.most)
        needed = min(patches, most_patches)
        if rows > cache.rows or needed > cache.room:
            room = max(FIRST_PATCHES, power_of_two(needed + 1)) - 1  # and the slot nobody reads
            cache.resize(rows, min(room, max(needed, most_patches)), steps.device)
            changed.append("close")
        return changed

    @staticmethod
    def _grow_open(steps: BLTSteps, room: int) -> None:
        """Give every byte of the open patches its slot in a larger ring."""
        old = steps.patching.open  # [B, 2, H, OPEN, D]
        shape = list(old.shape)
        shape[3] = room
        grown = old.new_zeros(shape)
        back = torch.arange(1, 1 + old.shape[3], dtype=torch.int64, device=old.device)
        position = steps.texts.position[:, None] - back  # [B, OPEN]
        row = torch.arange(len(old), dtype=torch.int64, device=old.device)[:, None]
        held = old[row, :, :, position % old.shape[3]]  # [B, OPEN, 2, H, D]
        grown[row, :, :, position % room] = held
        steps.patching.open = grown

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
