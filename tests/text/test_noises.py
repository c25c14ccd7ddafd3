"""A noise writes what its definition says, and knows which bytes it left as they were."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.texts.noises import ALIKE, DROPPED, NOISES, PAPER, REPEATED, Noised, noised

BYTES = st.binary(max_size=80) | st.text(max_size=40).map(str.encode)
ASCII = st.text(st.characters(codec="ascii"), max_size=80).map(str.encode)
SEEDS = st.integers(0, 1000)
PLAIN: dict[str, Callable[[str, random.Random], str]] = {
    "AntSpeak": lambda text, _: " ".join(text.upper()),
    "Drop": lambda text, r: "".join(c for c in text if r.random() >= DROPPED),
    "RandomCase": lambda text, r: "".join(
        c.upper() if r.random() < 0.5 else c.lower() for c in text
    ),
    "Repeat": lambda text, r: "".join(
        c * r.randint(2, 4) if r.random() < REPEATED else c for c in text
    ),
    "UpperCase": lambda text, _: text.upper(),
}


def made(text: bytes, name: str, seed: int) -> Noised:
    found = noised(text, NOISES[name], random.Random(seed))
    assert len(found.clean) == len(found.data)
    return found


def left(found: Noised) -> bytes:
    """Without the bytes that are marked."""
    return bytes(b for b, clean in zip(found.data, found.clean, strict=True) if clean)


@pytest.mark.parametrize("name", PAPER)
@given(BYTES, SEEDS)
def test_the_papers_noises_write_what_their_definitions_write(
    name: str, text: bytes, seed: int
) -> None:
    plain = PLAIN[name](text.decode(errors="surrogateescape"), random.Random(seed))
    assert made(text, name, seed).data == plain.encode(errors="surrogateescape")


@pytest.mark.parametrize("name", NOISES)
@given(BYTES, SEEDS)
def test_what_a_noise_left_stands_in_the_clean_text_in_this_order(
    name: str, text: bytes, seed: int
) -> None:
    rest = iter(text)
    assert all(byte in rest for byte in left(made(text, name, seed)))


@given(BYTES, SEEDS)
def test_repeat_marks_copies_and_drop_nothing(text: bytes, seed: int) -> None:
    assert left(made(text, "Repeat", seed)) == text
    assert made(text, "Drop", seed).clean.all()


@pytest.mark.parametrize("name", ["RandomCase", "UpperCase", "Keyboard", "Swap"])
@given(ASCII, SEEDS)
def test_what_changes_in_its_place_is_marked_and_nothing_else(
    name: str, text: bytes, seed: int
) -> None:
    found = made(text, name, seed)
    assert len(found.data) == len(text)
    assert [a == b for a, b in zip(text, found.data, strict=True)] == found.clean.tolist()


@given(ASCII)
def test_ant_speak_marks_its_spaces_and_what_was_lower_case(text: bytes) -> None:
    found = made(text, "AntSpeak", 0)
    assert not found.clean[1::2].any()
    assert [bool(clean) for clean in found.clean[::2]] == [c == c.upper() for c in text.decode()]


@given(st.lists(st.sampled_from([*ALIKE, "x"]), max_size=20), SEEDS)
def test_ocr_marks_whole_shapes(shapes: list[str], seed: int) -> None:
    text = "|".join(shapes)
    found = made(text.encode(), "OCR", seed)
    for before, after in zip(text.split("|"), _split(found), strict=True):
        data, clean = after
        if data == before:
            assert all(clean)
        elif before in ALIKE and data == ALIKE[before]:
            assert not any(clean)


def _split(found: Noised) -> list[tuple[str, list[bool]]]:
    parts, at = [], 0
    for part in found.data.decode().split("|"):
        parts.append((part, found.clean[at : at + len(part)].tolist()))
        at += len(part) + 1
    return parts


@pytest.mark.parametrize("name", NOISES)
@given(st.text(max_size=40), SEEDS)
def test_a_character_is_marked_whole(name: str, text: str, seed: int) -> None:
    found = made(text.encode(), name, seed)
    at = 0
    for character in found.data.decode():
        size = len(character.encode())
        assert len(set(found.clean[at : at + size].tolist())) == 1
        at += size
