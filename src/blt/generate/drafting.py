"""Self-speculation (BLT-S, arXiv 2605.08044): what texts may go on with, before it is verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from blt import vocab
from blt.generate.incremental import CachedModel
from blt.generate.incremental_blt import CachedBLT
from blt.generate.request import Request
from blt.generate.sampling import distributions, draw


@dataclass
class Draft:
    """Guessed ids after the one that a request chose last, and what each was drawn from, [260]."""

    ids: list[int] = field(default_factory=list)
    drawn_from: list[np.ndarray] = field(default_factory=list)


def draft(model: CachedModel, requests: Sequence[Request]) -> tuple[list[Draft], list[list[int]]]:
    """Guess ``draft_bytes`` ids of each request with the patch that it sees now.

    Returns:
        a draft of each request; and the ids to read, the one chosen last and those of the draft,
        padded to one length.
    """
    drafts, new_ids = [Draft() for _ in requests], [[request.token] for request in requests]
    if not isinstance(model, CachedBLT):
        return drafts, new_ids
    choosers = [request.chooser for request in requests]
    for count in range(max(request.draft_bytes for request in requests)):
        logits = model.draft(new_ids).cpu().numpy()
        guesses = distributions(choosers, logits)
        for row, (request, one) in enumerate(zip(requests, drafts, strict=True)):
            if count >= request.draft_bytes:
                new_ids[row].append(vocab.OFFSET)
                continue
            one.drawn_from.append(guesses[row])
            one.ids.append(draw(guesses[row], request.generator))
            new_ids[row].append(one.ids[-1])
            choosers[row] = choosers[row].after(one.ids[-1])
    return drafts, new_ids
