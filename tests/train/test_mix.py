"""What θ and tables are learned from is training text alone, in the shares of the training."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from blt.data.segments import MemorySegments
from blt.data.text import Source
from blt.train import Recipe
from blt.train.build import learned_tokenizer, model_of
from blt.train.corpus import open_text
from blt.train.mix import training_sample
from blt.train.opening import open_run
from blt.train.parallel import start
from blt.train.sections import DataConfig


def source(letter: str, size: int, documents: int = 5) -> Source:
    texts = [f"{letter}{number:04}".encode() * (size // 25) for number in range(documents)]
    return Source(letter, MemorySegments(texts, 64), [b"held out"], {})


def letters(pieces: list[bytes]) -> Counter[str]:
    return Counter({chr(piece[0]): 0 for piece in pieces}) + Counter(
        "".join(chr(byte) for piece in pieces for byte in piece if chr(byte) in "ab")
    )


def test_each_source_has_the_share_that_training_gives_it() -> None:
    both = [source("a", 50_000), source("b", 5_000)]
    found = training_sample(both, [1.0, 3.0], 20_000, 64)
    assert sum(map(len, found)) == 20_000
    counts = letters(found)  # b is repeated: there is less of it than its share
    assert counts["b"] / counts["a"] == pytest.approx(3, rel=0.02)
    counts = letters(training_sample(both, [], 20_000, 64))
    assert counts["a"] / counts["b"] == pytest.approx(10, rel=0.05)


def test_a_sample_is_from_all_documents_and_no_larger_than_the_text() -> None:
    found = training_sample([source("a", 5_000)], [], 1_000, 50)
    assert {piece[:5] for piece in found} == {f"a{number:04}".encode() for number in range(5)}
    found = training_sample([source("a", 5_000)], [], 10**9, 50)
    assert sum(map(len, found)) == 5_000


def test_the_order_of_documents_does_not_matter() -> None:
    texts = [bytes(random.Random(number).randbytes(300)) for number in range(9)]
    orders = (texts, texts[::-1])
    first, second = (
        training_sample([Source("", MemorySegments(order, 64), [], {})], [], 900, 64)
        for order in orders
    )
    assert first == second


def test_bpe_learns_from_each_source_by_its_weight() -> None:
    texts = [[b"aa bb " * 4000], [b"xx yy " * 400]]
    sources = [Source("", MemorySegments(text, 64), [], {}) for text in texts]
    for weights, first in (([1.0, 9.0], {b"xx", b"yy"}), ([9.0, 1.0], {b"aa", b"bb"})):
        data = DataConfig(sources=["", ""], weights=weights)
        merged = learned_tokenizer(sources, data, 258).written()[256:]
        assert {token.strip() for token in merged} == first


def test_a_table_never_sees_held_out_text(tmp_path: Path, lookup_recipe: Recipe) -> None:
    """Whatever is held out, the table is the same; another training text makes another one."""

    def table(heldout: bytes, trained: bytes = b"") -> list[bool]:
        sources = open_text(lookup_recipe)
        changed = [
            replace(
                one,
                heldout=[heldout],
                train=MemorySegments([*one.sample(10**6), *filter(None, [trained])], 100),
            )
            for one in sources
        ]
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        run = open_run(folder, lookup_recipe, resume=False, parallel=start("cpu"))
        model = model_of(lookup_recipe, run, changed, None)
        found: list[bool] = model.lookup_table.tolist()  # type: ignore[union-attr]
        return found

    known = table(b"zq" * 500)
    assert known == table(bytes(range(256)) * 4)
    assert known != table(b"", bytes(range(256)) * 40)
