"""Attention of one new position per text to what a cache holds of it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 64  # keys that are added up together; fixed, so that a text's bits depend on it alone
PROGRAMS = 1024  # about as many as a GPU has room for
PARTS = 16  # partial results that are combined together


@triton.jit
def _partial(
    q: tl.tensor,
    keys: tl.tensor,
    values: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    rows: tl.tensor,
    parts: tl.tensor,
    lse: tl.tensor,
    room: int,
    k_text: int,
    k_head: int,
    k_slot: int,
    v_text: int,
    v_head: int,
    v_slot: int,
    splits: int,
    scale: float,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SHARE: tl.constexpr,
    RING: tl.constexpr,
    NAMED: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
) -> None:
    """What the query gets from each block of keys alone, and the weight of that block."""
    pair = tl.program_id(0).to(tl.int64)  # a text and a head
    text, head = pair // HEADS, pair % HEADS // SHARE
    feature = tl.arange(0, WIDTH_BLOCK)[None, :]
    query = tl.load(q + pair * WIDTH + feature, feature < WIDTH, 0.0).to(tl.float32) * scale
    start, end = tl.load(first + text), tl.load(last + text)
    row = tl.load(rows + text).to(tl.int64) if NAMED else text
    for split in range(tl.program_id(1), tl.cdiv(end - start, BLOCK), tl.num_programs(1)):
        position = (start + split * BLOCK + tl.arange(0, BLOCK))[:, None]
        slot = (position % room if RING else position).to(tl.int64)
        here = (position < end) & (feature < WIDTH)
        key_at = keys + row * k_text + head * k_head + slot * k_slot + feature
        value_at = values + row * v_text + head * v_head + slot * v_slot + feature
        key = tl.load(key_at, here, 0.0).to(tl.float32)
        value = tl.load(value_at, here, 0.0).to(tl.float32)

        score = tl.sum(query * key, 1, keep_dims=True)  # [keys, 1]
        score = tl.where(position < end, score, float("-inf"))
        peak = tl.max(score, 0, keep_dims=True)
        weight = tl.exp(score - peak)
        total = tl.sum(weight, 0, keep_dims=True)
        attended = tl.sum(weight * value, 0, keep_dims=True) / total
        tl.store(parts + (pair * splits + split) * WIDTH + feature, attended, feature < WIDTH)
        one = tl.zeros((1, 1), tl.int32)
        tl.store(lse + pair * splits + split + one, peak + tl.log(total))


@triton.jit
def _combine(
    parts: tl.tensor,
    lse: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    out: tl.tensor,
    splits: int,
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
) -> None:
    pair = tl.program_id(0).to(tl.int64)
    feature = tl.arange(0, WIDTH_BLOCK)[None, :]
    used = tl.cdiv(tl.load(last + pair // HEADS) - tl.load(first + pair // HEADS), BLOCK)
    peak = tl.full((1, 1), float("-inf"), tl.float32)
    total = tl.zeros((1, 1), tl.float32)
    attended = tl.zeros((1, WIDTH_BLOCK), tl.float32)
    for lead in range(0, used, PARTS):
        split = (lead + tl.arange(0, PARTS))[:, None]
        here = (split < used) & (feature < WIDTH)
        score = tl.load(lse + pair * splits + split, split < used, float("-inf"))
        part = tl.load(parts + (pair * splits + split) * WIDTH + feature, here, 0.0)
        higher = tl.maximum(peak, tl.max(score, 0, keep_dims=True))
        weight, shrink = tl.exp(score - higher), tl.exp(peak - higher)
        attended = attended * shrink + tl.sum(weight * part, 0, keep_dims=True)
        total = total * shrink + tl.sum(weight, 0, keep_dims=True)
        peak = higher
    total = tl.maximum(total, 1.0)  # the highest has added 1, unless nothing is seen
    tl.store(out + pair * WIDTH + feature, attended / total, feature < WIDTH)


def decode_attention(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    first: Tensor,
    last: Tensor,
    scale: float,
    ring: bool = False,
    rows: Tensor | None = None,
) -> Tensor:
    """One query per text attends to the positions ``first`` to ``last - 1`` of its own cache.

    What a text gets depends, to the bit, on what it sees alone: not on the other texts, nor on
    where in the cache it lies, nor on the cache's room. Only what is seen is read.

    Args:
        q: [B, H, D].
        keys, values: caches [rows, H, ROOM, D], of any strides but the last; perhaps of fewer
            heads, each of which as many heads of queries share.
        first: first position that each text sees [B] int32.
        last: one after the last position [B] int32; texts that see nothing get zeros.
        scale: factor of the scores.
        ring: position p lies in slot p % ROOM, and not in slot p.
        rows: in which row of the caches each text lies [B] int64; None: one after the other.

    Returns:
        [B, H, D].
    """
    (texts, heads, width), room, q = q.shape, keys.shape[2], q.contiguous()
    splits = triton.cdiv(room, BLOCK)
    parts = q.new_empty(texts, heads, splits, width, dtype=torch.float32)
    lse = q.new_empty(texts, heads, splits, dtype=torch.float32)
    out, pairs = torch.empty_like(q), texts * heads
    programs = min(splits, max(1, PROGRAMS // pairs))
    width_block = triton.next_power_of_2(width)
    warps = min(max(1, BLOCK * width_block // 2048), 8)
    sizes = {"HEADS": heads, "WIDTH": width, "BLOCK": BLOCK, "WIDTH_BLOCK": width_block}
    with torch.cuda.device_of(q):
        _partial[pairs, programs](
            q, keys, values, first, last, first if rows is None else rows, parts, lse, room,
            *keys.stride()[:3], *values.stride()[:3], splits, scale, SHARE=heads // keys.shape[1],
            RING=ring, NAMED=rows is not None, num_warps=warps, **sizes,
        )  # fmt: skip
        _combine[pairs,](parts, lse, first, last, out, splits, PARTS=PARTS, num_warps=1, **sizes)
    return out
