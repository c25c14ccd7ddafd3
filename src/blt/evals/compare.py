"""One task on several models, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from blt.checkpoint.pretrained import PRETRAINED
from blt.data import read
from blt.errors import UserError, require
from blt.evals.models import load
from blt.evals.recut import set_threshold
from blt.evals.rows import MAX_BYTES, Options, Row, Shown
from blt.evals.tasks import TASKS
from blt.lm import LanguageModel
from blt.machine.precision import choose_device
from blt.model.compiling import compile_model
from blt.texts.pieces import choose
from blt.train.run import CHECKPOINT

MODEL = "model"  # the column that says which


def compare(
    task: str,
    folders: Sequence[str | Path],
    paths: Sequence[str],
    options: Options,
    device: str | torch.device = "auto",
    compile: bool = False,
    adapter: str | Path | None = None,
) -> Iterator[Row]:
    """Rows of ``task`` for each model; those of several models say which, behind their name.

    Each row has the 95 % interval of its main column, and those of other models than the first the
    difference to the first, and the ratio, on the same pieces. With another θ each model comes
    twice: as it is, and cut with that.

    Only one model is in memory at a time, on ``device``: auto (a GPU where there is one), cpu, or
    cuda; with ``compile`` by torch.compile. An ``adapter`` is added to the one model that is named.

    Raises:
        UserError: a folder without a model, or the same one twice, or no such device.
    """
    require(
        adapter is None or len(folders) == 1,
        "--adapter is for one --model; a run that trained an adapter knows its model, so several "
        "can be named as they are",
    )
    place = choose_device(device, "device")
    names = short_names([Path(folder) for folder in folders])
    shown = Shown(several=len(folders) > 1 or options.recuts)
    for folder, name in zip(folders, names, strict=True):
        model = load(str(folder), adapter).to(place)
        if compile:
            compile_model(model)
        for called in _as_cut(model, name, paths, options):
            for measured in TASKS[task].rows(model, paths, options):
                row = shown.row(measured)
                if shown.several:
                    first = next(iter(row))
                    row = {first: row[first], MODEL: called, **row}
                yield row
            shown.next_model()
        del model  # before the next one is loaded


def _as_cut(
    model: LanguageModel, name: str, paths: Sequence[str], options: Options
) -> Iterator[str]:
    """What to call the model: with its own θ, and after that with the one that is asked for."""
    if not options.recuts:
        yield name
        return
    own = model.threshold  # refused before anything is measured, where there is none
    yield f"{name}, θ = {own:.4f}"
    texts: list[bytes] = []
    if options.target_patch_size is not None:
        size = options.max_bytes or MAX_BYTES
        for path in paths:
            texts += choose(read((path,)).documents, size, options.context_bytes)
    set_threshold(model, options.threshold, options.target_patch_size, texts, options.context_bytes)
    yield f"{name}, θ = {model.threshold:.4f}"


def short_names(folders: Sequence[Path]) -> list[str]:
    """Paths without the parts that all of them share at their start and end.

    The name of the model in the package stays, and has no part in that.
    """
    twice = [folder for folder, count in Counter(folders).items() if count > 1]
    if twice:
        raise UserError(f"--model {twice[0]}: named twice")
    others = [folder for folder in folders if str(folder) != PRETRAINED]
    named = dict(zip(others, _without_shared(others), strict=True))
    names = [named.get(folder, PRETRAINED) for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _without_shared(folders: Sequence[Path]) -> list[str]:
    if len(folders) == 1:  # that of the folder, or of the run whose checkpoint it is
        (only,) = folders
        return [(only.parent if only.name == CHECKPOINT else only).name or str(only)]
    parts = [folder.parts for folder in folders]
    start = _shared(parts)
    end = _shared([tuple(reversed(of[start:])) for of in parts])
    kept = [of[start : len(of) - end] for of in parts]
    return [str(Path(*of)) if of else str(folder) for of, folder in zip(kept, folders, strict=True)]


def _shared(parts: Sequence[tuple[str, ...]]) -> int:
    """How many parts at the start are the same in all, the last of each left out."""
    count = 0
    for column in zip(*(of[:-1] for of in parts), strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count
