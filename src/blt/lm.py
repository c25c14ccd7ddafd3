"""What users hold: a language model over bytes that scores, patches, saves and writes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blt import patching, vocab
from blt.checkpoint import folders
from blt.errors import UserError
from blt.files.configs import to_dict
from blt.machine.runtime import keep_freed_memory
from blt.model.blt import ByteLatentTransformer
from blt.model.byte_transformer import ByteTransformer, entropy
from blt.model.config import ByteTransformerConfig, Config, TokenTransformerConfig
from blt.model.packing import PackedBatch, Spans, pack
from blt.model.prefix_tree import PatchTree, PrefixTree

if TYPE_CHECKING:
    from blt.data.loader import Batch
    from blt.generate import Generation, State

SCORING_BYTES = 32768  # documents are scored together up to about this many bytes


@dataclass(frozen=True)
class Patches:
    """A document cut into patches: three views of the same boundaries, and why."""

    starts: Tensor  # [T] bool, position t starts a patch
    lengths: Tensor  # [P] bytes
    ids: Tensor  # [T] patch that position t lies in
    entropies: Tensor | None  # [T] nats, of the prediction of byte t+1; None: the rule needs none
    opens_next: bool  # would position T start a patch?

    @property
    def mean_size(self) -> float:
        """Bytes per patch."""
        return patching.mean_patch_size(self.starts)


class Prediction(NamedTuple):
    """What a model says about a training batch."""

    logits: Tensor  # [M, V] after every position
    targets: Tensor  # [M] what comes next; PAD where there is nothing to predict
    patch_size: float | None  # mean bytes per patch or token; None: a model without either


class Score(NamedTuple):
    """What a model says about a continuation."""

    log_p: float  # nats
    greedy: bool  # is it what greedy generation would write?


class LanguageModel(nn.Module):
    """What all models here have in common: they read and score bytes."""

    kind: str
    config: Any
    scoring_ids = SCORING_BYTES  # of continuations that are scored together

    @property
    def shares_prefixes(self) -> bool:
        """Is there a :meth:`tree_logits`?"""
        return True

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        """Documents, each ids [T] with T >= 1 → logits of all, end to end [N, 260]."""
        raise NotImplementedError

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        """Logits after every row of documents that share what they begin with  # [N, V]."""
        raise NotImplementedError

    def ids_of(self, text: bytes) -> Tensor:
        """The ids as which the model reads a text, BOS first  # [T] int64."""
        return vocab.encode(text)

    def first_of(self, prompt: bytes, ids: Tensor) -> int:
        """Index of the first of ``ids``, of a text that begins with ``prompt``, after that."""
        return len(prompt) + 1

    def predict(self, batch: Batch) -> Prediction:
        """Logits and targets of a training batch, end to end."""
        return Prediction(self.packed_logits(batch.documents), batch.targets, None)

    def files(self) -> dict[str, str]:
        """What a model folder holds besides config and weights, by name."""
        return {}

    def read_files(self, folder: Path) -> None:
        """Read :meth:`files` back."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @overload
    def logits(self, ids: Tensor) -> Tensor: ...
    @overload
    def logits(self, ids: Sequence[Tensor]) -> list[Tensor]: ...

    @torch.no_grad()
    def logits(self, ids: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Next-byte logits after every position.

        Args:
            ids: one document [T] int64, or a list of documents of any lengths. A document starts
                with BOS (``blt.encode`` puts it there).

        Returns:
            float32 [T, 260], or a list of them.

        Raises:
            ValueError: ids of another type or shape, or out of range.
        """
        if isinstance(ids, Tensor):
            return self.logits([ids])[0]
        documents = [vocab.check_ids(document).to(self.device) for document in ids]
        out = [torch.empty(0, vocab.VOCAB_SIZE, dtype=torch.float32, device=self.device)] * len(
            documents
        )
        for group in group_documents([len(document) for document in documents]):
            packed = self.packed_logits([documents[index] for index in group]).float()
            parts = packed.split([len(documents[index]) for index in group])
            for index, part in zip(group, parts, strict=True):
                out[index] = part
        return out

    @torch.no_grad()
    def bits_per_byte(self, text: vocab.Text, context: int | None = None) -> float:
        """Cross-entropy of the bytes of ``text`` in bits per byte, the first one given BOS.

        Args:
            text: ``str`` or bytes-like.
            context: score in pieces of this many bytes, each starting anew; None: in one piece,
                whose cost grows with the square of its number of patches.

        Returns:
            bits per byte; 0.0 for an empty text.
        """
        data = vocab.to_bytes(text)
        size = context or max(1, len(data))
        pieces = [data[at : at + size] for at in range(0, len(data), size)]
        nats = 0.0
        for group in group_documents([len(piece) + 1 for piece in pieces]):
            nats += self.nats([pieces[index] for index in group])
        return nats / math.log(2) / max(1, len(data))

    @torch.no_grad()
    def nats(self, pieces: Sequence[bytes]) -> float:
        """Cross-entropy of all bytes of ``pieces``, each a document, in nats; in one forward."""
        documents = [self.ids_of(piece).to(self.device) for piece in pieces]
        logits = self.packed_logits(documents).split(8192)  # float32 copies of a few at a time
        targets = torch.cat([F.pad(ids[1:], (0, 1), value=vocab.PAD) for ids in documents])
        return sum(
            F.cross_entropy(x.float(), y, ignore_index=vocab.PAD, reduction="sum").item()
            for x, y in zip(logits, targets.split(8192), strict=True)
        )

    def log_likelihoods(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[float]:
        """Log-probability in nats of each continuation after its prompt.

        Args:
            pairs: prompts and continuations; a document is a BOS, a prompt, and its continuation.
        """
        return [score.log_p for score in self.score(pairs)]

    def score(self, pairs: Sequence[tuple[bytes, bytes]]) -> list[Score]:
        """As :meth:`log_likelihoods`, and whether greedy generation would write it.

        What texts share at their start, such as the choices of a question, is read once.
        """
        from blt.scoring.continuations import score

        return score(self, pairs)

    def save(
        self, folder: str | os.PathLike[str], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write config.json and model.safetensors into ``folder``, whole or not at all.

        Args:
            tensors: weights to write; None: the model's own.
        """
        config = {"kind": self.kind, "model": to_dict(self.config)}
        weights = self.state_dict() if tensors is None else tensors
        folders.save(folder, config, weights, self.files())

    def read(self, prompt: vocab.Text) -> State:
        """Read a text once, so that :meth:`generate` can continue it any number of times."""
        from blt.generate import read

        return read(self, prompt)

    @overload
    def generate(self, prompts: vocab.Text = b"", **options: Any) -> Generation: ...
    @overload
    def generate(self, prompts: Sequence[vocab.Text], **options: Any) -> list[Generation]: ...

    def generate(
        self, prompts: vocab.Text | Sequence[vocab.Text] = b"", **options: Any
    ) -> Generation | list[Generation]:
        """Continue one prompt or many; options and errors as in :func:`blt.generate.generate`."""
        from blt.generate import generate

        return generate(self, prompts, **options)


class ByteLM(LanguageModel, ByteTransformer):
    """Byte transformer without patches: entropy model, or baseline."""

    kind = "byte"
    config: ByteTransformerConfig

    def __init__(self, config: ByteTransformerConfig) -> None:
        keep_freed_memory()
        ByteTransformer.__init__(self, config)

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        spans = Spans.from_lengths([len(ids) for ids in documents], self.device)
        return self(torch.cat(list(documents)), spans)  # type: ignore[no-any-return]

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        branches, stack = tree.branches, self.transformer
        caches = [branches.attention(stack.window)] * stack.depth
        return self(tree.ids, branches.spans, caches)  # type: ignore[no-any-return]


class BLT(LanguageModel, ByteLatentTransformer):
    """A Byte Latent Transformer with its entropy model (paper §3)."""

    kind = "blt"
    config: Config
    lookup_table: Tensor | None  # [260 ** order] bool of the rule "lookup"; training fills it

    def __init__(self, config: Config) -> None:
        keep_freed_memory()
        ByteLatentTransformer.__init__(self, config)
        size = vocab.VOCAB_SIZE**config.patching.lookup_order
        looks_up = config.patching.rule == "lookup"
        self.register_buffer(
            "lookup_table", torch.zeros(size, dtype=torch.bool) if looks_up else None
        )

    def packed_logits(self, documents: Sequence[Tensor]) -> Tensor:
        return self(self.pack(documents))  # type: ignore[no-any-return]

    @property
    def shares_prefixes(self) -> bool:
        return not self.config.patching.newline_reset  # whose entropy model sees lines

    def tree_logits(self, tree: PrefixTree) -> Tensor:
        encoder, decoder = self.encoder, self.decoder
        spans, local = tree.branches.spans, tree.branches.attention(self.config.sliding_window)
        x = encoder.transformer(
            encoder.embedding.read(tree.looking_back(encoder.embedding.reach)),
            spans,
            [local] * encoder.transformer.depth,
        )
        cut = self._patch_tree(tree)
        count, stack = cut.branches.offsets[-1], self.global_transformer.transformer
        patches = encoder.patches(x[cut.rows], cut.patch_ids, count)
        caches = [cut.branches.attention(None)] * stack.depth
        seen = decoder.keys_values(self.global_transformer(patches, cut.branches.spans, caches))
        locals_ = [local] * decoder.transformer.depth
        return decoder.logits(x, seen, cut.seen, spans, locals_)

    def _patch_tree(self, tree: PrefixTree) -> PatchTree:
        rule, entropies = self.config.patching, None
        if rule.needs_entropies:
            assert self.entropy_model is not None
            stack = self.entropy_model.transformer
            caches = [tree.branches.attention(stack.window)] * stack.depth
            entropies = entropy(self.entropy_model(tree.ids, tree.branches.spans, caches)).cpu()
        ids = tree.ids.cpu()

        def decisions(rows: Tensor) -> Tensor:
            known = None if entropies is None else entropies[rows]
            return patching.decide(rule, ids[rows], known, **self.tables)

        return PatchTree.of(tree, decisions)

    def predict(self, batch: Batch) -> Prediction:
        packed = self.pack(batch.documents, batch.entropies)
        return Prediction(self(packed), batch.targets, packed.mean_patch_size)

    def pack(
        self, documents: Sequence[Tensor], entropies: Sequence[Tensor] | None = None
    ) -> PackedBatch:
        """Cut documents, each ids [T] with T >= 1, into patches and lay them end to end.

        Args:
            entropies: nats [T] of each, where they are known; None: the entropy model is asked.
        """
        rule = self.config.patching
        if entropies is None or not rule.needs_entropies:
            return pack(documents, self.decide(documents)[0])
        both = zip(documents, entropies, strict=True)
        return pack(documents, [patching.decide(rule, ids, known) for ids, known in both])

    @property
    def tables(self) -> dict[str, Any]:
        """What the rule needs besides ids and entropies, as :func:`decide` takes it."""
        order = self.config.patching.lookup_order
        return {} if self.lookup_table is None else {"lookup": (self.lookup_table, order)}

    def decide(self, documents: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor | None]]:
        """Boundaries [T + 1] bool and entropies [T] (or None) of each document."""
        return decide(self.config.patching, self.entropy_model, documents, **self.tables)

    def patch(self, text: vocab.Text | Tensor) -> Patches:
        """Cut a document into patches.

        Args:
            text: ``str`` or bytes-like, in front of which BOS is put as a position of its own; or
                ids [T] int64, taken as they are.
        """
        ids = vocab.check_ids(text) if isinstance(text, Tensor) else vocab.encode(text)
        return patch(self.config.patching, self.entropy_model, ids.to(self.device), **self.tables)


@torch.no_grad()
def decide(
    config: patching.PatchingConfig,
    entropy_model: ByteTransformer | None,
    documents: Sequence[Tensor],
    **tables: Any,
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Boundaries [T + 1] bool and entropies [T] (None where the rule needs none) per document."""
    entropies: list[Tensor | None] = [None] * len(documents)
    if config.needs_entropies:
        if entropy_model is None:
            raise UserError(f"patching rule {config.rule!r} needs an entropy model")
        entropies = list(document_entropies(entropy_model, documents, config.newline_reset))
    decisions = [
        patching.decide(config, ids, entropy, **tables)
        for ids, entropy in zip(documents, entropies, strict=True)
    ]
    return decisions, entropies


@torch.no_grad()
def document_entropies(
    entropy_model: ByteTransformer, documents: Sequence[Tensor], newline_reset: bool = False
) -> tuple[Tensor, ...]:
    """Entropies in nats, [T] per document; with a reset, context restarts after each newline."""
    lengths = [len(ids) for ids in documents]
    spans = Spans.from_lengths(lengths, documents[0].device)
    ids = torch.cat(list(documents))
    contexts = entropy_contexts(ids, spans, newline_reset)
    return spans.split(entropy_model.entropies(ids, contexts))


def entropy_contexts(ids: Tensor, documents: Spans, newline_reset: bool) -> Spans:
    """The spans within which the entropy model looks back: documents or, with a reset, lines."""
    if not newline_reset:
        return documents
    newlines = (ids == ord("\n") + vocab.OFFSET).nonzero().flatten() + 1
    cuts = sorted({*documents.offsets, *newlines.tolist()})
    return Spans.from_lengths([end - start for start, end in pairwise(cuts)], ids.device)


def patch(
    config: patching.PatchingConfig,
    entropy_model: ByteTransformer | None,
    ids: Tensor,
    **tables: Any,
) -> Patches:
    """Cut one document, ids [T], into patches by any rule."""
    if len(ids) == 0:
        none = torch.empty(0, dtype=torch.int64, device=ids.device)
        return Patches(none.bool(), none, none, None, opens_next=True)
    (decisions,), (entropies,) = decide(config, entropy_model, [ids], **tables)
    starts = decisions[:-1]
    return Patches(
        starts=starts,
        lengths=patching.starts_to_lengths(starts),
        ids=patching.starts_to_ids(starts),
        entropies=entropies,
        opens_next=bool(decisions[-1]),
    )


def group_documents(lengths: Sequence[int], most: int = SCORING_BYTES) -> list[list[int]]:
    """Indices of non-empty documents, in groups of at most ``most`` bytes; a longer one alone."""
    groups: list[list[int]] = []
    size = most
    for index, length in enumerate(lengths):
        if length == 0:
            continue
        if size + length > most:
            groups.append([])
            size = 0
        groups[-1].append(index)
        size += length
    return groups


def kinds() -> dict[str, tuple[type[LanguageModel], type[Any]]]:
    """Of models and their configs, by kind."""
    from blt.token_lm import TokenLM

    return {
        "blt": (BLT, Config),
        "byte": (ByteLM, ByteTransformerConfig),
        "token": (TokenLM, TokenTransformerConfig),
    }


def load(source: str | os.PathLike[str]) -> LanguageModel:
    """Load a model folder, in any layout that there is a reader for, or one of the hub.

    Tensors of a gigabyte or more, such as hash tables, are mapped into memory and not read.

    Args:
        source: a folder, or a hub id ("owner/name") that is no folder here.

    Raises:
        UserError: missing, damaged or foreign checkpoint; says which file and the way out.
    """
    from blt.checkpoint.convert import open_checkpoint
    from blt.files.hub import local_folder

    folder = local_folder(source)
    found = open_checkpoint(folder)
    model = folders.skeleton(kinds()[found.kind][0], found.config, found.where)
    assert isinstance(model, LanguageModel)
    folders.fill(model, found.tensors)
    model.read_files(folder)
    return model.eval()
