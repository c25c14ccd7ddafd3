"""A fair table gives every script its share of the patches, and cuts no character."""

from __future__ import annotations

import random
import unicodedata
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.patching import Patcher, PatchingConfig
from blt.patching.calibration import learn_lookup_table
from blt.patching.counts import count_entropies
from blt.patching.fairness import LEAST, fair_table
from blt.patching.scripts import (
    BROKEN,
    INSIDE,
    LATIN,
    NONE,
    OPEN,
    characters_of,
    ends_of,
    script_numbers,
    states_of,
)
from blt.patching.tables import lookup_key

WORDS = ["the", "cat", "sat", "on", "mat", "rat", "and", "that", "ate", "hat", "on", "the", "the"]
CIPHERS = {"Latin": 0x61, "Cyrillic": 0x430, "Georgian": 0x10D0}  # letters a.. of each


def sentences(count: int, first: int, seed: int = 0) -> bytes:
    """The same sentences for each seed, in letters from ``first`` on."""
    chance = random.Random(seed)
    text = " ".join(chance.choice(WORDS) for _ in range(count))
    letters = {0x61 + n: first + n for n in range(26)}
    return text.translate(letters).encode()


def fair(order: int, longest: int | None = None) -> PatchingConfig:
    return PatchingConfig("lookup", lookup_order=order, fair_scripts=True, max_patch_length=longest)


def learned(texts: list[bytes], order: int, target: float = 4.0) -> Patcher:
    config, table = learn_lookup_table(None, texts, target, fair(order), sample_bytes=None)
    return Patcher(config, table=table)


@given(st.text(max_size=20), st.integers(1, 4))
def test_what_ends_with_a_byte_is_what_utf8_says(text: str, seen: int) -> None:
    data = np.array([-1] * 4 + list(text.encode("utf-8", "surrogatepass")), dtype=np.int64)
    last = [data[4 - back : len(data) - back] for back in range(seen - 1, -1, -1)]
    ends = ends_of(last)
    at = 0
    for character in text:
        size = len(character.encode("utf-8", "surrogatepass"))
        codes, states = ends.code[at : at + size], ends.state[at : at + size]
        assert (codes[:-1] == -1).all()
        assert codes[-1] == (ord(character) if size <= seen else -1)
        assert states[-1] == OPEN
        assert (states[: min(seen, size - 1)] == INSIDE).all()  # as far as its first byte is seen
        at += size


@given(st.binary(max_size=40))
def test_scripts_are_those_of_the_last_letter(data: bytes) -> None:
    codes, found = characters_of(blt.encode(data))
    assert len(found) == len(codes) == len(data) + 1
    assert found[0] == LATIN
    text = "abc, где 12 ди. カナ!"
    expected = [
        {"L": LATIN, "C": script_numbers()[ord("г")], "K": script_numbers()[ord("カ")]}[letter]
        for letter, size in zip("LLLLLCCCCCCCCCCCKKK", [len(c.encode()) for c in text], strict=True)
        for _ in range(size)
    ]
    known = characters_of(blt.encode(text))[1][1:]
    ends = np.cumsum([len(c.encode()) for c in text]) - 1
    assert known[ends].tolist() == np.array(expected)[ends].tolist()


def test_scripts_have_numbers_of_their_own() -> None:
    numbers = script_numbers()
    assert 100 < numbers.max() < 255
    for one, other in (("a", "é"), ("и", "Ж"), ("か", "ん"), ("字", "文"), ("あ", "い")):
        assert numbers[ord(one)] == numbers[ord(other)] != NONE, unicodedata.name(one)
    assert len({int(numbers[ord(letter)]) for letter in "aиかカ字אبकത"}) == 9
    assert not any(numbers[ord(mark)] for mark in " .,;0١。\u0301\n")


@pytest.mark.parametrize("order", [2, 3])
def test_contexts_know_where_characters_end(order: int) -> None:
    states = states_of(order)
    assert len(states) == 260**order

    def at(data: bytes) -> int:
        return int(states[int(lookup_key(blt.encode(data), order)[-1])])

    assert at(b"xx.") == at(b"") == at("xд".encode()) == at("字".encode()) == OPEN
    assert at("x字".encode()[:-1]) == at("xд".encode()[:-1]) == INSIDE
    assert at(b"x\xe4\xe4") == at(b"x\xd0.") == BROKEN


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("script", ["Cyrillic", "Georgian"])
def test_the_same_sentences_are_as_many_patches_in_every_script(order: int, script: str) -> None:
    """The other script has a tenth of the text, and letters of two or three bytes."""
    first = CIPHERS[script]
    texts = [sentences(4000, 0x61), sentences(400, first, seed=1)]
    patcher = learned(texts, order)
    same = [len(patcher.cut(sentences(300, code, seed=2)).lengths) for code in (0x61, first)]
    assert same[1] / same[0] == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("order", [2, 3])
def test_no_patch_ends_within_a_character_and_broken_text_is_cut(order: int) -> None:
    texts = [sentences(2000, 0x61), sentences(400, 0x430), "字文日本語の".encode() * 100]
    patcher = learned(texts, order)
    for text in (*texts, sentences(200, 0x10D0)):
        for patch in patcher.cut(text).patches:
            patch.decode()
    assert max(patcher.cut(b"\xe4" * 500).lengths) <= 2
    assert max(patcher.cut(b"a\xd0" * 500).lengths) <= 4


@pytest.mark.parametrize("longest", [None, 6])
def test_the_size_that_was_asked_for_is_reached(longest: int | None) -> None:
    chance = random.Random(0)
    texts = [
        "".join(chance.choice([" ", *map(chr, range(first, first + 26))]) for _ in range(3000))
        for first in CIPHERS.values()
    ]
    data = [text.encode() for text in texts]
    for target in (3.0, 4.5):
        config, table = learn_lookup_table(None, data, target, fair(2, longest))
        size = Patcher(config, table=table).mean_patch_size(data)
        assert size == pytest.approx(target, rel=0.05)


def test_a_script_without_text_ends_a_patch_after_each_kth_kind_of_character() -> None:
    patcher = learned([sentences(4000, 0x61)], 3, target=4.0)
    text = "".join(chr(code) for code in range(0x10D0, 0x10F0)).encode()  # 32 letters, once each
    assert Counter(patcher.cut(text).lengths)[12] >= 6  # 4 letters of 3 bytes
    assert len(sentences(20, 0x10D0)) < LEAST


def test_the_order_of_documents_changes_no_fair_table() -> None:
    texts = [sentences(300, first, seed) for first in CIPHERS.values() for seed in range(3)]
    assert torch.equal(table_of(texts), table_of(texts[::-1]))


def table_of(texts: list[bytes]) -> torch.Tensor:
    ids = [blt.encode(text) for text in texts]
    return fair_table(count_entropies(ids, 2), ids, 4.0)


def test_what_cannot_be_fair_is_said() -> None:
    with pytest.raises(UserError, match="knows no scripts"):
        fair(1)
    with pytest.raises(UserError, match="no bytes"):
        learned([b""], 2)
    with pytest.raises(UserError, match="at least 1"):
        learned([b"abc"], 2, target=0.5)
