"""A language model that remembers what it has read: one step per byte, the global one per patch.

The same modules as in training and scoring, with caches. A batch of texts is read together, each
at its own position and in its own phase of a patch. Texts are read in two moves: ``extend`` gives
the logits after some new bytes, ``commit`` keeps as many of them as are wanted. What is not kept
leaves no trace, so bytes can be tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from weakref import ref

import torch
from torch import Tensor, nn

from blt.generate.caches.patches import PatchMemory
from blt.generate.caches.rings import MAX_ROWS, Ring, RingPiece, RingStep
from blt.generate.compiled import CompiledForward
from blt.generate.lookback import looking_back
from blt.generate.steps import ByteSteps
from blt.generate.trails import Trail
from blt.model.language import ByteModel
from blt.model.packing import Spans
from blt.model.transformer import CausalTransformer
from blt.patching.streaming import Boundaries
from blt.texts.pieces import groups
from blt.vocab import VOCAB_SIZE

PIECE_BYTES = 2048  # of prompts that are read in one forward


@dataclass
class Counts:
    """Work done so far: positions that went through each part, prompts included."""

    entropy_model: int = 0
    encoder: int = 0
    decoder: int = 0  # drafts included
    global_transformer: int = 0  # patches
    global_calls: int = 0


@dataclass
class Text:
    """What one text is, besides its row in the caches."""

    ids: list[int]
    boundaries: Boundaries | None = None  # None: a model without patches
    patches: PatchMemory | None = None
    open_patch: list[Tensor] = field(default_factory=list)  # states [m, d] of its bytes
    trail: Trail | None = None  # of a text that a router cuts

    def copy(self, dtype: torch.dtype | None = None) -> Text:
        """Another with the same bytes, its patches in ``dtype`` or their own."""
        patches = None if self.patches is None else self.patches.copy(dtype)
        return replace(self, ids=list(self.ids), patches=patches, open_patch=list(self.open_patch))


@dataclass(frozen=True, repr=False)
class State:
    """A snapshot of one text that a model has read; can be continued any number of times."""

    text: Text
    rows: list[Tensor]  # of each cache
    logits: Tensor  # [260] of the byte that comes next
    reader: ref[ByteModel] | None = None  # who read it, where others might be asked to go on

    def __len__(self) -> int:
        """Bytes read."""
        return len(self.text.ids) - 1

    def __repr__(self) -> str:
        return f"State({len(self)} bytes read)"


class CachedModel:
    """A batch of texts and what the model remembers of them, one row per text.

    Attributes:
        compiled: reads whole documents; None: the model does it as it is.
        beginning: where the patches of a new text lie; None: a model without patches.
    """

    def __init__(self, model: ByteModel, max_batch: int, dtype: torch.dtype) -> None:
        self.max_batch, self.dtype = max_batch, dtype
        self.device = model.device
        self.counts = Counts()
        self.texts: list[Text] = []
        self.rings: list[Ring] = []
        self.compiled: CompiledForward | None = None
        self.beginning: Boundaries | None = None
        self.logits = torch.zeros(max_batch, VOCAB_SIZE, dtype=torch.float32, device=model.device)

    # --- to be given by the models ---------------------------------------------------------------

    def prefill(self, documents: Sequence[list[int]]) -> None:
        """Read whole documents, BOS first, into new rows; their next logits are in ``logits``."""
        raise NotImplementedError

    def extend(self, new_ids: Sequence[Sequence[int]], first: int = 0) -> Tensor:
        """Logits after each new id of the texts in rows from ``first`` on.

        Args:
            new_ids: [B][n] ids, 1 <= n <= MAX_ROWS; more of one text if all of them are kept.
            first: row of the first text.

        Returns:
            [B, n, 260] float32
        """
        raise NotImplementedError

    def commit(self, accepted: Sequence[int]) -> None:
        """Keep so many of the ids that each text was last extended by."""
        raise NotImplementedError

    @staticmethod
    def memory(model: ByteModel, bytes_read: int, dtype: torch.dtype = torch.float32) -> int:
        """Bytes that a text of ``bytes_read`` bytes can take at most, its caches in ``dtype``."""
        raise NotImplementedError

    # --- rows ------------------------------------------------------------------------------------

    def read(self, documents: Sequence[list[int]]) -> None:
        """Read documents of any length into new rows."""
        for group in groups([len(ids) for ids in documents], PIECE_BYTES):
            first = len(self.texts)
            self.prefill([documents[index][:PIECE_BYTES] for index in group])
            for row, index in enumerate(group, first):
                self.read_on(row, documents[index][PIECE_BYTES:])

    def read_on(self, row: int, ids: Sequence[int]) -> None:
        """Read more of one text."""
        for at in range(0, len(ids), PIECE_BYTES):
            part = list(ids[at : at + PIECE_BYTES])
            logits = self.extend([part], row)
            self.commit([len(part)])
            self.logits[row] = logits[0, -1]

    def save(self, row: int) -> State:
        text = self.texts[row].copy()
        return State(text, self._save_rows(row), self.logits[row].clone())

    def load(self, state: State) -> None:
        """Continue a saved text in a new row."""
        row, text = len(self.texts), state.text.copy(self.dtype)
        if text.boundaries is not None and self.beginning is not None:  # θ may be another by now
            text.boundaries = replace(text.boundaries, rule=self.beginning.rule)
        self.texts.append(text)
        self._load_rows(row, state.rows, state.logits)

    def fork(self, row: int) -> None:
        """Copy a text into a new row."""
        self.texts.append(self.texts[row].copy())
        self._copy_row(row, len(self.texts) - 1)

    def drop(self, row: int) -> None:
        """Forget a text; the last one moves into its row."""
        last = len(self.texts) - 1
        if row != last:
            self._copy_row(last, row)
            self.texts[row] = self.texts[last]
        self.texts.pop()

    def swap(self, one: int, other: int) -> None:
        """Let two texts change places."""
        if one != other:
            saved = self._save_rows(one), self.logits[one].clone()
            self._copy_row(other, one)
            self._load_rows(other, *saved)
            texts = self.texts
            texts[one], texts[other] = texts[other], texts[one]

    def clear(self, row: int) -> None:
        """Leave nothing of a text that is not finite: what nobody sees is multiplied by 0."""
        for ring in self.rings:
            ring.memory[row] = 0

    def _save_rows(self, row: int) -> list[Tensor]:
        return [*(ring.save_row(row) for ring in self.rings), *self._save_row(row)]

    def _load_rows(self, row: int, rows: Sequence[Tensor], logits: Tensor) -> None:
        for ring, saved in zip(self.rings, rows, strict=False):
            ring.load_row(row, saved)
        self._load_row(row, rows[len(self.rings) :])
        self.logits[row] = logits

    def _copy_row(self, source: int, target: int) -> None:
        for ring in self.rings:
            ring.copy_row(source, target)
        self.logits[target] = self.logits[source]

    def _save_row(self, row: int) -> list[Tensor]:
        return []

    def _load_row(self, row: int, saved: Sequence[Tensor]) -> None:
        pass

    # --- whole documents -------------------------------------------------------------------------

    def _goes_compiled(self, count: int) -> bool:
        """Is a batch of so many ids read by graphs? A single one would be a size of its own."""
        return self.compiled is not None and count > 1

    def _read_bytes(
        self,
        model: CausalTransformer,
        ids: Tensor,
        spans: Spans,
        ring: Ring,
        layers: range,
        offsets: tuple[int, ...],
        first: int,
    ) -> Tensor:
        """Read ids [N] with a byte transformer, whose keys and values go into a ring → [N, 260].

        Args:
            spans: within which ids see each other.
            layers: of the ring.
            offsets: of documents.
            first: row of the first document.
        """
        if not self._goes_compiled(len(ids)):
            return model(ids, spans, ring.prefill(layers, spans.offsets, offsets, first))  # type: ignore[no-any-return]
        assert self.compiled is not None
        found = self.compiled.read_bytes(ids, spans)
        ring.keep(layers, found.layers, offsets, first)
        return found.logits

    # --- steps -----------------------------------------------------------------------------------

    def _positions(self, texts: Sequence[Text], n: int) -> Tensor:
        """Positions of the next n ids of each text  # [B, n]."""
        return torch.tensor(
            [range(len(text.ids), len(text.ids) + n) for text in texts],
            dtype=torch.int64,
            device=self.device,
        )


