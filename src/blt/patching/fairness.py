"""Tables that cut every script as finely: a patch carries the same information in each.

One θ for all text is no measure for scripts of which training shows little: after their letters any
byte is surprising, or none is. Here each script has a θ of its own, by which its share of the
patches is its share of the information in the training text. That is measured alike in all scripts:
by how many characters stand in it, times the entropy of one. Patches end where characters end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blt.errors import UserError
from blt.patching.deciding import split_long
from blt.patching.scripts import (
    BROKEN,
    INSIDE,
    MOST_SCRIPTS,
    NONE,
    OPEN,
    characters_of,
    states_of,
)
from blt.patching.tables import lookup_key, order_of
from blt.patching.thresholds import check_size
from blt.patching.views import mean_patch_size
from blt.vocab import VOCAB_SIZE

LEAST = 1000  # places in a script that its θ can be learned from
NATS = (1e-3, 1e4)  # of a patch: where what gives the wanted size is searched
STEPS = 24
CODES = 2**21  # more than there are code points


class _Contexts(NamedTuple):
    """Contexts, and what is known of each."""

    values: np.ndarray  # [C] float32 nats after it
    scripts: np.ndarray  # [C] uint8; NONE: it has no θ
    states: np.ndarray  # [C] uint8
    kth: np.ndarray  # [C] bool ends a patch where there is no θ

    def ends(self, thresholds: np.ndarray) -> np.ndarray:
        """Does a patch end with it, by θ of each script [256]?  # [C] bool."""
        above = self.values > thresholds[self.scripts]
        open_ends = np.where(self.scripts == NONE, self.kth, above)
        found: np.ndarray = (self.states == BROKEN) | (self.states != INSIDE) & open_ends
        return found

    def at(self, keys: np.ndarray) -> _Contexts:
        return _Contexts(*(column[keys] for column in self))


def fair_table(
    values: Tensor, documents: Sequence[Tensor], target: float, longest: int | None = None
) -> Tensor:
    """A table whose patches carry the same information in every script  # [260 ** n] bool.

    There is no θ for what is not known: of the contexts that do not occur in ``documents``, or in
    scripts with fewer than 1000 characters there, each k-th ends a patch, k being ``target``.

    Args:
        values: [260 ** n] nats after each n-gram; n is 2 or 3. With 2, characters of three bytes
            are told apart by the last two.
        documents: ids [T] each, BOS first.
        target: bytes per patch of all documents together.
        longest: ``max_patch_length``.

    Raises:
        UserError: no bytes, or a target below 1.
    """
    check_size(target)
    order = order_of(values)
    keys, decided = _deciding(documents, order)
    if len(keys) == 0:
        raise UserError("no bytes to calibrate the patching threshold on")
    kinds, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    scripts = np.full(len(values), NONE, dtype=np.uint8)
    codes, spoken_in = (
        found[:-1][decided[1:]] for found in characters_of(torch.cat(list(documents)))
    )
    scripts[kinds] = _most_common(place, spoken_in)
    spoken = np.bincount(scripts[kinds], counts, MOST_SCRIPTS)
    scripts[(spoken < LEAST)[scripts]] = NONE
    table = _Contexts(values.numpy(), scripts, states_of(order), _every(round(target), order))
    seen = table.at(kinds)
    learned = _learned(seen, counts, _information(seen.scripts[place], codes))

    def measured(nats: float) -> float:
        ends = seen.ends(_thresholds(learned, nats))
        patches = int(counts[ends].sum()) + int((~decided).sum())
        if longest is not None:
            starts = torch.from_numpy(~decided)  # what no context decides starts a patch
            starts[decided] = torch.from_numpy(ends[place])
            patches = int(split_long(starts, longest).sum())
        return mean_patch_size(len(decided), patches, len(documents))

    low, high = NATS
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if measured(middle) < target else (low, middle)
    nats = min((low, high), key=lambda nats: abs(measured(nats) - target))
    return torch.from_numpy(table.ends(_thresholds(learned, nats)))


def _deciding(documents: Sequence[Tensor], order: int) -> tuple[np.ndarray, np.ndarray]:
    """Keys of the contexts that decide whether a patch starts, and for which positions they do.

    Returns:
        [M] int64, and [N] bool with M times True: not at the first two positions of a document.
    """
    none = torch.empty(0, dtype=torch.int64, device="cpu")
    keys = torch.cat([none, *(lookup_key(ids, order)[1:-1] for ids in documents)])
    decided = [torch.arange(len(ids), dtype=torch.int64, device="cpu") > 1 for ids in documents]
    return keys.numpy(), torch.cat([none.bool(), *decided]).numpy()


def _most_common(place: np.ndarray, scripts: np.ndarray) -> np.ndarray:
    """The script in which each context occurs most  # [C] uint8.

    Args:
        place: [M] which context, every one of 0..C-1.
        scripts: [M] uint8 in which script.
    """
    pairs, counts = np.unique(place * MOST_SCRIPTS + scripts, return_counts=True)
    context, script = np.divmod(pairs[np.argsort(counts, kind="stable")], MOST_SCRIPTS)
    found = np.empty(int(place.max()) + 1, dtype=np.uint8)
    found[context] = script  # of equal contexts the last one stays: the most frequent
    return found


def _every(k: int, order: int) -> np.ndarray:
    """Each k-th context: those whose ids have a sum that k divides  # [260 ** order] bool."""
    ids, sums = np.arange(VOCAB_SIZE, dtype=np.int16), np.zeros(1, dtype=np.int16)
    for _ in range(order):
        sums = np.add.outer(sums, ids).ravel()
    found: np.ndarray = sums % k == 0
    return found


class _Script(NamedTuple):
    """Contexts of a script after which a patch may end, those first that leave the most open."""

    number: int
    values: np.ndarray  # [C + 1] falling; -1 at the end
    times: np.ndarray  # [C + 1] how often the contexts before each one occur together
    nats: float  # the script's information in the text


def _information(scripts: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Nats of the characters of each script, each by its share of them  # [256].

    Args:
        scripts: [M] uint8 of each position.
        codes: [M] code points; -1: none ends there.
    """
    whole = codes >= 0
    kinds, times = np.unique(
        scripts[whole].astype(np.int64) * CODES + codes[whole], return_counts=True
    )
    script, total = kinds // CODES, np.bincount(scripts[whole], minlength=MOST_SCRIPTS)
    return np.bincount(script, times * np.log(total[script] / times), MOST_SCRIPTS)


def _learned(seen: _Contexts, counts: np.ndarray, nats: np.ndarray) -> list[_Script]:
    found = []
    for number in np.unique(seen.scripts[seen.scripts != NONE]).tolist():
        of_script = seen.scripts == number
        free = (of_script & (seen.states == OPEN)).nonzero()[0]
        free = free[np.argsort(-seen.values[free], kind="stable")]
        times = np.concatenate(([0], np.cumsum(counts[free])))
        found.append(_Script(number, np.append(seen.values[free], -1.0), times, nats[number]))
    return found


def _thresholds(learned: Sequence[_Script], nats: float) -> np.ndarray:
    """θ of each script for which its patches carry ``nats`` each  # [256]."""
    found = np.zeros(MOST_SCRIPTS, dtype=np.float32)
    for script in learned:
        nearest = np.abs(script.times - script.nats / nats).argmin()
        found[script.number] = script.values[nearest]
    return found
