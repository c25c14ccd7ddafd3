"""The bits of a noise's own choices are those of its probabilities, all of which add up to one."""

from __future__ import annotations

import gzip
import itertools
import math
import random
from functools import partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import blt
from blt.errors import UserError
from blt.evals import robustness
from blt.evals.channels import chosen_bits
from blt.evals.noise import HELD_OUT, PAPER, TIMES, Noise, channel_bits, disturb
from blt.evals.rows import Options
from blt.evals.typos import misspelt, typos
from blt.texts.noises import DROPPED, Choices, keyboard, ocr, swap
from shapes import TINY
from texts import MULTILINGUAL

ALL = {**PAPER, **HELD_OUT}
WRONG = {"the": ("teh", "hte"), "and": ("adn",)}
few = st.text("abl", max_size=5)  # with runs, and with several ways to write the same


def outcomes(choices: Choices, text: str, at: int = 0) -> dict[str, float]:
    """Everything that may be written from a place on, with its probability."""
    if at == len(text):
        return {"": 1.0}
    found: dict[str, float] = {}
    for taken, out, share in choices(text, at):
        for rest, probability in outcomes(choices, text, at + taken).items():
            found[out + rest] = found.get(out + rest, 0.0) + share * probability
    return found


@given(few)
def test_what_drop_may_leave_adds_up_to_one(text: str) -> None:
    sums: dict[str, float] = {}
    for kept in itertools.product([0, 1], repeat=len(text)):
        left = "".join(itertools.compress(text, kept))
        share = math.prod(1 - DROPPED if keep else DROPPED for keep in kept)
        sums[left] = sums.get(left, 0.0) + share
    for noisy, share in sums.items():
        found = channel_bits(text.encode(), noisy.encode(), "Drop")
        assert 2**-found == pytest.approx(share)


@given(st.text("ab", max_size=4))
def test_what_repeat_may_write_adds_up_to_one(text: str) -> None:
    sums: dict[str, float] = {}
    for times in itertools.product(range(1, 5), repeat=len(text)):
        noisy = "".join(c * n for c, n in zip(text, times, strict=True))
        sums[noisy] = sums.get(noisy, 0.0) + math.prod(TIMES[n - 1] for n in times)
    for noisy, share in sums.items():
        assert 2 ** -channel_bits(text.encode(), noisy.encode(), "Repeat") == pytest.approx(share)


def test_random_case_has_a_bit_for_each_letter() -> None:
    text = "Straße 12, déjà!".encode()
    assert channel_bits(text, disturb(text, "RandomCase"), "RandomCase") == 10
    for name in ("AntSpeak", "UpperCase"):
        assert channel_bits(text, disturb(text, name), name) == 0


@pytest.mark.parametrize("choices", [keyboard, swap, ocr, partial(misspelt, WRONG)])
@given(text=st.sampled_from(["aab", "The and", "rnm", "lol0", "ab ba"]))
@settings(max_examples=5)
def test_what_a_noise_of_choices_may_write_adds_up_to_one(choices: Choices, text: str) -> None:
    found = outcomes(choices, text)
    assert sum(found.values()) == pytest.approx(1)
    for noisy, share in itertools.islice(found.items(), 200):
        assert 2 ** -chosen_bits(choices, text, noisy) == pytest.approx(share)


def test_bytes_that_a_noise_brings_together_may_be_a_character() -> None:
    assert 2 ** -channel_bits(b"\xe1\x80", b"\xe1\x80\x80", "Repeat") == pytest.approx(
        TIMES[0] * TIMES[1]
    )
    assert 2 ** -channel_bits(b"\xc3a\xa9", b"\xc3\xa9", "Drop") == pytest.approx(
        DROPPED * (1 - DROPPED) ** 2
    )


@given(st.binary(max_size=60), st.sampled_from(sorted(ALL)), st.integers(0, 99))
@example(data=b"\xe1\x80" * 20, name="Repeat", seed=0)
def test_every_noise_knows_the_bits_of_what_it_wrote(data: bytes, name: str, seed: int) -> None:
    noisy = disturb(data, name, seed)
    assert 0 <= channel_bits(data, noisy, name) < math.inf
    assert ALL[name].random or channel_bits(data, noisy, name) == 0


@pytest.mark.parametrize("name", ["Drop", "Repeat", "Keyboard", "OCR", "Swap"])
def test_a_text_that_a_noise_cannot_have_written_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="does not make"):
        channel_bits(b"some text", b"another!", name)


def test_bits_of_long_texts_are_near_the_entropy() -> None:
    text = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=5_000))
    repeated = -sum(share * math.log2(share) for share in TIMES)
    left = disturb(text.encode(), "Drop")
    gaps = len(text) - len(left)
    choices = -(gaps * math.log2(0.1) + len(left) * math.log2(0.9))
    drop = channel_bits(text.encode(), left, "Drop")
    assert 0.9 * choices < drop < choices  # which cannot always be told apart
    again = disturb(text.encode(), "Repeat")
    assert channel_bits(text.encode(), again, "Repeat") / len(text) == pytest.approx(
        repeated, rel=0.05
    )


