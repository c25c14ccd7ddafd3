"""How much of a job one program takes: sizes of tiles and warps, from shapes alone."""

from __future__ import annotations

import triton
import triton.language as tl

WIDTH = 1024  # features of a row that one program takes
VECTOR = 8  # features per thread: 16 bytes of bfloat16 in one load


def feature_tile(width: int) -> dict[str, int]:
    """Of rows of ``width`` features: each thread holds a vector of a row."""
    block = min(triton.next_power_of_2(width), WIDTH)
    return {"BLOCK": block, "num_warps": max(1, block // (32 * VECTOR))}


def head_tile(heads: int, width: int, slices: int) -> dict[str, int]:
    """Of whole heads of ``width`` features, in several slices or rows.

    A row's threads lie along its features, so that sums over rows and slices need no exchange.
    """
    width_block = triton.next_power_of_2(width)
    slice_block = triton.next_power_of_2(slices)
    room = min(WIDTH, 4096 // slice_block) // width_block
    head_block = min(triton.next_power_of_2(heads), max(1, room))
    features = head_block * width_block * slice_block // min(slice_block, 4)
    return {
        "WIDTH": width,
        "ROWS": max(1, 4 // slice_block),  # more do not fit in registers in backward
        "SLICE_BLOCK": slice_block,
        "HEAD_BLOCK": head_block,
        "WIDTH_BLOCK": width_block,
        "num_warps": min(max(1, features // (32 * VECTOR)), 8),
    }


@triton.jit
def head_axes(
    HEADS: tl.constexpr,
    WIDTH: tl.constexpr,
    SLICE_BLOCK: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    WIDTH_BLOCK: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor, tl.tensor, tl.tensor]:
    """Slices, heads, their columns in a row, and which of these there are; axis 0 is for rows."""
    part = tl.arange(0, SLICE_BLOCK)[None, :, None, None]
    head = (tl.program_id(1) * HEAD_BLOCK + tl.arange(0, HEAD_BLOCK))[None, None, :, None]
    feature = tl.arange(0, WIDTH_BLOCK)[None, None, None, :]
    return part, head, head * WIDTH + feature, (head < HEADS) & (feature < WIDTH)
