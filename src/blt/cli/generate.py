"""``blt generate``: a model continues prompts; :mod:`blt.cli.generate_view` shows how."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional, UseAppendAction

from blt.cli.device import Device, chosen
from blt.cli.sampling import Draws
from blt.errors import UserError


@dataclass(frozen=True)
class Model:
    """What writes."""

    model: Path | None = None
    """Model folder, such as RUN/checkpoint, instead of the model inside the package."""
    adapter: Path | None = None
    """Folder of an adapter (LoRA) for that model; a run that trained one knows its model."""
    precision: str | None = None
    """Precision of the weights: float32, bfloat16 or int8 (on a CPU). Left out: bfloat16 on a GPU
    that has it, else as the model is."""
    draft_bytes: int = 0
    """Self-speculation: guess so many bytes at once, then verify them together."""
    batch: int = 16
    """How many prompts are continued at the same time."""
    device: Device = "auto"
    threshold: float | None = None
    """Cut patches with this θ (nats) instead of the model's own; higher makes longer patches."""
    target_patch_size: float | None = None
    """The same with the θ for which patches have so many bytes in the text of --calibrate-on."""
    calibrate_on: Path | None = None
    """Text like that which is to be written, to find θ on."""


@dataclass(frozen=True)
class Choice(Draws):
    """How each byte is chosen, and where a text ends."""

    stop: UseAppendAction[tuple[str, ...]] = ()
    """End before this string; may be given several times. A newline is $'\\n' in bash."""


@dataclass(frozen=True)
class Validity:
    """Which bytes may be written: text is valid UTF-8 in whole characters, --raw any bytes."""

    no_valid_utf8: bool = False
    """Allow any bytes in text too; those that are no characters are shown as U+FFFD."""
    valid_utf8: bool = False
    """Allow only whole characters with --raw too."""

    def of(self, raw: bool) -> bool:
        """Is text to be valid?"""
        if self.valid_utf8 and self.no_valid_utf8:
            raise UserError("choose one of --valid-utf8 and --no-valid-utf8")
        return self.valid_utf8 if raw else not self.no_valid_utf8


@dataclass(frozen=True)
class Output:
    """What is printed, instead of the text alone."""

    show_patches: bool = False
    """Colour patches as they form, those of the prompt first."""
    raw: bool = False
    """Write the bytes as they are, whether they are valid UTF-8 or not; for one prompt."""
    json: bool = False
    """Write one JSON object per prompt on a line, with log-probabilities and patches."""
    stats: bool = False
    """Say on standard error how fast it was, and how large patches were."""


def generate(
    prompt: Positional[tuple[str, ...]] = (),
    /,
    *,
    prompts: Path | None = None,
    model: Model,
    sampling: Choice,
    validity: Validity,
    output: Output,
) -> None:
    """Let a model continue a prompt.

    Args:
        prompt: Text to continue, in quotes; several are continued each on its own, as those of
            --prompts; "-" reads one from a pipe.
        prompts: File with a prompt on each line, instead; "-" reads a pipe.
    """
    from blt.checkpoint.pretrained import PRETRAINED
    from blt.cli import generate_view
    from blt.evals.recut import recut
    from blt.generate import Engine, Sampling
    from blt.lm import load

    if output.show_patches + output.raw + output.json > 1:
        raise UserError("choose one of --show-patches, --raw and --json")
    texts = _read_prompts(prompt, prompts)
    if output.raw and len(texts) != 1:
        raise UserError("--raw is for one prompt; --json has the bytes of several, in base64")
    if model.batch < 1:
        raise UserError(f"--batch must be at least 1, got {model.batch}")
    stop = tuple(os.fsencode(s) for s in sampling.stop)
    valid = validity.of(output.raw)
    how = Sampling(**{**vars(sampling), "stop": stop}, valid_utf8=valid)
    lm = load(model.model or PRETRAINED, chosen(model.device), model.adapter)
    recut(lm, model.threshold, model.target_patch_size, model.calibrate_on)
    engine = Engine(
        lm,
        max_batch=min(model.batch, max(1, len(texts))),
        max_queue=max(1, len(texts)),
        precision=model.precision,  # type: ignore[arg-type]
        draft_bytes=model.draft_bytes,
    )
    clock = generate_view.Clock(engine)
    writer = generate_view.writer_of(output, lm, len(texts))
    generate_view.write_all(engine, texts, how, clock.watch(writer))
    if output.stats:
        print(clock.line(), file=sys.stderr)


def _read_prompts(prompts: tuple[str, ...], file: Path | None) -> list[bytes]:
    """The prompts to continue, from the one place that was named."""
    if file is not None and any(prompts):
        raise UserError("both a prompt and --prompts are given; choose one")
    if file is not None:
        return (_read_pipe() if str(file) == "-" else file.read_bytes()).splitlines()
    for prompt in prompts:
        if os.path.isfile(os.path.join(prompt, "config.json")):  # a long text is no error there
            way_out = f'try: blt generate "text" --model {prompt}'
            raise UserError(f"{prompt}: is a model folder; {way_out}")
    if prompts.count("-") > 1:
        raise UserError('"-" reads the pipe to its end, so it can be only one of the prompts')
    return [_read_pipe() if p == "-" else os.fsencode(p) for p in prompts or ("",)]


def _read_pipe() -> bytes:
    return sys.stdin.buffer.read()