def test_typos_are_those_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "list.txt.gz"
    lines = "teh->the\nhte->the\nadn->and, end,\nalot->a lot\nclas->class, a remark\nyof of 1\n"
    path.write_bytes(gzip.compress((lines + "gutenberg gutenberg 0\nthe end of 3\n").encode()))
    noise = typos(path)
    text = b"The end, and AND the end of Class 2.\xff" * 50
    noisy = disturb(text, noise, 1)
    assert noisy == disturb(text, noise, 1)
    words = set(noisy.replace(b"\xff", b" ").replace(b",", b"").split())
    assert {b"Teh", b"Hte", b"adn", b"ADN", b"yof", b"Clas"} <= words
    assert words <= {b"Teh", b"Hte", b"The", b"teh", b"hte", b"the", b"end", b"adn", b"and",
                     b"ADN", b"AND", b"of", b"yof", b"Class", b"Clas", b"2."}  # fmt: skip
    assert channel_bits(text, noisy, noise) > 0
    path.write_bytes(gzip.compress(b"teh->the\nno entry\n"))
    with pytest.raises(UserError, match=r"list\.txt\.gz:2: neither"):
        typos(path)


@given(st.binary(max_size=300))
def test_a_piece_is_halved_before_a_space_or_a_character(piece: bytes) -> None:
    first, rest = robustness.halves(piece)
    assert first + rest == piece
    assert len(first) <= len(piece) // 2
    assert robustness.halves("日本語日本語".encode()) == ("日本語".encode(), "日本語".encode())
    assert robustness.halves(b"one two three") == (b"one", b" two three")
    indented = b'{\n    "key": 1,\n    "other": 2\n}'  # tokens have the whole white space
    assert robustness.halves(indented) == (b'{\n    "key": 1,', b'\n    "other": 2\n}')


def test_bits_are_those_of_clean_bytes_above_the_noises_own() -> None:
    lm = blt.ByteLM(TINY).eval()
    pieces = [MULTILINGUAL[:200], MULTILINGUAL[200:500]]
    found = list(robustness.rows(lm, pieces, [0, 0], Options()))
    rows = {(m.row["noise"], m.row["in"]): m.row for m in found}
    clean = sum(lm.bits_per_byte(piece) * len(piece) for piece in pieces)
    upper = [piece.decode(errors="surrogateescape").upper() for piece in pieces]
    texts = [text.encode(errors="surrogateescape") for text in upper]
    bits = sum(lm.bits_per_byte(text) * len(text) for text in texts)
    row = rows["UpperCase", robustness.WHOLE]
    assert row["bits_per_byte"] == pytest.approx(bits / 500, rel=1e-4)
    assert row["more_bits"] == pytest.approx((bits - clean) / 500, abs=1e-3)
    row = rows["RandomCase", robustness.WHOLE]
    cased = [
        c for piece in pieces for c in piece.decode(errors="replace") if c.lower() != c.upper()
    ]
    assert row["noise_bits"] == pytest.approx(len(cased) / 500)
    assert row["above_noise"] == pytest.approx(row["bits_per_byte"] - row["noise_bits"])
    assert row["seeds_sd"] > 0
    parts = [robustness.halves(piece) for piece in pieces]
    context = sum(
        lm.bits_per_byte(a + b) * len(a + b) - lm.bits_per_byte(a) * len(a) for a, b in parts
    )
    size = sum(len(rest) for _, rest in parts)
    assert rows["none", robustness.CONTEXT]["bits_per_byte"] == pytest.approx(
        context / size, rel=1e-4
    )
    mean = rows["mean of 5", robustness.WHOLE]
    five = [rows[name, robustness.WHOLE]["more_bits"] for name in PAPER]
    assert mean["more_bits"] == pytest.approx(sum(five) / 5)


def test_a_noise_that_changes_nothing_costs_nothing() -> None:
    lm = blt.ByteLM(TINY).eval()
    text = robustness.Text([b"a text of some bytes"] * 2, [0, 0], [(b"a", b" b")] * 2, [], [])
    nothing = Noise(lambda text, _: [(text, True)], lambda _, __: 0.0, random=False)
    bits = [lm.bits_per_byte(piece) * len(piece) for piece in text.pieces]
    rest = robustness._after(lm, text.halves, Options())
    same = robustness.Text(text.pieces, text.strata, text.halves, bits, rest)
    for one in robustness._both(lm, "Nothing", "test", nothing, same, Options()):
        assert one.row["more_bits"] == pytest.approx(0, abs=1e-4)
