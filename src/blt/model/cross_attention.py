"""Cross-attention between bytes and patches (paper §3.2, §3.3).

Every byte belongs to one patch, so no bytes x patches mask is needed: cost is O(bytes x k).
"""

from __future__ import annotations

from torch import Tensor, nn

from blt.model import kernels
from blt.model.layers import Linear, RMSNorm


class CrossAttention(nn.Module):
    """Projections shared by both directions.

    The update of the queries is ``queries + attention(queries)``, so that the residual stream
    becomes ``2 * queries + attention(queries)``: released weights need it so.
    """

    def __init__(self, dim: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.query_norm = RMSNorm(dim, eps)
        self.key_value_norm = RMSNorm(dim, eps)
        self.query = Linear(dim, dim)
        self.key_value = Linear(dim, 2 * dim)
        self.out = Linear(dim, dim)

    def keys_values(self, read: Tensor) -> tuple[Tensor, Tensor]:
        """What is attended to, [.., d] → k, v, each [.., d]."""
        k, v = self.key_value(self.key_value_norm(read)).chunk(2, dim=-1)
        return k, v


class PatchesFromBytes(CrossAttention):
    """Encoder: k queries per patch attend to the bytes of their own patch."""

    def forward(self, patches: Tensor, x: Tensor, patch_ids: Tensor) -> Tensor:
        """patches [P, k, d], bytes x [N, d], patch_ids [N] → update of patches [P, k, d]."""
        q = self.query(self.query_norm(patches))  # [P, k, d]
        k, v = (part.contiguous() for part in self.keys_values(x))  # [N, d]
        attended = kernels.attend_to_own_bytes(q, k, v, patch_ids, self.heads, self.scale)
        return patches + self.out(attended)  # type: ignore[no-any-return]


class BytesFromPatches(CrossAttention):
    """Decoder: each byte attends to the k slices of its one patch."""

    def forward(
        self,
        x: Tensor,
        delta: Tensor | None,
        k: Tensor,
        v: Tensor,
        patch_ids: Tensor,
        confidence: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """bytes x + delta [N, d], k and v [P, k, d] of patches, ids [N] → new x, delta [N, d].

        ``confidence`` [N] scales what each byte sees.
        """
        x, normed = self.query_norm.add(x, delta)
        q = self.query(normed)  # [N, d]
        attended = kernels.attend_to_own_patch(q, k, v, patch_ids, self.heads, self.scale)
        if confidence is not None:
            attended = attended * confidence[:, None].to(attended.dtype)
        return x, x + self.out(attended)
