"""What each part of a model allocates in a training step, from its shape: nothing runs.

The constants count what the code of the layers keeps and makes for each byte of text or patch.
Tests compare the sum with steps that run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from blt.lm import BLT, ByteLM, LanguageModel
from blt.model.blt import GlobalTransformer, LocalDecoder, LocalEncoder
from blt.model.embedding import NgramTables
from blt.model.kernels.rows import FF_CHUNK
from blt.model.layers import NgramGate, Transformer, TransformerLayer
from blt.model.routing import REMEMBERED, Router
from blt.vocab import VOCAB_SIZE

FLOAT, INT = 4, 8  # bytes of a number


@dataclass(frozen=True)
class Part:
    """Modules that the backward pass goes through at once, and bytes of what they allocate."""

    modules: Sequence[nn.Module]
    kept: float  # from the part's forward pass to its backward pass
    forward: float = 0.0  # more, from its forward pass to the end of the model's
    backward: float = 0.0  # more, in its backward pass
    touched: int | None = None  # rows of its weights that the batch reads at most; None: all

    @property
    def grouped(self) -> bool:
        """Do several processes gather its weights on their own?"""
        return any(isinstance(m, TransformerLayer | NgramTables) for m in self.modules)

    def parameters(self) -> list[Tensor]:
        return [parameter for module in self.modules for parameter in module.parameters()]


@dataclass(frozen=True)
class Activations:
    """Those of one batch; the last three as of :func:`blt.plan.memory.step_memory`."""

    rows: int  # bytes of text
    patches: int
    width: int  # bytes of a number in matrix products
    gpu: bool
    recomputes: bool
    compiled: bool = False

    def parts(self, model: LanguageModel) -> Iterator[Part]:
        """All that is trained, in the order of the forward pass."""
        if isinstance(model, BLT):
            yield self._embedding(model.encoder.embedding)
            yield from self._layers(model.encoder.transformer, self.rows)
            if model.router is not None:
                yield self._router(model.router)
            yield from self._pooling(model.encoder)
            yield from self._global(model.global_transformer)
            if model.router is not None:
                yield self._smoothing(model.global_transformer)
            yield from self._decoder(model.decoder, routed=model.router is not None)
        elif isinstance(model, ByteLM):
            yield Part([nn.ParameterList([model.byte])], INT * self.rows)
            if model.tables is not None:
                yield self._embedding(model.tables)
            yield from self._layers(model.transformer, self.rows)
            yield self._head(model.norm, model.head)

    def _embedding(self, embedding: NgramTables) -> Part:
        """Rows of tables, which the backward pass sorts."""
        read = self.rows * embedding.functions * len(embedding.sizes)
        backward = FLOAT * self.rows * embedding.ngram.shape[1] + 4 * INT * read
        touched = max(read, VOCAB_SIZE)
        return Part([embedding], INT * (self.rows + read), backward=backward, touched=touched)

    def _layers(self, stack: Transformer, rows: int) -> Iterator[Part]:
        """Complex rotations of queries and keys, which all layers share; and the layers."""
        yield Part([], 2 * FLOAT * rows * stack.head_dim)
        for index, layer in enumerate(stack.layers):
            yield self._layer(layer, rows)
            if index == 0 and stack.gate is not None:
                yield self._gate(stack.gate, rows)

    def _layer(self, layer: Any, rows: int) -> Part:
        dim, wide = layer.ff.down.weight.shape
        heads = layer.attention.out.in_features
        if self.compiled:
            kept = self._kept_compiled(dim, heads, wide)
        else:
            kept = self._kept(dim, heads, wide) + self._kept_besides(layer)
        # Attention: q, k, v and gradients, heads first. SwiGLU: its product, the gradients of gate
        # and up, and copies of the rows it works on. Both: gradients of the residual stream.
        copied = rows if self.gpu else min(rows, FF_CHUNK // (2 * wide))
        widest = max(8 * heads * rows, (3 * rows + 4 * copied) * wide)
        backward = self.width * widest + rows * (self.width + 2 * FLOAT) * dim
        return Part([layer], rows * kept + self._casts(layer), backward=backward)

    def _gate(self, gate: NgramGate, rows: int) -> Part:
        """What it reads of n-grams, two norms with their scales, and the value."""
        dim, read = gate.key.weight.shape
        kept = rows * (self.width * (3 * dim + read) + 3 * FLOAT) + self._casts(gate)
        backward = rows * ((2 * self.width + FLOAT) * dim + self.width * read)
        return Part([gate], kept, backward=backward)

    def _kept(self, dim: int, heads: int, wide: int) -> int:
        """What a layer keeps of each row; ``heads``: features of all heads."""
        # Two norms and their scales; q, k, v and what attention returns; gate and up.
        return self.width * (2 * dim + 4 * heads + 2 * wide) + 2 * FLOAT

    def _kept_besides(self, layer: TransformerLayer) -> int:
        """The same, of what is not in all layers."""
        kept, attention = 0, layer.attention
        if layer.norms_after:  # what the products read is no norm's result
            kept += 2 * self.width * layer.ff.gate_up.in_features
        if attention.qk_norm != "none":  # the norms of q and k, and their scales
            heads = attention.heads + attention.kv_heads
            scales = heads if attention.qk_norm == "head" else 2
            kept += self.width * heads * attention.head_dim + FLOAT * scales
        return kept

    def _kept_compiled(self, dim: int, heads: int, wide: int) -> int:
        """The same of a compiled layer, as the compiler chooses."""
        if self.recomputes:  # the stream, its delta, what attention returns; gate and up
            return FLOAT * dim + self.width * (dim + heads + 2 * wide)
        # The stream twice, its delta; two norms, q and k, all three before, what attention returns;
        # gate, up and their product.
        return 2 * FLOAT * dim + self.width * (3 * dim + 6 * heads + 3 * wide) + 2 * FLOAT

    def _router(self, router: Router) -> Part:
        """Two projections of each byte's state, as they are and of length 1."""
        dim, narrow = router.query.in_features, self.width < FLOAT
        read = (2 if narrow else 1) * self.width * dim  # one byte later; cast both times
        kept = self.rows * (read + 4 * FLOAT * dim) + self._casts(router)
        return Part([router], kept, backward=self.rows * 4 * FLOAT * dim)

    def _smoothing(self, model: GlobalTransformer) -> Part:
        """Patches, and what each round makes of them: it doubles how far they reach back."""
        size = FLOAT * self.patches * model.transformer.dim
        return Part([], REMEMBERED.bit_length() * size, backward=2 * size)

    def _pooling(self, encoder: LocalEncoder) -> Iterator[Part]:
        """Maxima over patches, and their cross-attention to bytes."""
        dim, projection = encoder.patch_projection.in_features, encoder.patch_projection
        # States of bytes, which the decoder reads too, and which of them are maxima; the maxima.
        kept = self.rows * (FLOAT + 1) * dim + self.patches * self.width * dim
        yield Part([projection], kept + self._casts(projection))
        for cross in encoder.cross_attention[-1:]:
            read = self.patches * self.width * encoder.k * dim  # the norm, q and the result
            backward = self.rows * (FLOAT + 5 * self.width) * dim
            yield Part([cross], 3 * read + self._cross(cross, encoder.k), backward=backward)

    def _cross(self, cross: Any, slices: int) -> int:
        """What cross-attention keeps of bytes: three rows, the norm's scale, and weights."""
        row = 3 * self.width * cross.query.in_features + FLOAT * (1 + slices * cross.heads)
        return self.rows * row + self._casts(cross)

    def _global(self, model: GlobalTransformer) -> Iterator[Part]:
        if isinstance(projection := model.projection, nn.Linear):
            kept = self.patches * self.width * projection.in_features
            yield Part([projection], kept + self._casts(projection))
        dim = model.transformer.dim
        stream = self.patches * (FLOAT + self.width) * dim
        for part in self._layers(model.transformer, self.patches):
            if (
                self.recomputes and part.modules and not self.compiled
            ):  # autocast keeps weights until the forward's end
                casts = self._casts(*part.modules)
                part = Part(part.modules, stream, casts, part.kept + part.backward)
            yield part

    def _decoder(self, decoder: LocalDecoder, routed: bool) -> Iterator[Part]:
        """``routed``: a router's confidence scales what each byte sees."""
        projection, crosses = decoder.patch_projection, decoder.cross_attention
        # What is projected; and of each cross-attention the norm, k and v, the latter copied.
        read = self.patches * self.width * projection.out_features * len(crosses)
        kept = self.patches * self.width * projection.in_features + 3 * read
        yield Part([projection], kept + self._casts(projection), forward=2 * read)
        scaled = self.rows * self.width * decoder.head.in_features if routed else 0
        yield from (Part([cross], self._cross(cross, decoder.k) + scaled) for cross in crosses)
        yield from self._layers(decoder.transformer, self.rows)
        yield self._head(decoder.norm, decoder.head)

    def _head(self, norm: nn.Module, head: nn.Linear) -> Part:
        """Log-probabilities; in the backward pass two gradients as wide."""
        logits = FLOAT * self.rows * VOCAB_SIZE
        kept = self.rows * (self.width * head.in_features + FLOAT) + logits
        return Part([norm, head], kept + self._casts(head), backward=2 * logits)

    def _casts(self, *modules: nn.Module) -> int:
        """Copies of weights that narrower products keep; SwiGLU's down is cast when needed."""
        named = [pair for module in modules for pair in module.named_modules()]
        linear = [m for name, m in named if isinstance(m, nn.Linear) and name != "ff.down"]
        return sum(self.width * m.weight.numel() for m in linear) if self.width < FLOAT else 0