def working_memory(model: ByteModel, prompt_bytes: int) -> int:
    """Bytes that reading a piece of a prompt takes besides caches; only one is read at once.

    An estimate: eight rows as wide as the widest layer for each byte of the piece.
    """
    widest = max(m.out_features for m in model.modules() if isinstance(m, nn.Linear))
    return 8 * 4 * widest * min(prompt_bytes, PIECE_BYTES)


def step_of(
    ring: Ring, positions: Tensor, first: int, starts: Tensor | None = None
) -> RingStep | RingPiece:
    """How the bytes at ``positions`` [B, n] are read, few of many texts or many of one."""
    if positions.shape[1] <= MAX_ROWS:
        return ring.step(positions, first, starts)
    return ring.piece(positions, first, starts)


def flat(positions: Tensor) -> Spans:
    return Spans.along(positions.flatten())


class CachedByteLM(CachedModel):
    """A byte transformer without patches."""

    def __init__(
        self, model: CausalTransformer, steps: ByteSteps, max_batch: int, dtype: torch.dtype
    ) -> None:
        super().__init__(model, max_batch, dtype)
        self.model, self.steps = model, steps
        self.rings = [Ring([model.transformer], max_batch, self.dtype)]
        self.layers = range(model.transformer.depth)
        self._pending: tuple[int, Sequence[Sequence[int]]] = (0, [])

    @staticmethod
    def memory(model: ByteModel, bytes_read: int, dtype: torch.dtype = torch.float32) -> int:
        assert isinstance(model, CausalTransformer)
        return Ring.bytes_per_row([model.transformer], dtype) + bytes_read

    @torch.inference_mode()
    def prefill(self, documents: Sequence[list[int]]) -> None:
        first = len(self.texts)
        self.texts += [Text(list(ids)) for ids in documents]
        spans = Spans.from_lengths([len(ids) for ids in documents], self.device)
        flat = torch.tensor(
            [i for ids in documents for i in ids], dtype=torch.int64, device=self.device
        )
        logits = self._read_bytes(
            self.model, flat, spans, self.rings[0], self.layers, spans.offsets, first
        )
        self.counts.decoder += len(flat)
        self.logits[first : len(self.texts)] = logits[[end - 1 for end in spans.offsets[1:]]]

    @torch.inference_mode()
    def extend(self, new_ids: Sequence[Sequence[int]], first: int = 0) -> Tensor:
        texts, n = self.texts[first : first + len(new_ids)], len(new_ids[0])
        positions = self._positions(texts, n)
        ids = torch.tensor(new_ids, dtype=torch.int64, device=self.device)
        caches = step_of(self.rings[0], positions, first).caches(self.layers)
        tables, back = self.model.tables, None
        if tables is not None:
            back = looking_back(tables, [text.ids for text in texts], new_ids, n)
        logits = self.steps.logits(ids.flatten(), flat(positions), caches, back)
        self.counts.decoder += ids.numel()
        self._pending = (first, new_ids)
        return logits.float().unflatten(0, (len(texts), n))  # type: ignore[no-any-return]

    def commit(self, accepted: Sequence[int]) -> None:
        first, new_ids = self._pending
        for row, (ids, count) in enumerate(zip(new_ids, accepted, strict=True), first):
            self.texts[row].ids += ids[:count]
