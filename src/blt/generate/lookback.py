"""What the n-grams of new bytes are made of, for texts of which all ids are known."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blt.model.embedding import NgramTables
from blt.model.ngrams import folded


def looking_back(
    tables: NgramTables,
    texts: Sequence[list[int]],
    new_ids: Sequence[Sequence[int]],
    n: int,
    starts: Sequence[Sequence[int]] | None = None,
) -> list[Tensor]:
    """As :meth:`NgramTables.back`, for the last n of the new ids of each text  # [B * n] each.

    Args:
        texts: ids [T] that were read before, BOS first.
        new_ids: [B][m] ids, m >= n.
        starts: [B][m] positions before which n-grams do not look; None: the document's start.
    """
    device = tables.ngram.device
    if "repeats" not in tables.fold and starts is None:
        width = tables.reach - 1 + n
        windows = [
            ([0] * width + ids[-width:] + list(new))[-width:]
            for ids, new in zip(texts, new_ids, strict=True)
        ]
        return shifted(tables, torch.tensor(windows, dtype=torch.int64, device=device), n)
    found = []
    for row, (ids, new) in enumerate(zip(texts, new_ids, strict=True)):
        found += _back(tables, ids, new, None if starts is None else starts[row])[-n:]
    return list(torch.tensor(found, dtype=torch.int64, device=device).unbind(1))


def shifted(
    tables: NgramTables, windows: Tensor, n: int, places: Tensor | None = None
) -> list[Tensor]:
    """The same from windows [B, w + n] of ids, 0 before a document, of which the last n are new.

    Args:
        places: [B, n] index of each from where n-grams begin to look; None: w is as far as they do.
    """
    ids, end = tables.seen(windows), windows.shape[1]
    back = [ids[:, end - n - j : end - j] for j in range(tables.reach)]
    if places is not None:
        back = [torch.where(places >= j, older, 0) for j, older in enumerate(back)]
    return [older.flatten() for older in back]


def _back(
    tables: NgramTables, ids: list[int], new: Sequence[int], starts: Sequence[int] | None
) -> list[list[int]]:
    """Of each new id [m] of a text: ids that count, newest first  # [m][reach]."""
    reach, fold, repeats = tables.reach, tables.fold, "repeats" in tables.fold
    first = 0 if starts is None else starts[0]
    tail: list[int] = []  # ids that count, newest first
    for at in range(len(ids) - 1, first - 1, -1):
        if len(tail) == reach:
            break
        seen = folded(ids[at], fold)
        if not repeats or at == first or seen != folded(ids[at - 1], fold):
            tail.append(seen)
    found = []
    for at, token in enumerate(new, len(ids)):
        if starts is not None and starts[at - len(ids)] == at:
            tail = []
        seen = folded(token, fold)
        if not repeats or not tail or seen != tail[0]:
            tail = [seen, *tail[: reach - 1]]
        found.append(tail + [0] * (reach - len(tail)))
    return found
