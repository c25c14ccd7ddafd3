"""What is left of a string is plain running text in its language."""

from __future__ import annotations

import pytest

from tools.texts.clean import Cleaner, fault, foreign, lines, main_script
from tools.texts.languages import FLORES, language, script


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Hi <b>you</b>,\n  &lt;ok&gt;", ["Hi you, <ok>"]),
        ("&File", ["File"]),
        ("文件(&F)", ["文件"]),
        ("Tom & Ada {name} %s", ["Tom & Ada {name} %s"]),
        ("{n, plural, =1 {One {what}} other {# of {what}}}", ["One #", "# of #"]),
        ("  ", []),
    ],
)
def test_lines_of_a_string(text: str, plain: list[str]) -> None:
    assert list(lines(text)) == plain


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("Short.", "short"),
        ("ሰላም ለዓለም ሁሉ", None),
        ("https://example.org/a/b/c/d/e", "a name or an address"),
        ("%(a)s %(b)s %(c)d, %(d)s! 12:34:56 78", "mostly not letters"),
        ("Text with a \ufffd in the middle", "unreadable"),
        ("नमस्ते दुनिया, कैसी हो", None),
        ("Quite a plain sentence, isn't it?", None),
    ],
)
def test_why_a_line_is_left_out(line: str, why: str | None) -> None:
    assert fault(line) == why


def test_lines_in_the_letters_of_another_script() -> None:
    assert main_script(["abc", "опять двадцать пять"]) == "Cyrillic"
    assert foreign("Just English", "Cyrillic")
    assert not foreign("Открыть Visual", "Cyrillic")
    assert foreign("Опять двадцать пять", "Latin")
    assert not foreign("Für Élise, tiếng Việt", "Latin")
    assert script("é") == "Latin"
    assert script("1") is None


def test_untranslated_and_repeated_lines_are_left_out_and_counted() -> None:
    cleaner = Cleaner()
    cleaner.begin(["Please choose a <i>file</i> first"])
    german = ["Bitte wählen Sie eine Datei", "Please choose a file first", "Datei"]
    assert cleaner.clean("de", german) == german[:1]
    cleaner.keep("de", german[:1])
    assert cleaner.clean("de", german) == []
    assert cleaner.clean("en", ["Please choose a file first"]) == ["Please choose a file first"]
    assert cleaner.left_out == {"short": 2, "untranslated": 2, "repeated": 1}


@pytest.mark.parametrize(
    ("tag", "code"),
    [
        ("pt_BR", "pt"),
        ("zh_TW", "zh-Hant"),
        ("zh-hans", "zh"),
        ("sr@latin", "sr-Latn"),
        ("sr-Cyrl", "sr"),
        ("iw", "he"),
        ("es-419", "es"),
        ("hi-Latn", "hi-Latn"),
        ("HE", "he"),
        ("en-XA", None),
        ("und", None),
    ],
)
def test_tags_of_languages(tag: str, code: str | None) -> None:
    assert language(tag) == code


def test_flores_languages_have_our_tags() -> None:
    assert len(FLORES) == 38
    assert all(language(code) == code for code in FLORES.values())
