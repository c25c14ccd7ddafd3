"""What ``blt demo`` shows while it runs, and its report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from rich.table import Table
from rich.text import Text

from blt import vocab
from blt.data import Split
from blt.lm import BLT, LanguageModel
from blt.patching import Cut, PatchingConfig
from blt.report.console import Console
from blt.report.html import Curve, HeatText, ReportData, Scored, Written, write_report
from blt.report.progress import clock, training_bar
from blt.report.terminal import legend, print_patches, summary_line
from blt.texts.glyphs import visible
from blt.train.loop import OnProgress, Report
from blt.train.run import RECIPE

M = TypeVar("M", bound=LanguageModel)

LITTLE_TEXT = 1_000_000  # bytes


@dataclass(frozen=True)
class Trained(Generic[M]):
    """A model, and how it learned."""

    title: str
    model: M
    reports: Sequence[Report]  # one at least

    @property
    def note(self) -> str:
        """Size, text read and time, in one line."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        last = self.reports[-1]
        return (
            f"{sum(p.numel() for p in trained) / 1e6:.1f} M parameters, "
            f"read {megabytes(last.bytes_seen)} in {clock(last.seconds)}"
        )

    @property
    def curve(self) -> Curve:
        return Curve(
            self.title,
            [report.seconds for report in self.reports],
            [report.bytes_seen for report in self.reports],
            [report.bits_per_byte for report in self.reports],
        )


@dataclass(frozen=True)
class Theta:
    """A calibrated threshold, and the patch size that was measured with it."""

    config: PatchingConfig
    target: float  # bytes
    size: float  # bytes, mean over held-out text
    where: str  # which text set it


class Screen:
    """The terminal, or a pipe."""

    def __init__(self) -> None:
        self.console = Console()

    def say(self, line: str = "", style: str = "") -> None:
        self.console.print(Text(line, style=style), soft_wrap=True)

    def bar(self, title: str) -> AbstractContextManager[OnProgress]:
        return training_bar(self.console, title)

    def wait(self, title: str) -> AbstractContextManager[Any]:
        return self.console.status(title)

    def text(self, source: str, parts: Split) -> None:
        self.say(f"text: {source}", "bold")
        self.say(
            f"{_amount(parts.train)} to learn from, {_amount(parts.heldout)} held out", "default"
        )
        for remark in parts.remarks(source):
            self.say(remark)
        if sum(map(len, parts.train)) < LITTLE_TEXT:
            self.say("that is little: the models will learn it by heart and do badly on other text")

    def scored(self, source: str, texts: Sequence[bytes]) -> None:
        self.say(f"text: {source}", "bold")
        self.say(f"{_amount(texts)}, scored", "default")

    def threshold(self, theta: Theta) -> None:
        self.say(
            f"θ = {theta.config.threshold:.4f} nats for {theta.target:g} bytes per patch, set on "
            f"{theta.where}; held-out text has {theta.size:.3f}"
        )

    def scores(self, scores: Mapping[str, float], trained: Sequence[Trained[Any]]) -> None:
        """Best first."""
        table = Table("held-out bits per byte", "", "", box=None, pad_edge=False)
        for score in sorted(_scored(scores, trained), key=lambda score: score.bits_per_byte):
            style = "bold green" if score.highlight else ""
            table.add_row(score.name, f"{score.bits_per_byte:.3f}", score.note, style=style)
        self.say()
        self.console.print(table)

    def patches(self, cut: Cut) -> None:
        self.say("\nheld-out text, cut into patches", "bold")
        print_patches(self.console, cut.patches, cut.entropies, colour_by="entropy")
        if self.console.color_system is not None:
            self.console.print(legend())
        self.say(summary_line(cut.patches, cut.entropies))

    @contextmanager
    def writing(self, prompt: bytes) -> Iterator[Callable[[int], None]]:
        """Shows ids as text, character by character."""
        self.say("\nwritten by the model, after the prompt in bold", "bold")
        self.console.print(Text(visible(prompt), "bold"), end="", soft_wrap=True)
        text = vocab.Utf8Stream()

        def show(token: int) -> None:
            shown = visible(text.push(token).encode())
            self.console.print(Text(shown), end="", soft_wrap=True)

        yield show
        self.say()

    def next_steps(self, folder: Path, prompt: bytes) -> None:
        self.say("\nnext, try", "bold")
        start = "import " if prompt == b"import " else "Once "
        for line in (
            f'blt generate "{start}" --model {folder}/checkpoint',
            f'blt patch "some text of yours" --model {folder}/checkpoint',
            f"blt train {folder}/{RECIPE} train.seconds=3600 --run runs/longer",
        ):
            self.say(f"  {line}")
        self.say(f"  open {folder}/report.html in a browser")


def write_demo_report(
    path: Path,
    parts: Split,
    theta: Theta,
    trained: Sequence[Trained[Any]],
    scores: Mapping[str, float],
    cut: Cut,
    prompt: bytes,
    sample: bytes,
) -> None:
    """One self-contained HTML file."""
    starts = set(cut.starts)
    begins = [at in starts for at in range(len(cut.data))]
    facts = [
        ("to learn from", _amount(parts.train)),
        ("held out", _amount(parts.heldout)),
        ("bytes per patch, held out", f"{theta.size:.3f}"),
        ("θ", f"{theta.config.threshold:.4f} nats"),
        ("θ set on", theta.where),
    ]
    write_report(
        path,
        ReportData(
            title="A Byte Latent Transformer, trained here",
            subtitle="What blt demo learned, beside compressors and a byte transformer without "
            "patches that has the same n-gram tables, and was trained for the same time.",
            facts=facts,
            scores=_scored(scores, trained),
            curves=[one.curve for one in trained],
            texts=[HeatText(cut.data, cut.entropies or [], begins, title="From held-out text")],
            samples=[Written(sample, prompt)],
            recipe=(path.parent / RECIPE).read_text(),
        ),
    )


def megabytes(count: int) -> str:
    """A number of bytes, as 1.23 MB."""
    return f"{count / 1e6:.2f} MB"


def _amount(documents: Sequence[bytes]) -> str:
    many = "document" if len(documents) == 1 else "documents"
    return f"{megabytes(sum(map(len, documents)))} in {len(documents)} {many}"


def _scored(scores: Mapping[str, float], trained: Sequence[Trained[Any]]) -> list[Scored]:
    models = {one.title: one for one in trained}
    return [
        Scored(
            name,
            value,
            note=models[name].note if name in models else "",
            highlight=name in models and isinstance(models[name].model, BLT),
        )
        for name, value in scores.items()
    ]
