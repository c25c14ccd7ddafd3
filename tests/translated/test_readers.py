"""Each format gives its strings, and nothing that was not translated."""

from __future__ import annotations

import io
import json
import struct
import zipfile

import pytest

from tools.texts import android, readers

PO = """msgid ""
msgstr "Content-Type: text/plain; charset=UTF-8\\n"

#: a.py:1
msgid "Open the \\"file\\""
msgstr ""
"Offne die "
"\\"Datei\\""

#, python-format, fuzzy
msgid "Guessed"
msgstr "Geraten"

msgid "%d day"
msgid_plural "%d days"
msgstr[0] "%d Tag"
msgstr[1] "%d Tage"

#~ msgid "Gone"
#~ msgstr "Weg"
"""


def test_a_gettext_catalogue_without_header_fuzzy_and_obsolete_entries() -> None:
    assert list(readers.po(PO.encode())) == [
        ("en", 'Open the "file"'),
        (None, 'Offne die "Datei"'),
        ("en", "%d day"),
        ("en", "%d days"),
        (None, "%d Tag"),
        (None, "%d Tage"),
    ]


def test_strings_of_json_at_any_depth_but_for_notes() -> None:
    data = {"@metadata": {"authors": ["Ana"]}, "": ["Copyright"], "a": {"b": ["ሰላም", 3]}, "c": "d"}
    assert list(readers.json_values(json.dumps(data).encode())) == [(None, "ሰላም"), (None, "d")]


def test_literals_of_javascript() -> None:
    code = 'Msg["KEY"] = "\\u0533 \\"a\\"";  // x\nvar b = "é\\n";'
    assert [text for _, text in readers.literals(code.encode())] == ["KEY", 'Գ "a"', "é\n"]


def test_paragraphs_of_html_in_the_language_that_it_names() -> None:
    page = (
        '<html dir="ltr" lang="kea"><h1>Un <b>dia</b></h1><P class="x">Dôs\nlinha</P><pre>no</pre>'
    )
    assert list(readers.paragraphs(page.encode())) == [
        ("kea", "Un <b>dia</b>"),
        ("kea", "Dôs\nlinha"),
    ]


def test_hebrew_verses_without_points_accents_and_notes() -> None:
    book = "<verse><w>בְּ/רֵאשִׁ֖ית</w> <w>עַל־פְּנֵ֣י</w><seg>׃</seg><note>x <w>y</w></note></verse>"
    expected = "<w>בראשית</w> <w>על-פני</w><seg>.</seg>"
    assert [text.replace("</", "<") for _, text in readers.verses(book.encode())] == [
        expected.replace("</", "<")  # a slash parts morphemes
    ]


def test_names_and_keywords_of_characters() -> None:
    about = {"👍": {"default": ["ok", "si"], "tts": ["si"]}, "x": {"tts": ["ics"]}}
    data = json.dumps({"annotations": {"annotations": about}}).encode()
    assert [text for _, text in readers.annotations(data)] == ["si: ok", "ics"]
    assert list(readers.annotations(b'{"annotations": {}}')) == []


def test_a_chromium_locale() -> None:
    texts = ["አዎ".encode(), b"no"]
    start = 12 + 6 * 3
    table = [(7, start), (9, start + len(texts[0])), (0, start + len(b"".join(texts)))]
    data = struct.pack("<IB3xHH", 5, 1, 2, 0) + b"".join(struct.pack("<HI", *of) for of in table)
    assert list(readers.pak(data + b"".join(texts))) == [(None, "አዎ"), (None, "no")]
    with pytest.raises(ValueError, match="version 4"):
        list(readers.pak(struct.pack("<IB3xHH", 4, 1, 0, 0)))


def _chunk(kind: int, header: bytes, body: bytes) -> bytes:
    return struct.pack("<HHI", kind, 8 + len(header), 8 + len(header) + len(body)) + header + body


def _table(pool: list[str], utf8: bool) -> bytes:
    packed, offsets = b"", []
    for text in pool:
        offsets.append(len(packed))
        raw = text.encode() if utf8 else text.encode("utf-16-le")
        size = bytes([len(text), len(raw)]) if utf8 else struct.pack("<H", len(text))
        packed += size + raw + b"\0\0"
    start = 28 + 4 * len(pool)
    head = struct.pack("<5I", len(pool), 0, 256 * utf8, start, 0)
    strings = _chunk(1, head, struct.pack(f"<{len(pool)}I", *offsets) + packed)
    config = bytearray(struct.pack("<I", 64) + bytes(60))
    config[8:10] = b"sr"
    config[36:40] = b"Latn"
    simple = struct.pack("<HHI", 8, 0, 0) + struct.pack("<HBBI", 8, 0, 3, 1)
    plural = struct.pack("<HHI", 16, 1, 0) + struct.pack("<II", 0, 2)
    plural += b"".join(struct.pack("<IHBBI", 0, 8, 0, kind, 0) for kind in (3, 16))  # a number too
    entries = struct.pack("<3I", 0, 0xFFFFFFFF, len(simple)) + simple + plural
    kind = _chunk(0x0201, struct.pack("<BBHII", 1, 0, 0, 3, 20 + 64 + 12) + bytes(config), entries)
    package = _chunk(0x0200, bytes(8), kind)
    return struct.pack("<HHII", 2, 12, 0, 1) + strings + package


@pytest.mark.parametrize("utf8", [True, False])
def test_an_android_resource_table(utf8: bool) -> None:
    table = _table(["Zdravo", "Laku noć"], utf8)
    expected = [("sr-Latn", "Laku noć"), ("sr-Latn", "Zdravo")]
    assert list(android.strings(table)) == expected
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as package:
        package.writestr("resources.arsc", table)
    assert list(readers.apk(file.getvalue())) == expected


@pytest.mark.parametrize(
    ("code", "tag"), [(b"\0\0\0\0", "en"), (b"zhTW", "zh-TW"), (b"\xad\x05\0\0", "fil")]
)
def test_languages_of_an_android_table(code: bytes, tag: str) -> None:
    assert android._language(bytes(8) + code + bytes(52)) == tag
