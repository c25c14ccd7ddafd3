"""An encoder that begins by giving each patch the embedding of its token, without any training.

At every byte the rows of its n-grams add up to the embedding of the longest token that ends there
(as far as the encoder's width holds it): a token's row is what is missing to its embedding when the
rows of the tokens that it ends with are added up. One feature says how long that token is. The
cross-attention of a patch looks at the byte that has the longest, which is where the patch's token
is complete. A token of one byte is complete before its patch begins, which is only the first byte
of the next token; so pairs of bytes that are met there have the embedding of the first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blt import vocab
from blt.byteify.cuts import tokens_of
from blt.byteify.teacher import Teacher
from blt.lm import BLT
from blt.model.config import Config
from blt.model.cross_attention import PatchesFromBytes
from blt.model.embedding import ByteEmbedding, ngram_rows
from blt.model.layers import Linear, TransformerLayer
from blt.model.packing import Spans

FREE = 8  # one of so many features is left for what else there is to know of a byte
BYTE = 0.02  # the feature of length, per byte; the others together have a norm of 1
SHARPNESS = 6.0  # nats that one byte more of length is worth to a patch
PAIR = 0.5  # bytes that a pair counts: less than any token
FEW = 8  # texts that the size of patches is measured on
LEAST = 0.01  # of a patch's own projection, per unit of length: only a direction to ask in


def misfits(config: Config) -> str | None:
    """Why an encoder of this shape cannot begin so; None: it can."""
    if config.hash_gate:
        return "model.hash_gate: n-grams must be read where bytes are"
    if not config.encoder_crosses:
        return "model.encoder_cross_attention: 'none' cannot choose among a patch's bytes"
    if config.cross_attention_k > 1 and config.cross_attention_k * config.local_dim == (
        config.global_dim
    ):
        return (
            f"model.cross_attention_k: {config.cross_attention_k} slices of model.local_dim "
            f"{config.local_dim} are as wide as the layers, so there is no projection to widen an "
            "embedding; set it to 1, or local_dim to another width"
        )
    return None


@torch.no_grad()
def take_embeddings(model: BLT, teacher: Teacher, texts: Sequence[Tensor]) -> None:
    """Let patches that are cut where tokens end begin as the embeddings of their tokens.

    Args:
        model: of a shape that nothing speaks against (:func:`misfits`).
        texts: ids [T] each, BOS first, of training text: for how often tokens are met.
    """
    lesson = teacher.lesson(texts)
    basis = _basis(lesson.embeddings, model.config.local_dim)  # [d_global, r]
    _fill_tables(model.encoder.embedding, teacher, basis, texts)
    cross = model.encoder.cross_attention[-1]
    assert isinstance(cross, PatchesFromBytes)
    _look_at_the_longest(model, cross)
    _give_out(model, cross, basis)
    few = teacher.lesson(texts[:FEW])
    _, patches = model.encoder(few.packed)
    found, wanted = model.global_transformer.projection(patches), few.embeddings
    cross.out.weight.mul_((found * wanted).sum() / found.square().sum())


def _basis(embeddings: Tensor, dim: int) -> Tensor:
    """The directions in which embeddings that are met [P, d] differ most  # [d, r]."""
    square = embeddings.double().T @ embeddings.double()
    rank = min(embeddings.shape[1], dim - 1 - dim // FREE)
    return torch.linalg.eigh(square).eigenvectors.flip(1)[:, :rank].float()


def _fill_tables(
    embedding: ByteEmbedding, teacher: Teacher, basis: Tensor, texts: Sequence[Tensor]
) -> None:
    """Bytes, and then n-grams from short to long."""
    embedding.ngram.zero_()
    tokens = teacher.tokenizer.tokens()
    coordinates = nn.functional.normalize(teacher.embedding @ basis, dim=-1)  # [V, r]

    def wanted(ids: Sequence[int], length: float) -> Tensor:  # [n, 1 + r]
        rows = coordinates[torch.tensor(ids, dtype=torch.int64, device=coordinates.device)]
        return torch.cat((rows.new_full((len(rows), 1), BYTE * length), rows), 1)

    width = 1 + basis.shape[1]
    singles = {data[0] + vocab.OFFSET: i for i, data in enumerate(tokens) if len(data) == 1}
    singles |= {vocab.BOS: teacher.bos, vocab.EOS: teacher.eos}
    at = torch.tensor([*singles], dtype=torch.int64, device=coordinates.device)
    embedding.byte[at, :width] = wanted([*singles.values()], 1)
    for size in sorted(embedding.sizes):
        found = {data: i for i, data in enumerate(tokens) if len(data) == size}
        pairs = _pairs(teacher, texts) if size == 2 else {}
        pairs = {data: i for data, i in pairs.items() if data not in found}
        for data, length in ((found, float(size)), (pairs, PAIR)):
            if data:
                _add_rows(embedding, size, [*data], wanted([*data.values()], length))


def _pairs(teacher: Teacher, texts: Sequence[Tensor]) -> dict[bytes, int]:
    """Tokens of one byte with the first byte after them, where they are met more than once."""
    met: Counter[tuple[bytes, int]] = Counter()
    for ids in texts:
        data, cut = vocab.decode(ids), tokens_of(teacher.tokenizer, ids)
        for token, first, after in zip(cut.tokens, cut.firsts, cut.firsts[1:], strict=False):
            if after == first + 1:
                met[data[first - 1 : first + 1], token] += 1
    return {pair: token for (pair, token), count in met.items() if count > 1}


def _add_rows(embedding: ByteEmbedding, size: int, texts: list[bytes], wanted: Tensor) -> None:
    """Let the n-grams that ``texts`` [n] are have what is missing to ``wanted`` [n, w]."""
    device = embedding.byte.device
    ids = torch.cat([vocab.encode(text, bos=False) for text in texts]).to(device)
    spans = Spans.from_lengths([size] * len(texts), device)
    back = embedding.back(ids, spans.positions)
    last = torch.arange(size - 1, len(ids), size, dtype=torch.int64, device=device)
    missing = wanted - embedding.read(ids, back)[last, : wanted.shape[1]]
    rows = ngram_rows(back, embedding.sizes, embedding.functions, embedding.rows)
    own = rows[last, embedding.sizes.index(size)]
    embedding.ngram[own, : wanted.shape[1]] += missing  # where two meet, one of them


def _look_at_the_longest(model: BLT, cross: PatchesFromBytes) -> None:
    """Each head asks for the feature of length; layers add nothing yet."""
    for layer in model.encoder.transformer.layers:
        assert isinstance(layer, TransformerLayer)
        layer.attention.out.weight.zero_()
        layer.ff.down.weight.zero_()
    dim, k = model.config.local_dim, model.config.cross_attention_k
    first = torch.arange(0, dim, dim // cross.heads, dtype=torch.int64)  # of each head
    own, ask = model.encoder.patch_projection.weight, cross.query.weight
    own.zero_()
    own.view(k, dim, dim)[:, 0, 0] = LEAST / BYTE
    # A query is √d in its first feature, whatever it is; a byte more is BYTE √d in a key's.
    gain = (SHARPNESS / (BYTE * dim * cross.scale)) ** 0.5
    ask.zero_()
    ask[first, 0] = gain
    cross.key_value.weight.zero_()
    cross.key_value.weight[first, 0] = gain
    for norm in (cross.query_norm, cross.key_value_norm):
        norm.weight.fill_(1.0)


def _give_out(model: BLT, cross: PatchesFromBytes, basis: Tensor) -> None:
    """From the coordinates in a byte's state to embeddings, but for their size."""
    dim, rank, k = model.config.local_dim, basis.shape[1], model.config.cross_attention_k
    places = torch.arange(1, 1 + rank, dtype=torch.int64)
    cross.key_value.weight[dim + places, places] = 1.0
    cross.out.weight.zero_()
    projection = model.global_transformer.projection
    if isinstance(projection, Linear):
        cross.out.weight[places, places] = 1.0
        projection.weight.zero_()
        projection.weight.view(-1, k, dim)[:, :, places] = basis[:, None] / k
    else:
        cross.out.weight[:, places] = basis
