"""Texts that begin alike, such as the choices of a question: what they share is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from blt.model.embedding import NgramTables
from blt.model.kernels.branches import Branches

LEAST = 16  # ids that are worth sharing


@dataclass(frozen=True)
class PrefixTree:
    """Documents as runs of ids that one or more of them have in common."""

    ids: Tensor  # [N]
    branches: Branches
    leaves: list[int]  # run in which each document ends

    @classmethod
    def of(cls, documents: Sequence[Tensor]) -> PrefixTree:
        """Documents, each ids [T] with T >= 1, in lexicographic order."""
        shared = [shared_ids(a, b) for a, b in pairwise(documents)]
        parents: list[int] = []
        starts: list[int] = []
        parts: list[Tensor] = []
        leaves = [0] * len(documents)
        waiting = [(0, len(documents), 0, -1)]  # documents from, to; ids that they share; their run
        while waiting:
            first, last, depth, parent = waiting.pop()
            while first < last:
                if len(documents[first]) == depth:  # it has ended, and so it comes first
                    leaves[first] = parent
                    first += 1
                    continue
                end, share = first + 1, len(documents[first])
                while end < last and shared[end - 1] >= depth + LEAST:
                    share = min(share, shared[end - 1])
                    end += 1
                waiting.append((first, end, share, len(parents)))
                parents.append(parent)
                starts.append(depth)
                parts.append(documents[first][depth:share])
                first = end
        offsets = (0, *np.cumsum([len(part) for part in parts]).tolist())
        ids = torch.cat(parts)
        return cls(ids, Branches(tuple(parents), offsets, tuple(starts), ids.device), leaves)

    def path(self, document: int) -> Tensor:
        """Rows of a document's ids  # [T]."""
        return self.branches.paths[self.leaves[document]]

    def back(self, tables: NgramTables) -> list[Tensor]:
        """The ids that n-grams of each row are made of, along its document  # [reach], each [N]."""
        rows = torch.arange(len(self.ids), dtype=torch.int64, device=self.ids.device)
        return tables.back_from(tables.trail(self.ids, self.branches.previous), rows)


def shared_ids(a: Tensor, b: Tensor) -> int:
    """How many ids two documents have in common at their start."""
    length = min(len(a), len(b))
    different = (a[:length] != b[:length]).nonzero()
    return int(different[0]) if len(different) else length


@dataclass(frozen=True)
class PatchTree:
    """The patches of a prefix tree's documents: each lies in the run that its last byte lies in.

    A document's last patch is left out while it is open: no byte sees it.
    """

    branches: Branches  # of P patches, run by run
    rows: Tensor  # [M] of the bytes of all patches, end to end
    patch_ids: Tensor  # [M] patch that each of them lies in
    seen: Tensor  # [N] patch that each byte sees

    @classmethod
    def of(cls, tree: PrefixTree, decide: Callable[[Tensor], Tensor]) -> PatchTree:
        """Cut the documents.

        Args:
            decide: rows of a document's ids [T] → decisions [T + 1] bool, of an incremental rule.
        """
        branches = tree.branches
        seen = torch.empty(len(tree.ids), dtype=torch.int64, device="cpu")
        rows: list[Tensor] = []
        sizes: list[Tensor] = []
        offsets, starts = [0], []
        last: list[int] = []  # of each run: the patch that is complete at its end
        runs = zip(branches.parents, branches.starts, branches.paths, strict=True)
        for parent, start, path in runs:
            edges = decide(path).cpu().nonzero().flatten()  # a patch ends where the next one starts
            old = int((edges <= start).sum())
            begin, ends = int(edges[old - 1]), edges[old:]
            sizes.append(torch.diff(ends, prepend=edges[old - 1 : old]))
            rows.append(path[begin : int(edges[-1])])
            complete = torch.searchsorted(
                ends,
                torch.arange(start, len(path), dtype=torch.int64, device="cpu") + 1,
                right=True,
            )
            before = last[parent] if parent >= 0 else -1
            own = torch.where(complete > 0, offsets[-1] + complete - 1, before)
            seen[path[start:]] = own
            starts.append(old - 1)
            last.append(int(own[-1]))
            offsets.append(offsets[-1] + len(ends))
        lengths = torch.cat(sizes)
        device = branches.device
        return cls(
            Branches(branches.parents, tuple(offsets), tuple(starts), device),
            torch.cat(rows).to(device),
            torch.repeat_interleave(lengths).to(device),
            seen.to(device),
        )
