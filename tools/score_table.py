"""Scores of models side by side, as a table in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from blt.study.markdown import table_head, table_row
from tools.heldout import FLORES
from tools.lines import Line

Column = Mapping[str, Line]  # a model's line of each kind
NONE = "–"  # of what was not measured


def table(lines: Sequence[Line]) -> str:
    """A row a kind, two columns a model; the last rows sum up the languages.

    Of several lines of the same model and kind the last one counts.
    """
    columns: dict[tuple[str, str], dict[str, Line]] = {}
    for line in lines:
        columns.setdefault((line["sha256"], line["rule"]), {})[line["kind"]] = line
    names = _names(list(columns.values()))
    head = [part for name in names for part in (f"{name}, bits per byte", "bytes per patch")]
    kinds = _kinds(lines)
    rows = [
        table_row(kind, *(cell for column in columns.values() for cell in _cells(column.get(kind))))
        for kind in kinds
    ]
    return "\n".join([table_head("text", *head), *rows, *summary(list(columns.values()))])


def _kinds(lines: Sequence[Line]) -> list[str]:
    """Each once, as they come; languages last, by name."""
    kinds = list(dict.fromkeys(line["kind"] for line in lines))
    return sorted(kinds, key=lambda kind: (kind.startswith(FLORES), kind.startswith(FLORES) * kind))


def _names(columns: Sequence[Column]) -> list[str]:
    """What models are called; where two are called the same, with their first digits too."""
    firsts = [next(iter(column.values())) for column in columns]
    labels = [line["model"] for line in firsts]
    return [
        label if labels.count(label) == 1 else f"{label} ({line['sha256'][:8]}, {line['rule']})"
        for label, line in zip(labels, firsts, strict=True)
    ]


def _cells(line: Line | None) -> tuple[str, str]:
    if line is None:
        return NONE, NONE
    edges = "" if line["low"] is None else f" [{line['low']:.3f}, {line['high']:.3f}]"
    return f"{line['bits_per_byte']:.3f}{edges}", f"{line['bytes_per_patch']:.2f}"


def summary(columns: Sequence[Column]) -> list[str]:
    """Rows over all languages; none where no model has any."""
    spoken = [
        {kind.removeprefix(FLORES): one for kind, one in column.items() if kind.startswith(FLORES)}
        for column in columns
    ]
    if not any(spoken):
        return []
    counts = sorted({len(languages) for languages in spoken if languages})
    of = " or ".join(map(str, counts))
    rows: dict[str, Callable[[Column], tuple[str, str]]] = {
        f"mean of {of} languages": _mean,
        "worst language": _worst,
        "patches of a sentence, most over fewest": _ratio,
    }
    return [
        table_row(name, *(cell for one in spoken for cell in (of(one) if one else (NONE, NONE))))
        for name, of in rows.items()
    ]


def _mean(languages: Column) -> tuple[str, str]:
    """Of all languages alike."""
    bits, sizes = (
        sum(line[name] for line in languages.values()) / len(languages)
        for name in ("bits_per_byte", "bytes_per_patch")
    )
    return f"{bits:.3f}", f"{sizes:.2f}"


def _worst(languages: Column) -> tuple[str, str]:
    """The one of most bits, and the one of shortest patches."""
    bits = max(languages, key=lambda name: languages[name]["bits_per_byte"])
    size = min(languages, key=lambda name: languages[name]["bytes_per_patch"])
    return (
        f"{languages[bits]['bits_per_byte']:.3f} ({bits})",
        f"{languages[size]['bytes_per_patch']:.2f} ({size})",
    )


def _ratio(languages: Column) -> tuple[str, str]:
    """Of the same sentences."""
    patches = {name: line["patches_per_sentence"] for name, line in languages.items()}
    most, fewest = max(patches, key=patches.__getitem__), min(patches, key=patches.__getitem__)
    return "", f"{patches[most] / patches[fewest]:.1f} ({most} / {fewest})"
