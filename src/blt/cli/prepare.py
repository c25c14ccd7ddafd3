"""``blt prepare``: text into shards, with a bar over source files, and what was made of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tyro.conf import Positional

from blt.cli.device import Device, chosen
from blt.errors import require
from blt.report.console import Console

RAY_WORKERS = 2

if TYPE_CHECKING:
    from blt.data.prepare import OnProgress, Outcome


def prepare(
    sources: Positional[tuple[str, ...]],
    /,
    *,
    out: Path,
    entropy_model: str | None = None,
    newline_reset: bool = False,
    device: Device = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    heldout: float = 0.01,
    segment_bytes: int = 8192,
    shard_mb: int = 64,
    max_broken: int = 100,
    learn: Literal["all", "completions"] | None = None,
    template: str = "",
    engine: Literal["local", "ray"] = "local",
    workers: int | None = None,
) -> None:
    """Turn text into shards to train on: read once, divided, entropies computed ahead.

    Run again after a kill, it goes on where it was.

    Args:
        sources: Files, folders, globs, hf:NAME[/CONFIG][@SPLIT] or builtin:python; or, as in
            recipes, tables: '{path = "chat.jsonl", messages = "messages"}'.
        out: Folder to make.
        entropy_model: Store this model's entropies: its folder, or "pretrained".
        newline_reset: The entropy model forgets everything after each newline.
        precision: Of the entropy model's matrix products. auto: bfloat16 on a GPU that has it,
            float32 on a CPU.
        heldout: Share of documents that is kept from training, by a hash of their content; of those
            of a megabyte or more, and of a handful of long ones, their end.
        segment_bytes: Longest run of bytes that can be trained on at once.
        shard_mb: Megabytes of text in a shard.
        max_broken: Lines without a document that are left out of one file before it is an error.
        learn: What is learned of conversations, and of prompts with completions. completions: what
            the assistant says, or the completion; each with its end. all: everything. Left out:
            completions. Plain text is always learned whole.
        template: Of conversations: file of a chat template, or a model folder that has one. Left
            out: the default one. Models trained on the shards get it.
        engine: local, or ray: on the Ray cluster of RAY_ADDRESS, or one started here.
        workers: ray: so many files at the same time. Left out: 2.
    """
    from blt.chat import ChatTemplate
    from blt.data.form import parsed_source
    from blt.data.prepare import Options
    from blt.data.prepare import prepare as run
    from blt.machine.precision import reading_dtype

    ray_workers = _ray_workers(engine, workers)
    # Ray's workers have devices of their own.
    place = chosen(device if ray_workers is None else "cpu")
    dtype = str(reading_dtype(place, precision)).removeprefix("torch.")
    if ray_workers is not None and device == "cuda" and precision == "auto":
        dtype = "bfloat16"  # of GPUs that only the workers see
    options = Options(
        tuple(map(parsed_source, sources)),
        heldout=heldout,
        entropy_model=entropy_model,
        newline_reset=newline_reset,
        precision=dtype,  # type: ignore[arg-type]
        segment_bytes=segment_bytes,
        shard_bytes=shard_mb * 2**20,
        max_broken=max_broken,
        learn=learn,
        template=ChatTemplate.chosen(template).source if template else None,
    )
    with preparing() as show:
        manifest = run(out, options, ray_workers=ray_workers, device=device, on_progress=show)
    print_manifest(out, manifest)


def _ray_workers(engine: Literal["local", "ray"], workers: int | None) -> int | None:
    """None: Ray is not asked for."""
    if engine == "ray":
        return RAY_WORKERS if workers is None else workers
    require(workers is None, "--workers: files are prepared one after another without --engine ray")
    return None


@contextmanager
def preparing() -> Iterator[OnProgress]:
    """What :func:`blt.data.prepare.prepare` calls with its progress, inside a ``with`` block."""
    columns = (
        TextColumn("[bold]preparing"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("files · {task.fields[megabytes]:.1f} MB · {task.fields[broken]} broken lines"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), refresh_per_second=4) as progress:
        task = progress.add_task("", total=None, megabytes=0.0, broken=0)
        finished, size, broken = 0, 0, 0  # size and broken lines of finished units

        def show(done: int, total: int, outcome: Outcome) -> None:
            nonlocal finished, size, broken
            megabytes = (size + outcome.bytes) / 1e6
            if done > finished:
                finished, size, broken = done, size + outcome.bytes, broken + outcome.broken
            progress.update(task, completed=done, total=total, megabytes=megabytes, broken=broken)

        yield show


def print_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Counts, the first broken lines, and what to do next."""
    from blt.data.heldout import split_remarks
    from blt.data.left_out import Tally

    console = Console()
    shown: dict[str, Any] = {"soft_wrap": True, "highlight": False, "markup": False}
    train, heldout = manifest["splits"]["train"], manifest["splits"]["heldout"]
    console.print(
        f"{folder}: {manifest['documents']:,} documents, {manifest['bytes'] / 1e6:,.1f} MB, "
        f"{len(manifest['shards'])} shards; {train['bytes'] / 1e6:,.1f} MB to train on, "
        f"{heldout['bytes'] / 1e6:,.1f} MB held out",
        **shown,
    )
    if manifest["broken"]:
        console.print(f"{manifest['broken']:,} lines without a document were left out:", **shown)
        lines = [line for unit in manifest["units"] for line in unit["broken_lines"]]
        for line in lines[:5]:
            console.print(f"  {line}", **shown)
    for what in ("left_out", "read_as_one_text"):
        tally = Tally()
        tally.add_facts(manifest[what])
        if tally:
            console.print(f"{what.replace('_', ' ')}: {tally}", **shown)
    for remark in split_remarks(str(folder), manifest["cut_documents"], heldout["bytes"]):
        console.print(remark, **shown)
    if manifest.get("learn"):
        empty = sum(unit.get("nothing_to_learn", 0) for unit in manifest["units"])
        console.print(
            f"learned: {manifest['learn']}; {empty:,} segments with nothing to learn were left out",
            **shown,
        )
    if not heldout["bytes"]:
        console.print("nothing is held out: raise --heldout to evaluate while training", **shown)
    console.print(f"next: blt train RECIPE.toml 'data.sources=[\"{folder}\"]'", **shown)
