"""``blt eval``: models measured; :mod:`blt.cli.eval_view` shows what is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from blt.cli.device import Device, chosen


def eval(
    task: Positional[str],
    paths: Positional[tuple[str, ...]] = (),
    /,
    *,
    model: tuple[Path, ...] = (),
    adapter: Path | None = None,
    context_bytes: int | None = None,
    max_bytes: int | None = None,
    limit: int | None = None,
    generate: bool = False,
    zero_shot: bool = False,
    typos: Path | None = None,
    noise: bool = False,
    device: Device = "auto",
    threshold: float | None = None,
    target_patch_size: float | None = None,
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    compile: bool = False,
    json: bool = False,
    plot: Path | None = None,
) -> None:
    """Measure models: bits per byte, noise, languages, valid UTF-8, CUTE, BLiMP and more.

    Args:
        task: bpb: texts, one row each. noise: texts, disturbed in eight ways. languages: a folder
            of parallel text, one file per language. utf8: what the model writes, after nothing and
            after each text. cute: the folder of its .tsv files. blimp: its .zip. lambada,
            hellaswag: a .jsonl file. g2p: a folder of SIGMORPHON's .tsv files. answers: .jsonl
            files with a prompt and its completion on each line, and maybe a kind.
        paths: The texts or data of the task.
        model: Model folders, of ours or of transformers, instead of the model inside the package;
            several are compared.
        adapter: Folder of an adapter (LoRA) for the one model; a run that trained one knows its
            model, and is a model folder itself.
        context_bytes: Texts are scored in pieces of at most so many bytes. Left out: 2048.
        max_bytes: bpb: of each text. noise: of all. Left out: 262144, and 65536.
        limit: At most so many questions (answers: of each kind), sentences or samples.
        typos: noise: a list of misspellings to disturb with too, as codespell's or SymSpell's.
        noise: hellaswag: with the paper's five noises in the context too.
        generate: cute: let the model write its answers, as published. g2p: too.
        zero_shot: cute: without its instruction and four examples, for a model that was taught
            what it asks.
        threshold: Measure with this θ (nats) too, beside the model's own.
        target_patch_size: bpb, noise: the same with the θ for which patches of the texts have so
            many bytes.
        precision: Of matrix products where text is scored. auto: bfloat16 on a GPU that has it,
            float32 on a CPU.
        compile: Let torch.compile fuse the model first: for much text on a GPU, as it takes up to a
            minute.
        json: Print one JSON object for each row.
        plot: Draw the rows into this file too, a PNG, SVG or PDF.
    """
    from blt.checkpoint.pretrained import PRETRAINED
    from blt.cli.eval_view import check_figure, draw, print_json, print_table
    from blt.evals.compare import compare
    from blt.evals.recut import check_choice
    from blt.evals.rows import Options
    from blt.evals.tasks import check_options, check_paths, find_task

    asked = find_task(task)
    check_paths(task, paths, "; those after --model are taken for models" if len(model) > 1 else "")
    if plot is not None:
        check_figure(plot)
    counts = {"context_bytes": context_bytes, "max_bytes": max_bytes, "limit": limit}
    given: dict[str, Any] = {name: count for name, count in counts.items() if count is not None}
    others = {
        "generate": generate,
        "zero_shot": zero_shot,
        "noise": noise,
        "precision": None if precision == "auto" else precision,
        "typos": typos,
        "target_patch_size": target_patch_size,
    }
    check_choice(threshold, target_patch_size)
    check_options(task, given | others, _option)
    options = Options(
        **given,
        generate=generate,
        zero_shot=zero_shot,
        precision=precision,
        typos=typos,
        noise=noise,
        threshold=threshold,
        target_patch_size=target_patch_size,
    )
    models = model or (PRETRAINED,)
    rows = compare(task, models, paths, options, chosen(device), compile, adapter)
    found = (print_json if json else print_table)(rows)
    if plot is not None:
        draw(found, asked.shown, plot)


def _option(name: str) -> str:
    """What tyro makes of the name of a parameter."""
    return f"--{name.replace('_', '-')}"
