"""What all models have in common for who uses them: they score, save and write."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from blt import generate as generation
from blt import vocab
from blt.chat.source import TEMPLATE, read_source
from blt.checkpoint import adapters, folders
from blt.checkpoint.adapters import Adapter
from blt.checkpoint.folders import INIT
from blt.errors import UserError, require_whole
from blt.files.configs import to_dict
from blt.generate import Generation, State
from blt.model.compiling import compile_model
from blt.model.facts import three_lines
from blt.model.language import Batch, Ready, Score
from blt.model.packing import Laid, PackedBatch, end_to_end, on
from blt.model.prefix_tree import PrefixTree
from blt.scoring import bits, continuations, embedding, states
from blt.texts import marked
from blt.texts.pieces import groups, segments

SCORING_BYTES = 32768  # documents are scored together up to about this many bytes


class LanguageModel(nn.Module):
    """What all models here have in common: they read and score bytes."""

    kind: str
    config: Any
    loss: Callable[[Tensor, Tensor], Tensor]  # logits [N, V], ids [N] → nats, summed
    chat_template: str | None = None  # for :class:`blt.chat.ChatTemplate`, kept in the folder
    begun: Mapping[str, Any] | None = None  # what init.json says: which model it began as
    adapter: Adapter | None = None  # that is trained in place of the weights
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
        """Index of the first id after the prompt, in the ids of a text that begins with it."""
        return len(prompt) + 1

    def lay_out(self, documents: Sequence[Tensor]) -> PackedBatch | Laid:
        """Documents, ids [T] each with T >= 1, as the model reads them, on its device."""
        return Laid(*end_to_end(documents, self.device))

    def ready(self, batch: Batch) -> Ready:
        """Lay a training batch out on the device, without waiting for it."""
        ids, spans = end_to_end(batch.documents, self.device)
        tables = getattr(self, "tables", None)
        groups = None
        if tables is not None and self.device.type != "cpu":  # there, when the gradient is wanted
            groups = tables.groups(ids, spans.positions)
        inputs = (ids, spans) if groups is None else (ids, spans, None, groups)
        return Ready(batch, inputs, on(batch.targets, self.device), None)

    def predict(self, ready: Ready) -> Tensor:
        """Logits after every position of a training batch, end to end  # [M, V]."""
        return self(*ready.inputs)  # type: ignore[no-any-return]

    def compile(self, *_: Any, **__: Any) -> None:
        """Let torch.compile fuse what lies between the matrix products, in place.

        Training, scoring and entropies then run compiled: for much work on a GPU, as compiling
        takes up to a minute. Where it does not work all stays as it is, with a warning.
        """
        compile_model(self)

    def files(self) -> dict[str, str]:
        """What a model folder holds besides config and weights, by name."""
        return {} if self.chat_template is None else {TEMPLATE: self.chat_template}

    def read_files(self, folder: Path) -> None:
        """Read :meth:`files` back."""
        found = read_source(folder)
        self.chat_template = None if found is None else found.text

    def __repr__(self) -> str:
        return three_lines(self)

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
        documents = [vocab.check_ids(document) for document in ids]
        out = [torch.empty(0, vocab.VOCAB_SIZE, dtype=torch.float32, device=self.device)] * len(
            documents
        )
        for group in groups([len(document) for document in documents], SCORING_BYTES):
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

        Raises:
            UserError: a ``context`` below 1.
        """
        data = vocab.to_bytes(text)
        if context is not None:
            require_whole("context", context, 1)
        size = context or max(1, len(data))
        pieces = segments([data], size)
        nats = 0.0
        for group in groups([len(piece) + 1 for piece in pieces], SCORING_BYTES):
            nats += self.nats([pieces[index] for index in group])
        return nats / math.log(2) / max(1, len(data))

    def nats(self, pieces: Sequence[bytes]) -> float:
        """Cross-entropy of all bytes of ``pieces``, each a document, in nats; in one forward."""
        return sum(self.piece_nats(pieces))

    def piece_nats(self, pieces: Sequence[bytes]) -> list[float]:
        """Cross-entropy of each piece's bytes, in nats, each a document; in one forward."""
        return bits.piece_nats(self, pieces)

    @torch.no_grad()
    def learned_nats(self, pieces: Sequence[bytes]) -> tuple[float, int]:
        """Cross-entropy of what is learned of ``pieces``, in nats; and of how many bytes it is.

        What is read only costs nothing (:class:`blt.texts.marked.Marked`). Special ids inside that
        are learned count as a byte each.
        """
        texts = [marked.encode(piece) for piece in pieces]
        ready = self.ready(Batch(texts, torch.cat([marked.targets(piece) for piece in pieces])))
        found = bits.target_nats(self.predict(ready), ready.targets)
        return float(found.sum(dtype=torch.float64)), ready.batch.num_targets

    def log_likelihoods(self, pairs: Sequence[tuple[vocab.Text, vocab.Text]]) -> list[float]:
        """Log-probability in nats of each continuation after its prompt.

        Args:
            pairs: prompts and continuations, ``str`` or bytes-like; a document is a BOS, a prompt,
                and its continuation.
        """
        return [score.log_p for score in self.score(pairs)]

    def score(self, pairs: Sequence[tuple[vocab.Text, vocab.Text]]) -> list[Score]:
        """As :meth:`log_likelihoods`, and whether greedy generation would write it.

        What texts share at their start, such as the choices of a question, is read once.
        """
        return continuations.score(self, pairs)

    def embed(
        self,
        texts: vocab.Text | Sequence[vocab.Text],
        *,
        level: embedding.Level | None = None,
        pool: embedding.Pool | None = "mean",
        layer: int | None = None,
        normalize: bool = False,
    ) -> Any:
        """Texts as vectors: hidden states of their patches, bytes or tokens, pooled.

        Texts are read together up to about 32768 ids; a longer one alone, with memory that grows
        with its length.

        Args:
            texts: one, or a list of them.
            level: whose states: "patch" or "byte" of a BLT, "byte" or "token" of the others. None:
                of patches or, where there are none, of bytes or tokens.
            pool: "mean", "max" or "last" of a text's rows, without its BOS unless it is empty;
                None: all rows, one for each patch of ``lm.patch(text)`` but that of BOS, or one for
                each byte or token, which has then been read.
            layer: the residual stream after so many layers, 0 for what the first one reads; of
                patches in the global transformer, of bytes in the local decoder; as in
                :meth:`hidden_states`. None: half of them, whose states say more about a text than
                the last ones, which are made to predict.
            normalize: scale each vector to length 1.

        Returns:
            float32 [D], or [texts, D]; without pooling [rows, D], or a list of them.

        Raises:
            UserError: a level, pool or layer that the model does not have; names what there is.
        """
        how: Any = {"level": level, "pool": pool, "layer": layer, "normalize": normalize}
        if isinstance(texts, vocab.Text):
            return embedding.embed(self, [vocab.to_bytes(texts)], **how)[0]
        return embedding.embed(self, [vocab.to_bytes(text) for text in texts], **how)

    @overload
    def hidden_states(self, texts: vocab.Text) -> states.States: ...  # type: ignore[overload-overlap]
    @overload
    def hidden_states(self, texts: Sequence[vocab.Text]) -> list[states.States]: ...

    def hidden_states(
        self, texts: vocab.Text | Sequence[vocab.Text]
    ) -> states.States | list[states.States]:
        """What every layer makes of a text, or of each of a list, which is read in one forward.

        Returns:
            :class:`blt.scoring.states.BLTStates`, or ``LayerStates`` of a byte or token model, in
            the precision that the model computes in.
        """
        if isinstance(texts, vocab.Text):
            return states.hidden_states(self, [vocab.to_bytes(texts)])[0]
        given = [vocab.to_bytes(text) for text in texts]
        return states.hidden_states(self, given) if given else []

    def save(
        self, folder: str | os.PathLike[str], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write config.json and model.safetensors into ``folder``, whole or not at all; of a model
        with an adapter in training, the adapter alone.

        Args:
            tensors: weights to write; None: the model's own.
        """
        config = {"kind": self.kind, "model": to_dict(self.config)}
        weights = self.stored() if tensors is None else tensors
        if self.adapter is not None:
            adapters.save(folder, self.adapter, weights, self.chat_template)
            return
        begun = {} if self.begun is None else {INIT: json.dumps(self.begun, indent=2) + "\n"}
        folders.save(folder, config, weights, self.files() | begun)

    @property
    def threshold(self) -> float:
        """θ of the rule that cuts its text, in nats; may be set, for what is read from then on.

        Engines keep the one that they were made with; :meth:`save` writes the one that is set.

        Raises:
            UserError: no patches, or a rule without a threshold; names it.
        """
        raise UserError(f"a {self.kind} model has no patches, and so no threshold")

    @threshold.setter
    def threshold(self, nats: float) -> None:
        raise UserError(f"a {self.kind} model has no patches, and so no threshold")

    def calibrate(self, texts: Sequence[vocab.Text], target_patch_size: float, **how: Any) -> float:
        """Set θ so that patches of ``texts`` have ``target_patch_size`` bytes on average.

        Args:
            texts: like those that will be read; ``how`` as for
                :meth:`blt.patching.Patcher.observed`.

        Returns:
            θ, in nats.

        Raises:
            UserError: as of :attr:`threshold`; no text, or a size below 1.
        """
        raise UserError(f"a {self.kind} model has no patches, and so no threshold")

    def stored(self) -> dict[str, Tensor]:
        """The tensors of its folder, by name: of a model with an adapter, those of that."""
        return self.state_dict() if self.adapter is None else adapters.tensors_of(self)

    def read(self, prompt: vocab.Text) -> State:
        """Read a text once, so that :meth:`generate` can continue it any number of times."""
        return generation.read(self, prompt)

    @overload
    def generate(self, prompts: vocab.Text | Tensor = b"", **options: Any) -> Generation: ...
    @overload
    def generate(
        self, prompts: Sequence[vocab.Text | Tensor], **options: Any
    ) -> list[Generation]: ...

    def generate(
        self, prompts: vocab.Text | Tensor | Sequence[vocab.Text | Tensor] = b"", **options: Any
    ) -> Generation | list[Generation]:
        """Continue one prompt or many; options and errors as in :func:`blt.generate.generate`."""
        return generation.generate(self, prompts, **options)
