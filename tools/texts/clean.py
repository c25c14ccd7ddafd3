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
    text = html.unescape(TAG.sub("", text))
    variants = VARIANT.findall(NAME.sub("#", text)) if SELECTS.search(text) else [text]
    for variant in variants:
        if line := " ".join(KEY.sub("", variant).split()):
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
    latin = 1.0 if line.isascii() else len(LATIN.findall(line)) / max(1, len(LETTER.findall(line)))
    return latin < 0.5 if main == "Latin" else latin > 0.5


class Cleaner:
    """Cleans the strings of one language after another; counts what is left out, and why.

    Args:
        english: what every other language's lines may not be; :meth:`learn` adds to it.
    """

    def __init__(self) -> None:
        self.english: set[str] = set()
        self.seen: dict[str, set[str]] = {}  # language → its lines so far
        self.left_out: Counter[str] = Counter()

    def learn(self, strings: Iterable[str]) -> None:
        """Take note of English that may stand untranslated."""
        self.english.update(line for text in strings for line in lines(text))

    def clean(self, language: str, strings: Iterable[str]) -> list[str]:
        """Lines worth keeping, each once in a language, in order."""
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
        seen, kept = self.seen.setdefault(language, set()), []
        for line in good:
            if foreign(line, main):
                self.left_out["in other letters"] += 1
            elif line in seen:
                self.left_out["repeated"] += 1
            else:
                seen.add(line)
                kept.append(line)
        return kept
