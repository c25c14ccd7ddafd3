"""From a translated string to a line of plain text, or to the reason why it is left out."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Iterator

from tools.texts.languages import scripts

LEAST = 24  # bytes: eight Devanagari or Han characters, four English words
LETTERS = 0.6  # of a line's characters, spaces and marks counted as letters
SAMPLE = 2000  # strings that tell the script of a language
START = 200  # characters that tell the script of a line

TAG = re.compile(r"</?[a-zA-Z][^<>]*>|<!--.*?-->", re.DOTALL)
SELECTS = re.compile(r",\s*(?:plural|select|selectordinal)\s*,")
NAME = re.compile(r"\{\s*[\w.#]+\s*\}")  # a placeholder; what is left in braces are variants
VARIANT = re.compile(r"\{([^{}]*)\}")
KEY = re.compile(r"\s?\(&\w\)|&(?=\w)")  # the key that chooses a menu's entry: "(&F)", "&File"
NOISE = re.compile("[^\\w\\s\u0300-\U0010ffff]|[0-9_]")  # ASCII and Latin signs, digits
LETTER = re.compile(r"[^\W\d_]")
LATIN = re.compile("[A-Za-z\u00c0-\u024f\u1e00-\u1eff]")
UNREADABLE = re.compile("\ufffd|[\ue000-\uf8ff]|crwdns")  # private characters; Crowdin's marks


def lines(text: str) -> Iterator[str]:
    """Plain lines of one string: without markup, and each variant of a plural by itself."""
    text = html.unescape(TAG.sub("", text) if "<" in text else text)
    variants = VARIANT.findall(NAME.sub("#", text)) if SELECTS.search(text) else [text]
    for variant in variants:
        if line := " ".join((KEY.sub("", variant) if "&" in variant else variant).split()):
            yield line


def fault(line: str) -> str | None:
    """Why a line is no text, if so."""
    if len(line.encode(errors="replace")) < LEAST:
        return "short"
    if UNREADABLE.search(line):
        return "unreadable"
    if line.isascii() and " " not in line:
        return "a name or an address"
    wordy = len(line) - len(NOISE.findall(line))
    return None if wordy >= LETTERS * len(line) else "mostly not letters"


def main_script(texts: Iterable[str]) -> str:
    """The script that most letters are of."""
    counts = scripts(texts)
    return max(sorted(counts), key=counts.__getitem__) if counts else "None"


def foreign(line: str, main: str) -> bool:
    """Is most of a line in Latin letters where ``main`` is another script, or the reverse?"""
    line = line[:START]
    latin = 1.0 if line.isascii() else len(LATIN.findall(line)) / max(1, len(LETTER.findall(line)))
    return latin < 0.5 if main == "Latin" else latin > 0.5


class Cleaner:
    """Cleans the strings of one language after another; counts what is left out, and why."""

    def __init__(self) -> None:
        self.english: set[str] = set()  # of the package: what lines of other languages may not be
        self.seen: dict[str, set[str]] = {}  # language → lines that were kept
        self.left_out: Counter[str] = Counter()

    def begin(self, english: Iterable[str]) -> None:
        """Begin with another package, whose English may stand untranslated."""
        self.english = {line for text in english for line in lines(text)}
        self.left_out = Counter()

    def keep(self, language: str, kept: Iterable[str]) -> None:
        """Take note of lines that are there now."""
        self.seen.setdefault(language, set()).update(kept)

    def clean(self, language: str, strings: Iterable[str]) -> list[str]:
        """Lines worth keeping, none that is there or twice, in order."""
        good = []
        for text in strings:
            for line in lines(text):
                if (reason := fault(line)) is not None:
                    self.left_out[reason] += 1
                elif language != "en" and line in self.english:
                    self.left_out["untranslated"] += 1
                else:
                    good.append(line)
        main = main_script(good[:SAMPLE])
        seen = self.seen.get(language, set())
        kept: dict[str, None] = {}
        for line in good:
            if foreign(line, main):
                self.left_out["in other letters"] += 1
            elif line in seen or line in kept:
                self.left_out["repeated"] += 1
            else:
                kept[line] = None
        return list(kept)
