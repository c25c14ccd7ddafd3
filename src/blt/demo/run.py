"""A small BLT from scratch in ten minutes, beside what everybody knows.

text ─► entropy model ─► θ ─► BLT ─► baseline, for the same time ─► scores ─► sample ─► report
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from blt import vocab
from blt.checkpoint.pretrained import find_entropy_model, save_patching
from blt.data import read, split
from blt.data.form import path_of
from blt.data.sources import PYTHON
from blt.demo import recipes
from blt.demo.recipes import ENTROPY_SHARE, Plan
from blt.demo.view import Screen, Theta, Trained, write_demo_report
from blt.evals.compressors import compressors
from blt.generate import Engine
from blt.lm import BLT, ByteLM, load
from blt.machine.precision import choose_device, choose_dtype
from blt.model.config import ByteTransformerConfig
from blt.model.transformer import CausalTransformer
from blt.patching import Cut, Patcher, PatchingConfig
from blt.patching.calibration import calibrate, mean_patch_size
from blt.scoring.bits import bits_per_byte
from blt.texts.pieces import choose, segments
from blt.train.build import build_blt, model_of
from blt.train.corpus import loader
from blt.train.loop import Report, fit
from blt.train.opening import open_run
from blt.train.recipe import Recipe, write_recipe
from blt.train.run import CHECKPOINT, RECIPE, RunFolder

SCORED_BYTES = 524288  # of held-out text, at most
SHOWN_BYTES = 600
PROMPT_BYTES = 40  # of a text that is gone on with
SAMPLE_BYTES, LEAST_SAMPLE_BYTES = 400, 60
PROMPTS = ("The ", "def ", "Все люди ", "सभी ", "すべての", "كل ")  # of the model in the package
SHIPPED_BYTES = 160  # written after each
SHIPPED_HELDOUT = 0.02  # data.heldout of recipes/blt-pretrained.toml
TOLERANCE = 0.02  # of the patch size asked for


def run_demo(
    *,
    text: Path | None = None,
    folder: Path | None = None,
    minutes: float = 9.0,
    patch_size: float = 4.5,
    seed: int = 0,
    device: str = "auto",
    entropy_model: str | None = None,
) -> Path:
    """Run the whole demo; returns its run folder.

    Args:
        text: file or folder to learn from; None: this Python's own source and documentation.
        folder: run folder to make; None: ``runs/demo-DATE-TIME``.
        minutes: for everything together.
        patch_size: bytes per patch that θ is calibrated to.
        seed: of weights, batches and the sample.
        device: where everything is trained and written: auto, cpu, cuda, cuda:1.
        entropy_model: folder of one that cuts text, or "pretrained"; None: one is trained first.

    Raises:
        UserError: bad text or folder, or no such device.
        KeyboardInterrupt: says where the last checkpoint is.
    """
    folder = folder or Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S")
    plan = Plan(text, folder, minutes, patch_size, seed, device, entropy_model)
    try:
        _Demo(plan).run()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_stopped(folder)) from None
    return folder


class _Demo:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.folder, self.context = plan, plan.folder, plan.data.context_bytes
        self.deadline = time.monotonic() + 60 * plan.minutes
        self.screen = Screen()
        self.device = choose_device(plan.device, "device")
        self.dtype = choose_dtype("auto", self.device)

    def run(self) -> None:
        """The demo, step by step."""
        plan, screen = self.plan, self.screen
        self.parts = split(read(plan.data.sources).documents, plan.data.heldout)
        screen.text(path_of(plan.data.sources[0]), self.parts)
        given = find_entropy_model(plan.entropy_model)
        run = open_run(self.folder, plan.blt_recipe(None))

        entropy_model = self.own_entropy_model() if given is None else given.to(self.device)
        theta = self.calibrate(entropy_model)
        screen.threshold(theta)
        if given is None:
            save_patching(self.folder / "entropy_model" / CHECKPOINT, theta.config)

        recipe = plan.blt_recipe(theta.config)
        write_recipe(self.folder / RECIPE, recipe)  # now with θ
        model = build_blt(recipe.model or recipes.MODEL, entropy_model, plan.seed)
        blt = self.train("BLT", model, recipe, run)
        baseline = self.train_bytes(
            "byte transformer", "baseline", recipes.BASELINE, plan.blt_share
        )

        scores = self.score([blt, baseline])
        run.log({"event": "scores", "bits_per_byte": scores, "heldout_patch_size": theta.size})
        screen.scores(scores, [blt, baseline])
        shown = first(self.parts.heldout)
        cut = beginning(shown, Patcher(theta.config, entropy_model))
        screen.patches(cut)
        prompt = b"import " if plan.text is None else opening(shown)
        sample = write(screen, blt.model, prompt, plan.seed, self.deadline)
        (self.folder / "samples.txt").write_bytes(prompt + sample + b"\n")
        report = self.folder / "report.html"
        write_demo_report(report, self.parts, theta, [blt, baseline], scores, cut, prompt, sample)
        screen.next_steps(self.folder, prompt)

    def own_entropy_model(self) -> CausalTransformer:
        """One that is trained here."""
        shape = recipes.ENTROPY_MODEL
        trained = self.train_bytes("entropy model", "entropy_model", shape, ENTROPY_SHARE)
        return trained.model  # type: ignore[no-any-return]

    def train_bytes(
        self, title: str, name: str, shape: ByteTransformerConfig, share: float
    ) -> Trained[Any]:
        """Train a byte transformer in a run folder of its own."""
        recipe = self.plan.recipe(name, share, kind="byte", byte_model=shape)
        run = open_run(self.folder / name, recipe)
        model = model_of(recipe, run, (), None)
        assert isinstance(model, ByteLM)
        return self.train(title, model, recipe, run)

    def train(
        self, title: str, model: BLT | ByteLM, recipe: Recipe, run: RunFolder
    ) -> Trained[Any]:
        """Train ``model`` for the time that its recipe gives it."""
        reports: list[Report] = []
        batches = loader(self.parts, recipe.data, recipe.seed)
        with self.screen.bar(title) as show:

            def on_progress(report: Report) -> None:
                reports.append(report)
                show(report)

            fit(model.to(self.device), batches, recipe.train, run=run, on_progress=on_progress)
        return Trained(title, model, reports)

    def calibrate(self, entropy_model: CausalTransformer) -> Theta:
        """θ for the patch size asked for.

        Training text sets it where that is near enough. Where held-out text differs, every other
        piece of that sets it (it is one number), and the pieces between measure it.
        """
        target = self.plan.patch_size
        how: Any = {"context_bytes": self.context, "dtype": self.dtype}
        pieces = segments(self.parts.heldout, self.context)
        for where, fitted, measured in (
            ("training text", self.parts.train, pieces),
            ("half of the held-out text, measured on the other", pieces[::2], pieces[1::2]),
        ):
            config = calibrate(entropy_model, fitted, target, PatchingConfig(), **how)
            size = mean_patch_size(config, entropy_model, measured or fitted, **how)
            theta = Theta(config, target, size, where)
            if abs(size / target - 1) <= TOLERANCE / 2:  # half: to be clear of the limit
                break
        return theta

    def heldout(self) -> list[bytes]:
        """The held-out text that is scored, the same for all."""
        return choose(self.parts.heldout, SCORED_BYTES, self.context)

    def score(self, trained: Sequence[Trained[Any]]) -> dict[str, float]:
        """Held-out bits per byte of models and compressors."""
        texts, scores = self.heldout(), {}
        for one in trained:
            with self.screen.wait(f"scoring held-out text: {one.title}"):
                scores[one.title] = bits_per_byte(
                    one.model, texts, context_bytes=self.context, dtype=self.dtype
                )
        return scores | compressors(texts)


def first(documents: Sequence[bytes]) -> bytes:
    """What one of the documents begins with, the same one every time."""
    return choose(documents, context_bytes=SHOWN_BYTES)[0]


def beginning(text: bytes, patcher: Patcher) -> Cut:
    """The beginning of a text in patches, up to the end of a line."""
    text = text[:SHOWN_BYTES]
    return patcher.cut(text[: text.rfind(b"\n") + 1] or text)


def opening(text: bytes) -> bytes:
    """A few words to go on with, in whole characters."""
    return vocab.whole(text[:PROMPT_BYTES])


def write(
    screen: Screen,
    model: BLT | ByteLM,
    prompt: bytes,
    seed: int,
    deadline: float = math.inf,
    max_bytes: int = SAMPLE_BYTES,
) -> bytes:
    """What the model writes after ``prompt``, as long as there is time."""
    written = bytearray()
    handle = Engine(model, max_batch=1).submit(
        prompt, max_bytes=max_bytes, temperature=0.8, valid_utf8=True, seed=seed
    )
    with screen.writing(prompt) as show:
        for piece in handle:
            for byte in piece:
                show(byte + vocab.OFFSET)
            written += piece
            if len(written) >= LEAST_SAMPLE_BYTES and time.monotonic() > deadline:
                handle.cancel()
    return vocab.whole(bytes(written))


def show_pretrained(text: Path | None = None, seed: int = 0, device: str = "auto") -> None:
    """What the small BLT inside the package knows: scores, patches and samples, in a minute.

    Args:
        text: file or folder to score; None: what of this Python's own source and documentation
            the model was not trained on, and samples in several scripts.
        seed: of the samples.
        device: where the model works: auto, cpu, cuda, cuda:1.

    Raises:
        UserError: bad text, or no such device.
    """
    screen, model = Screen(), load(device=device)
    source = PYTHON if text is None else str(text)
    documents = read((source,)).documents
    if text is None:
        documents = split(documents, SHIPPED_HELDOUT).heldout
    texts = choose(documents, SCORED_BYTES)
    screen.scored(source, texts)
    with screen.wait("scoring"):
        bits = bits_per_byte(
            model,
            texts,
            context_bytes=2048,
            dtype=choose_dtype("auto", model.device),
        )
    screen.scores({"the BLT in the package": bits} | compressors(texts), [])
    assert isinstance(model, BLT)
    shown = first(documents)
    screen.patches(beginning(shown, model.patcher))
    if text is not None:
        write(screen, model, opening(shown), seed)
        return
    for prompt in PROMPTS:
        write(screen, model, prompt.encode(), seed, max_bytes=SHIPPED_BYTES)


def _stopped(folder: Path) -> str:
    """Where the checkpoints are, and how to go on."""
    if (folder / CHECKPOINT).is_dir():
        return (
            f"stopped; the last checkpoint is whole: {folder / CHECKPOINT}; go on with: "
            f"blt train {folder / RECIPE} --run {folder} --resume"
        )
    entropy_model = folder / "entropy_model" / CHECKPOINT
    if entropy_model.is_dir():
        return f"stopped; there is no BLT yet, but a whole entropy model: {entropy_model}"
    return "stopped before the first checkpoint"
