"""Misspellings that people make, from a list of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from blt.errors import UserError
from blt.evals.lines import lines_of
from blt.evals.noise import Noise, chosen
from blt.texts.noises import Choice

MISSPELT = 0.3  # share of words with known misspellings that are misspelt
WORD = re.compile(r"[^\W\d_]+")


def typos(path: Path) -> Noise:
    """A noise that writes words as a list says that people misspell them.

    Lines of the list are ``wrong->right``, where several right words are told apart by commas and
    a comma ends the last of them, as codespell has it; or ``wrong right count``, as SymSpell has
    it.

    Raises:
        UserError: unreadable, a line of another kind (names it), or no misspelling at all.
    """
    wrong: defaultdict[str, set[str]] = defaultdict(set)
    for _, pairs in listed(path):
        for right, other in pairs:
            wrong[right].add(other)
    if not wrong:
        raise UserError(f"{path}: no misspelling of a single word in it")
    return chosen(partial(misspelt, {word: tuple(sorted(found)) for word, found in wrong.items()}))


def listed(path: Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Each line of a list that is not empty, and its right and wrong words.

    Raises:
        UserError: unreadable, or a line of another kind; names it.
    """
    for number, line in enumerate(lines_of(path), 1):
        if line.strip():
            yield line, _entries(line, f"{path}:{number}")


def _entries(line: str, where: str) -> list[tuple[str, str]]:
    """Right and wrong words of a line, in lower case; of single words that differ only."""
    other, arrow, rest = line.partition("->")
    if arrow:  # behind the last comma stands a remark
        rights = rest.split(",")[:-1] if "," in rest else [rest]
    else:
        parts = line.split()
        if len(parts) < 3 or not parts[-1].isdigit():
            raise UserError(f"{where}: neither 'wrong->right' nor 'wrong right count'")
        other, rights = parts[0], parts[1:2] if len(parts) == 3 else []
    pairs = [(right.strip().lower(), other.strip().lower()) for right in rights]
    return [(r, w) for r, w in pairs if r != w and WORD.fullmatch(r) and WORD.fullmatch(w)]


def misspelt(wrong: Mapping[str, tuple[str, ...]], text: str, at: int) -> list[Choice]:
    """A word, or one of its misspellings; other characters as they are."""
    word = WORD.match(text, at) if at == 0 or not WORD.match(text[at - 1]) else None
    if word is None:
        return [(1, text[at], 1.0)]
    others = wrong.get(word[0].lower(), ())
    if not others:
        return [(len(word[0]), word[0], 1.0)]
    share = MISSPELT / len(others)
    kept = (len(word[0]), word[0], 1 - MISSPELT)
    return [kept, *((len(word[0]), _cased(other, word[0]), share) for other in others)]


def _cased(word: str, like: str) -> str:
    """In the case of another word: all of it, its first letter, or none."""
    if len(like) > 1 and like.isupper():
        return word.upper()
    return word[0].upper() + word[1:] if like[0].isupper() else word
