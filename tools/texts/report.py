"""The record of a build as tables that a person reads.

python -m tools.texts.report data/texts/SOURCES.json
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tools.texts.languages import FLORES

LARGEST = 3  # sources that a language's row names


def markdown(record: dict[str, Any]) -> str:
    """What each source gave, each script has, and each language, with FLORES' languages marked."""
    return "\n".join([*_sources(record), "", *_scripts(record), "", *_languages(record), ""])


def _sources(record: dict[str, Any]) -> list[str]:
    total = max(1, sum(of["bytes"] for of in record.values()))
    rows = [
        "| source | licence | thanks to | languages | kB | share |",
        "|---|---|---|---|---|---|",
    ]
    for name, of in record.items():
        what = f"{name}: {of['package']} {of['version']} ({of['client']})"
        sizes = f"{of['bytes'] / 1000:.0f} | {of['bytes'] / total:.1%}"
        given = f"{of['licence']} | {of['attribution']} | {len(of['languages'])}"
        rows.append(f"| {what} | {given} | {sizes} |")
    return rows


def by_language(record: dict[str, Any]) -> dict[str, Counter[str]]:
    """Bytes of each language from each source."""
    found: dict[str, Counter[str]] = {}
    for name, of in record.items():
        for code, facts in of["languages"].items():
            found.setdefault(code, Counter())[name] = facts["bytes"]
    return found


def _scripts(record: dict[str, Any]) -> list[str]:
    sizes: Counter[str] = Counter()
    languages: dict[str, set[str]] = {}
    for of in record.values():
        for code, facts in of["languages"].items():
            sizes[facts["script"]] += facts["bytes"]
            languages.setdefault(facts["script"], set()).add(code)
    rows = ["| script of most letters | languages | kB |", "|---|---|---|"]
    for script, size in sizes.most_common():
        rows.append(f"| {script} | {len(languages[script])} | {size / 1000:.0f} |")
    return rows


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


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text())), end="")
