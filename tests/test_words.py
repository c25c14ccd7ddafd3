"""`tools/words.py`: nobody can have learned the right words that are asked for."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from blt.data import SourceConfig, read
from blt.texts.marked import num_learned
from tools.words import HELD_OUT, PARTS, main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    g2p = tmp_path / "bench-g2p" / "low"
    g2p.mkdir(parents=True)
    for part in ("train", "dev", "test"):
        text = f"{part}\tt ɛ\nb\tb\n".encode()
        (g2p / f"wel_sw_{part}.tsv.gz").write_bytes(gzip.compress(text))
    typos = tmp_path / "noise-typos"
    typos.mkdir()
    right = [f"wo{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(20 * HELD_OUT)]
    lines = [f"{word[:-1]}x{end}->{word}" for word in right for end in "yz"]
    lines += ["kept->keept", "both->one, other,", "two words->twowords", "ab->ad"]
    (typos / "codespell_dictionary.txt.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    queries = b"kpet keept 1\nsame same 0\n"
    (typos / "symspell_noisy_query_en_1000.txt.gz").write_bytes(gzip.compress(queries))
    return tmp_path


def made(folder: Path) -> None:
    typos = folder / "noise-typos"
    given = {
        "--g2p": folder / "bench-g2p",
        "--typos": typos / "codespell_dictionary.txt.gz",
        "--queries": typos / "symspell_noisy_query_en_1000.txt.gz",
    }
    main([str(folder / "out"), *(str(word) for pair in given.items() for word in pair)])


def questions(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_parts_share_no_right_word_and_leave_out_what_is_ambiguous(folder: Path) -> None:
    made(folder)
    parts = {part: questions(folder / "out" / f"spelling.{part}.jsonl") for part in PARTS}
    rights = {part: {row["completion"] for row in found} for part, found in parts.items()}
    for one in PARTS:
        assert rights[one]
        assert all(not rights[one] & rights[other] for other in PARTS if other != one)
    assert " keept" in rights["test"]  # asked for by SymSpell's queries, and nowhere else
    assert [row["prompt"] for row in parts["test"] if row["completion"] == " keept"] == ["kpet:"]
    assert not any(rights[part] & {" one", " other", " twowords", " same"} for part in PARTS)


def test_pronunciations_keep_their_parts_and_are_learned_as_answers(folder: Path) -> None:
    made(folder)
    for part in PARTS:
        path = folder / "out" / f"g2p.{part}.jsonl"
        first = questions(path)[0]
        assert first == {"kind": "wel_sw", "prompt": f"wel_sw {part}:", "completion": " t ɛ"}
        source = SourceConfig(str(path), prompt="prompt", completion="completion")
        text = read([source]).documents[0]
        assert text == f"wel_sw {part}: t ɛ".encode()
        assert num_learned(text) == len(" t ɛ".encode())
