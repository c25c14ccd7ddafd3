"""Translated strings in the formats of many programs, with their language where a file says it.

A reader takes the content of a file and gives pairs of a language tag, or None for the one that the
file's name tells, and a string as it stands.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

from tools.texts import android
from tools.texts.novels import novels

Strings = Iterator[tuple[str | None, str]]

LITERAL = re.compile(r'"(?:[^"\\\n]|\\.)*"')
PARAGRAPH = re.compile(r"<(p|h[1-4]|li)\b[^>]*>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
LANGUAGE = re.compile(r'<html\b[^>]*\blang="([\w-]+)"')
VERSE = re.compile(r"<verse\b[^>]*>(.*?)</verse>", re.DOTALL)
NOTE = re.compile(r"<note\b.*?</note>", re.DOTALL)
POINTS = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4-\u05c7/]")  # vowels, accents; morphemes


def po(data: bytes) -> Strings:
    """Translations of a gettext catalogue, none fuzzy, and what they translate, as English."""
    for block in re.split(r"\n\s*\n", data.decode("utf-8", "replace").replace("\r\n", "\n")):
        if re.search(r"^#,.*\bfuzzy\b", block, re.MULTILINE):
            continue
        field = ""
        found: dict[str, str] = {}
        for line in block.splitlines():
            if match := re.match(r'(msg\w+(?:\[\d\])?)\s+(".*")\s*$', line):
                field = match[1]
                found[field] = _literal(match[2])
            elif field and line.startswith('"'):
                found[field] += _literal(line.strip())
        if found.get("msgid"):  # the first entry, without one, is the header
            yield from (("en", text) for key, text in found.items() if key.startswith("msgid"))
            yield from ((None, text) for key, text in found.items() if key.startswith("msgstr"))


def _literal(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:  # an escape that JSON has not
        return text[1:-1]


def json_values(data: bytes) -> Strings:
    """All strings in JSON; keys that begin with ``@`` or are empty hold no translations."""
    yield from ((None, text) for text in _walk(json.loads(data.decode("utf-8-sig"))))


def _walk(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key and not key.startswith("@"):
                yield from _walk(value)


def literals(data: bytes) -> Strings:
    """String literals in double quotes in JavaScript."""
    for match in LITERAL.finditer(data.decode("utf-8", "replace")):
        yield None, _literal(match[0])


def paragraphs(data: bytes) -> Strings:
    """Paragraphs, headings and items of HTML, in the language that it names."""
    text = data.decode("utf-8", "replace")
    named = LANGUAGE.search(text)
    yield from ((named[1] if named else None, match[2]) for match in PARAGRAPH.finditer(text))


def verses(data: bytes) -> Strings:
    """Verses of a Hebrew book in OSIS, without vowel points and accents, as is usual now."""
    for match in VERSE.finditer(data.decode("utf-8")):
        text = POINTS.sub("", NOTE.sub("", match[1])).replace("\u05be", "-")
        yield None, text.replace("\u05c3", ".").replace("\u05c0", "")


def annotations(data: bytes) -> Strings:
    """Names and keywords of characters in CLDR's JSON, a character's on a line."""
    for about in json.loads(data)["annotations"].get("annotations", {}).values():
        names = about.get("tts", [])
        keywords = [word for word in about.get("default", []) if word not in names]
        yield None, ": ".join(filter(None, (", ".join(names), ", ".join(keywords))))


def pak(data: bytes) -> Strings:
    """Strings of a Chromium locale, version 5, in UTF-8."""
    version, encoding, count = struct.unpack_from("<IB3xH", data)
    if (version, encoding) != (5, 1):
        raise ValueError(f"a pak file of version {version}, encoding {encoding}; 5 and 1 are known")
    table = [struct.unpack_from("<HI", data, 12 + 6 * index) for index in range(count + 1)]
    for (_, start), (_, end) in pairwise(table):
        yield None, data[start:end].decode("utf-8", "replace")


def whole(data: bytes) -> Strings:
    """A file as it stands."""
    yield None, data.decode("utf-8", "replace")


def apk(data: bytes) -> Strings:
    """Strings of an Android package."""
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        yield from android.strings(package.read("resources.arsc"))


READERS: dict[str, Callable[[bytes], Strings]] = {
    "po": po,
    "json": json_values,
    "literals": literals,
    "html": paragraphs,
    "osis": verses,
    "annotations": annotations,
    "pak": pak,
    "apk": apk,
    "whole": whole,
    "novels": novels,
}
