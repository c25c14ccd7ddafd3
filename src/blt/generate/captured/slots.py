"""The state of texts that are being written, one row per text, all of it on the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from blt.generate.caches.rings import MAX_ROWS
from blt.vocab import OFFSET, VOCAB_SIZE

INTEGERS = (
    "position",  # ids read, so the index of the next one
    "rule_start",  # see blt.patching.streaming.Boundaries
    "context",  # the same
    "patch_start",  # position of the first byte of the open patch
    "patches",  # complete ones
    "active",  # 1: somebody waits for this text; 0: an empty row
    "home",  # where in the rings new keys go: its own row; of an empty row: one that nobody reads
    "token",  # id chosen last, not read yet
    "spelling",  # see choice.Spelling
    "remaining",  # bytes that may still be written
    "key",  # see blt.generate.numbers
    "taken",  # the same
    "drafts",  # bytes guessed at each step
    "top_k",  # 260: all of them
)
REALS = ("entropy", "temperature", "top_p", "min_p", "penalty")
RESET = {"token": OFFSET, "top_k": VOCAB_SIZE, "top_p": 1.0, "penalty": 1.0}  # else 0

# Of the report: how many ids were chosen, then of each place of a step these.
PLACE = ("id", "log_p", "starts", "closed")
REPORT_ROWS = 1 + len(PLACE) * MAX_ROWS


@dataclass
class Rows:
    """Tensors with one row per text; those in ``across`` have theirs in the second dimension."""

    across: ClassVar[tuple[str, ...]] = ()

    def tensors(self) -> Iterator[tuple[str, Tensor, int]]:
        """Name, tensor, and the dimension that counts texts."""
        for one in fields(self):
            yield one.name, getattr(self, one.name), int(one.name in self.across)

    def part(self, first: int, count: int) -> Any:
        """A view of some rows."""
        return type(self)(**{n: x.narrow(dim, first, count) for n, x, dim in self.tensors()})

    def move(self, source: int, target: int) -> None:
        for _, x, dim in self.tensors():
            x.select(dim, target).copy_(x.select(dim, source))


@dataclass
class Texts(Rows):
    """What every text has.

    Attributes:
        integers: [14, B] int64, named by ``INTEGERS``.
        reals: [5, B] float64, named by ``REALS``.
        recent: [B, W] int64 the last ids read; 0 before the document.
        ids: [B, 260] bool ids that are in the text, for the repetition penalty.
        report: [129, B] float32 what the host is told: how many ids were chosen (not read yet),
            and for each place of a step the id chosen (-1: the logits were not finite), its log-
            probability, whether it starts a patch, and whether the byte read there ended one.
        logits: [B, 32, 260] float32 that the ids were chosen from.
    """

    across: ClassVar[tuple[str, ...]] = ("integers", "reals", "report")
    integers: Tensor
    reals: Tensor
    recent: Tensor
    ids: Tensor
    report: Tensor
    logits: Tensor

    @classmethod
    def empty(cls, rows: int, reach: int, device: torch.device) -> Texts:
        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        texts = cls(
            zeros(len(INTEGERS), rows, dtype=torch.int64),
            zeros(len(REALS), rows, dtype=torch.float64),
            zeros(rows, reach, dtype=torch.int64),
            zeros(rows, VOCAB_SIZE, dtype=torch.bool),
            zeros(REPORT_ROWS, rows, dtype=torch.float32),
            zeros(rows, MAX_ROWS, VOCAB_SIZE, dtype=torch.float32),
        )
        for row in range(rows):
            texts.put(row, {})
        return texts

    def __getattr__(self, name: str) -> Tensor:
        if name in INTEGERS:
            return self.integers[INTEGERS.index(name)]
        if name in REALS:
            return self.reals[REALS.index(name)]
        raise AttributeError(name)

    def put(self, row: int, values: dict[str, float]) -> None:
        """Set the numbers of a row; those not given are what they are in an empty one."""
        values = {"home": self.integers.shape[1], **values}
        for names, numbers in ((INTEGERS, self.integers), (REALS, self.reals)):
            column = [values.get(name, RESET.get(name, 0)) for name in names]
            numbers[:, row] = torch.tensor(column, dtype=numbers.dtype, device="cpu")


@dataclass
class Patching(Rows):
    """What a text of a Byte Latent Transformer has besides, in rows that never grow.

    Attributes:
        peak: [B, d] maximum over the states of the open patch's bytes.
        open: [B, 2, H, OPEN, D] keys and values of its bytes, for the encoder's cross-attention:
            that of position p in slot p % OPEN.
    """

    peak: Tensor
    open: Tensor


class Seeing:
    """Keys and values of the patches that bytes see, [crosses, 2, patches, k, d].

    Rows of ``memory``: of the patch that each text sees now; one that nobody reads; then of
    patches that the bytes of a step have completed, by text and place.
    """

    def __init__(self, like: Tensor, rows: int, dtype: torch.dtype) -> None:
        self.rows = rows
        crosses, two, _, k, dim = like.shape
        self.shape = (crosses, two, k, dim)
        self.memory = self._empty(rows + 1, dtype, like.device)

    def _empty(self, patches: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        crosses, two, k, dim = self.shape
        return torch.zeros(crosses, two, patches, k, dim, dtype=dtype, device=device)

    def reserve(self, places: int) -> bool:
        """Make room for steps of several places; was there none?"""
        patches = self.rows + 1 + (places > 1) * places * self.rows
        old = self.memory
        if patches <= old.shape[2]:
            return False
        self.memory = self._empty(patches, old.dtype, old.device)
        self.memory[:, :, : self.rows] = old[:, :, : self.rows]
        return True


class PatchCache:
    """Keys and values of all patches of all texts, [layers, rows, 2, H, room + 1, D].

    Rows and room grow as they are needed; the last slot is one that nobody reads.
    """

    def __init__(self, layers: int, heads: int, head_dim: int, dtype: torch.dtype) -> None:
        self.shape, self.dtype = (layers, heads, head_dim), dtype
        self.memory = self._empty(0, 0, torch.device("cpu"))

    def _empty(self, rows: int, room: int, device: torch.device) -> Tensor:
        layers, heads, head_dim = self.shape
        shape = (layers, rows, 2, heads, room + 1, head_dim)
        # Zeros: what is masked is multiplied by 0, and must be finite.
        return torch.zeros(shape, dtype=self.dtype, device=device)

    @property
    def rows(self) -> int:
        return self.memory.shape[1]

    @property
    def room(self) -> int:
        return self.memory.shape[4] - 1

    def resize(self, rows: int, room: int, device: torch.device) -> None:
        """Keep what fits."""
        old = self.memory
        self.memory = self._empty(rows, room, device)
        rows, room = min(rows, old.shape[1]), min(room, old.shape[4] - 1)
        if rows and room:
            self.memory[:, :rows, :, :, :room] = old[:, :rows, :, :, :room].to(device)

    def load(self, row: int, patches: Tensor) -> None:
        """Keys and values [layers, 2, H, P, D] of a text's patches."""
        self.memory[:, row, :, :, : patches.shape[3]] = patches


