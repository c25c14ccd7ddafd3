"""The host's part in captured steps: launching them, and telling requests what was chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from blt.generate.caches.rings import MAX_ROWS
from blt.generate.captured.blt_steps import BLTSteps
from blt.generate.captured.capture import Launcher, Mirror
from blt.generate.captured.choice import Needs
from blt.generate.captured.loading import load
from blt.generate.captured.rooms import Rooms
from blt.generate.captured.slots import PLACE, bucket, power_of_two
from blt.generate.captured.steps import ByteSteps
from blt.generate.incremental import CachedByteLM, CachedModel
from blt.generate.incremental_blt import CachedBLT
from blt.generate.request import Request
from blt.generate.sampling import likeliest
from blt.model.embedding import NgramTables
from blt.model.language import ByteModel

# A step may keep as many drafts beyond the end of a text, and the next one reads as many, before
# the host learns of it.
UNTOLD = 2 * MAX_ROWS


@dataclass
class Row:
    """What the host knows of a row, up to what it was told last."""

    position: int  # bytes read
    patch_start: int  # position of the first byte of the open patch
    patches: int  # complete ones
    most_patches: int  # that it can come to have
    closed: Sequence[float] | None = None  # did the bytes read last end a patch? None: none read

    def keep(self, count: int) -> None:
        """So many of the bytes read last have been kept."""
        if self.closed is None:
            return
        for place, closed in enumerate(self.closed[:count]):
            if closed:
                self.patches += 1
                self.patch_start = self.position + place + 1
        self.position += count


class CapturedWriter:
    """Writes texts that lie in the first rows of a model, whose rings it shares.

    Args:
        model: with room for one text more than are ever written.

    Attributes:
        running: the requests, one per row.
    """

    def __init__(self, model: CachedModel) -> None:
        self.model, self.running = model, list[Request]()
        self.rows: list[Row] = []
        with torch.no_grad():
            self.steps = _steps(model)
        self.rooms = Rooms(self.steps)
        self.launch = Launcher(model.device)
        self.mirror = Mirror(model.device)
        self._told_places = 1  # of what was chosen last
        self._settle()

    def besides(self, bytes_read: int) -> int:
        """Bytes that the steps' own caches can take for a text, besides the model's."""
        if not isinstance(self.model, CachedBLT):
            return 0
        net, kept, longest = self.model.model, self.model.dtype, bytes_read + UNTOLD
        untold = CachedBLT.memory(net, longest, kept) - CachedBLT.memory(net, bytes_read, kept)
        return untold + self.rooms.of_open(longest)

    def memory(self, requests: Sequence[Request]) -> int:
        """Bytes of caches for requests together: every row has the room of the longest."""
        longest = max((request.memory for request in requests), default=0)
        return power_of_two(len(requests)) * longest if requests else 0

    @torch.no_grad()
    def join(self, requests: Sequence[Request]) -> None:
        """Take texts that have been read into the rows behind the others."""
        first = len(self.running)
        self.running += requests
        for row, request in enumerate(requests, first):
            text = self.model.texts[row]
            position, patches = len(text.ids), 0 if text.patches is None else text.patches.length
            size = sum(map(len, text.open_patch))
            most = most_patches(self.model, position + request.sampling.max_bytes + UNTOLD)
            self.rows.append(Row(position, position - size, patches, most))
        self._settle()
        self._make_room()
        for row, request in enumerate(requests, first):
            load(self.steps, self.model, row, request)
            text = self.model.texts[row]
            text.patches, text.open_patch = None, []  # they lie in the steps' own caches now

    @torch.no_grad()
    def leave(self, row: int) -> None:
        """Give up a row; the text in the last one takes it."""
        if self.running[row].finish_reason == "error":
            self.rooms.clear(row)
        last = len(self.running) - 1
        self.rooms.move(last, row)
        self.running[row], self.rows[row] = self.running[last], self.rows[last]
        self.running.pop()
        self.rows.pop()
        self._settle()

    @torch.no_grad()
    def round(self) -> None:
        """Read what was chosen last and choose what comes next; learn what had been chosen."""
        n, count, needs = self.places, len(self.running), self.needs
        rows = bucket(count, self.steps.most)
        self._make_room()
        steps = self.steps
        if isinstance(steps, BLTSteps):
            if n > 1:
                self.launch(steps.guess, rows, n, needs)
            self.launch(steps.cut, rows, n)
        self._ask(max(n, self._told_places))
        if isinstance(steps, BLTSteps):
            self.launch(steps.encode, rows, n)  # while the answer is on its way
        report, *logits = self.mirror.wait()
        told = report[:, :count].t().tolist()
        closed = sum(sum(column[4 : 1 + len(PLACE) * n : len(PLACE)]) for column in told)
        if isinstance(steps, BLTSteps) and closed:
            self.launch(steps.close, rows, n, bucket(int(closed), rows * n))
        self.launch(steps.write, rows, n, needs)
        self._told_places = n
        self._tell(told, n, logits[0].numpy() if logits else None)  # while the device works
        self._count(n, int(closed))

    def _settle(self) -> None:
        """What steps are taken, for the texts that there are now."""
        running = self.running
        self.places = 1 + max((request.draft_bytes for request in running), default=0)
        self.needs = Needs.of(request.sampling for request in running)
        self.shows_logits = any(request.alternatives for request in running)

    def _make_room(self) -> None:
        """For what the next step can bring, and the one before it, of which nothing is known."""
        for name in self.rooms.reserve(
            self.places,
            len(self.running),
            open_bytes=max(row.position - row.patch_start for row in self.rows)
            + MAX_ROWS
            + self.places,
            patches=max(row.patches for row in self.rows) + MAX_ROWS + self.places,
            most_patches=max(row.most_patches for row in self.rows),
        ):
            self.launch.forget(name)

    def _ask(self, places: int) -> None:
        """Have the host told of so many places of what was chosen last, and of patches' ends."""
        wanted = [self.steps.texts.report[: 1 + len(PLACE) * places]]
        if self.shows_logits:
            wanted.append(self.steps.texts.logits[: len(self.running)])
        self.mirror.start(*wanted)

    def _tell(self, told: list[list[float]], n: int, logits: np.ndarray | None) -> None:
        """Tell requests what was chosen for them before this step, of n places."""
        for index, (request, row, column) in enumerate(
            zip(self.running, self.rows, told, strict=True)
        ):
            count, width = int(column[0]), len(PLACE)
            drafts = 0 if row.closed is None else request.draft_bytes
            for place in range(count):
                token, log_p, starts, _ = column[1 + place * width : 1 + (place + 1) * width]
                if token < 0:
                    request.finish("error", "the model's output is not finite")
                    break
                kept = None if place >= drafts else place < count - 1
                request.drafted += kept is not None
                request.accepted += bool(kept)
                top = []
                if request.alternatives and logits is not None:
                    total = float(logits[index, place, int(token)]) - log_p
                    top = likeliest(logits[index, place], total, request.alternatives)
                request.push(int(token), log_p, bool(starts), kept, top)
                if request.finish_reason is not None:
                    break
            row.keep(count)
            row.closed = column[4 : 1 + width * n : width]

    def _count(self, n: int, closed: int) -> None:
        counts, read = self.model.counts, len(self.running) * n
        counts.decoder += read + len(self.running) * (n - 1)
        if isinstance(self.steps, BLTSteps):
            counts.encoder += read
            counts.entropy_model += read * (self.steps.entropy is not None)
            counts.global_transformer += closed
            counts.global_calls += closed > 0


def most_patches(model: CachedModel, bytes_read: int) -> int:
    """Patches that a text of so many bytes can have."""
    return CachedBLT.most_patches(model.model, bytes_read) if isinstance(model, CachedBLT) else 0


def _steps(model: CachedModel) -> BLTSteps | ByteSteps:
    if isinstance(model, CachedBLT):
        return BLTSteps(model)
    assert isinstance(model, CachedByteLM)
    return ByteSteps(model)


def refusal(model: ByteModel) -> str | None:
    """Why a model cannot be written with in captured steps; None: it can."""
    for module in model.modules():
        if isinstance(module, NgramTables) and module.gated is not None:
            return "a gate on n-grams (hash_gate) is not written in captured steps"
        if isinstance(module, NgramTables) and "repeats" in module.fold:
            return "n-grams that leave out repeats (hash_fold) look back without bound"
    if getattr(model, "router", None) is not None:
        return "the patching rule 'learned' cuts between the layers"
    patcher = getattr(model, "patcher", None)
    if patcher is None or patcher.rule.holds_on_device():
        return None
    return f"the patching rule {patcher.rule.name!r} has no holds_each"
