"""The record of a build as tables that a person reads."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tools.texts.languages import FLORES

LARGEST = 3  # sources that a language's row names


def markdown(record: dict[str, Any]) -> str:
    """What each source gave, then what each language has, with FLORES' languages marked."""
    return "\n".join([*_sources(record), "", *_languages(record), ""])


def _sources(record: dict[str, Any]) -> list[str]:
    total = max(1, sum(of["bytes"] for of in record.values()))
    rows = ["| source | licence | languages | kB | share |", "|---|---|---|---|---|"]
    for name, of in record.items():
        what = f"{name}: {of['package']} {of['version']} ({of['client']})"
        sizes = f"{of['bytes'] / 1000:.0f} | {of['bytes'] / total:.1%}"
        rows.append(f"| {what} | {of['licence']} | {len(of['languages'])} | {sizes} |")
    return rows


def by_language(record: dict[str, Any]) -> dict[str, Counter[str]]:
    """Bytes of each language from each source."""
    found: dict[str, Counter[str]] = {}
    for name, of in record.items():
        for code, facts in of["languages"].items():
            found.setdefault(code, Counter())[name] = facts["bytes"]
    return found


def _languages(record: dict[str, Any]) -> list[str]:
    flores = {ours: name for name, ours in FLORES.items()}
    amounts = by_language(record)
    rows = ["| language | FLORES | script | kB | most from |", "|---|---|---|---|---|"]
    for code in sorted(amounts, key=lambda code: (-amounts[code].total(), code)):
        most = [name for name, _ in amounts[code].most_common(LARGEST)]
        script = record[most[0]]["languages"][code]["script"]
        size = amounts[code].total() / 1000
        rows.append(
            f"| {code} | {flores.get(code, '')} | {script} | {size:.0f} | {', '.join(most)} |"
        )
    return rows