@dataclass
class Work(Rows):
    """What the steps of one byte hand on to each other, for n places of each of B texts."""

    new: Tensor  # [B, n] ids read: the one chosen last, then drafts
    opens: Tensor  # [B, n] bool would the next byte start a patch?
    closed: Tensor  # [B, n] bool does a byte end a patch that somebody waits for?
    entropies: Tensor  # [B, n] float64
    after: Tensor  # [B, 4, n] rule_start, context, patch_start, patches closed; after each byte
    began: Tensor  # [B, n] position at which the patch of a byte began
    x: Tensor  # [B, n, d] states of bytes
    peaks: Tensor  # [B, n, d] maximum over those of the byte's patch so far
    spelling: Tensor  # [B, n] before an id is chosen at a place
    ids: Tensor  # [B, n, 260] the same
    drawn_from: Tensor  # [B, n - 1, 260] distributions of drafts

    @classmethod
    def empty(cls, rows: int, n: int, dim: int, dtype: torch.dtype, device: torch.device) -> Work:
        def zeros(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        whole, real, one = (rows, n), torch.float64, torch.int64
        drafts = max(n - 1, 0)
        return cls(
            new=zeros(one, *whole) + OFFSET,
            opens=zeros(torch.bool, *whole),
            closed=zeros(torch.bool, *whole),
            entropies=zeros(real, *whole),
            after=zeros(one, rows, 4, n),
            began=zeros(one, *whole),
            x=zeros(dtype, *whole, dim),
            peaks=zeros(dtype, *whole, dim),
            spelling=zeros(one, *whole),
            ids=zeros(torch.bool, *whole, VOCAB_SIZE if n > 1 else 0),
            drawn_from=zeros(real, rows, drafts, VOCAB_SIZE),
        )


def power_of_two(count: int) -> int:
    """The smallest that is at least ``count``."""
    return 1 << max(0, count - 1).bit_length()


def bucket(count: int, most: int) -> int:
    """The size of the step that ``count`` texts or patches take: a power of two, or ``most``."""
    return min(most, power_of_two(count))


def last_of(ids: Sequence[int], count: int) -> list[int]:
    """The last ids, 0 before the document."""
    return [*[0] * (count - len(ids)), *ids[len(ids) - min(count, len(ids)) :]]
