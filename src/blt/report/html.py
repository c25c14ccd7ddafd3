"""The report of a run: one HTML file that needs no network and no script."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from blt.files import durable
from blt.report.curves import Axis, Curve, curves_svg
from blt.report.heatmap import HeatText, heat_html, legend_html
from blt.texts.glyphs import visible

__all__ = ["Curve", "HeatText", "ReportData", "Scored", "Written", "render_report", "write_report"]


@dataclass(frozen=True)
class Scored:
    """Held-out bits per byte of one model or compressor."""

    name: str
    bits_per_byte: float
    note: str = ""
    highlight: bool = False  # the row that the report is about


@dataclass(frozen=True)
class Written:
    """What a model wrote."""

    text: bytes
    prompt: bytes = b""
    title: str = ""


@dataclass(frozen=True)
class ReportData:
    """What the report shows; a part that is empty is left out."""

    title: str
    subtitle: str = ""
    facts: Sequence[tuple[str, str]] = ()  # (label, value): size, time, patch size, ...
    scores: Sequence[Scored] = ()
    curves: Sequence[Curve] = ()
    texts: Sequence[HeatText] = ()
    samples: Sequence[Written] = ()
    recipe: str = ""  # the resolved recipe, as TOML


def write_report(path: str | os.PathLike[str], run: ReportData) -> Path:
    """Write the report beside ``path`` and move it into place; returns the path."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    page = render_report(run).encode("utf-8", "replace")
    with durable.beside(target) as new:
        new.write_bytes(page)
    return target


def render_report(run: ReportData) -> str:
    """The whole page."""
    style = files("blt.report").joinpath("report.css").read_text(encoding="utf-8")
    sections = [_facts(run), _scores(run), _curves(run), _texts(run), _samples(run), _recipe(run)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{_text(run.title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{_text(run.title)}</h1>{_paragraph(run.subtitle, 'lead')}</header>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(text: str) -> str:
    """Escaped; characters that HTML forbids are shown as escapes."""
    return html.escape(visible(text.encode("utf-8", "surrogateescape")))


def _paragraph(text: str, kind: str) -> str:
    return f'<p class="{kind}">{_text(text)}</p>' if text else ""


def _section(title: str, body: str, note: str = "") -> str:
    return f"<section><h2>{title}</h2>{_paragraph(note, 'note')}{body}</section>"


def _facts(run: ReportData) -> str:
    if not run.facts:
        return ""
    items = "".join(
        f"<div><dt>{_text(label)}</dt><dd>{_text(value)}</dd></div>" for label, value in run.facts
    )
    return f'<dl class="facts">{items}</dl>'


def _scores(run: ReportData) -> str:
    finite = [s.bits_per_byte for s in run.scores if math.isfinite(s.bits_per_byte)]
    if not run.scores:
        return ""
    widest = max(finite, default=0.0) or 1.0
    rows = "".join(_score_row(score, widest) for score in run.scores)
    note = "Of text that no model has seen. Lower is better."
    return _section("Held-out bits per byte", f'<table class="bars">{rows}</table>', note)


def _score_row(score: Scored, widest: float) -> str:
    known = math.isfinite(score.bits_per_byte)
    width = 100 * max(score.bits_per_byte, 0) / widest if known else 0
    value = f"{score.bits_per_byte:.3f}" if known else "n/a"
    name = _text(score.name) + (f"<small>{_text(score.note)}</small>" if score.note else "")
    row = '<tr class="best">' if score.highlight else "<tr>"
    return (
        f'{row}<th scope="row">{name}</th>'
        f'<td class="bar"><i style="width:{width:.1f}%"></i></td>'
        f'<td class="value">{value}</td></tr>'
    )


def _curves(run: ReportData) -> str:
    if not any(curve.points("seconds") for curve in run.curves):
        return ""
    keys = "".join(
        f'<span><i style="background:var(--series-{i % 5 + 1})"></i>{_text(curve.name)}</span>'
        for i, curve in enumerate(run.curves)
    )
    plots = "".join(
        f"<figure>{curves_svg(run.curves, axis)}</figure>" for axis in _axes(run.curves)
    )
    body = f'<p class="keys">{keys}</p><div class="plots">{plots}</div>'
    return _section("Learning", body)


def _axes(curves: Sequence[Curve]) -> list[Axis]:
    axes: tuple[Axis, ...] = ("seconds", "bytes_seen")
    return [axis for axis in axes if any(curve.points(axis) for curve in curves)]


def _texts(run: ReportData) -> str:
    if not run.texts:
        return ""
    parts = "".join(
        (f"<h3>{_text(text.title)}</h3>" if text.title else "") + heat_html(text)
        for text in run.texts
    )
    note = (
        "The stronger the colour, the less the entropy model knew which byte would come. "
        "Hover over a character for its bytes and their entropies."
    )
    return _section("Text, entropies and patches", legend_html() + parts, note)


def _samples(run: ReportData) -> str:
    if not run.samples:
        return ""
    note = "The prompt is in bold." if any(sample.prompt for sample in run.samples) else ""
    return _section("Written by the model", "".join(map(_sample, run.samples)), note)


def _sample(sample: Written) -> str:
    title = f"<h3>{_text(sample.title)}</h3>" if sample.title else ""
    prompt, text = (html.escape(visible(part)) for part in (sample.prompt, sample.text))
    prompt = f'<b class="prompt">{prompt}</b>' if prompt else ""
    return f'{title}<pre class="sample">{prompt}{text}</pre>'


def _recipe(run: ReportData) -> str:
    if not run.recipe:
        return ""
    return f"<details><summary>Resolved recipe</summary><pre>{_text(run.recipe)}</pre></details>"
