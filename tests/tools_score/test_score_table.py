"""The table of scores has a row a kind, columns a model, and rows that sum up the languages."""

from __future__ import annotations

from typing import Any

from tools.score_table import table


def _line(model: str, kind: str, bits: float, patches: float | None = None) -> dict[str, Any]:
    return {
        "model": model,
        "sha256": f"hash of {model}",
        "rule": "entropy",
        "kind": kind,
        "bits_per_byte": bits,
        "low": None if bits < 1 else bits - 0.5,
        "high": None if bits < 1 else bits + 0.5,
        "bytes_per_patch": 4.0 if patches is None else 100 / patches,
        "patches_per_sentence": patches,
    }


def test_models_stand_side_by_side_and_languages_last() -> None:
    lines = [
        _line("one", "FLORES b", 2.0, 20.0),
        _line("one", "FLORES a", 4.0, 50.0),
        _line("one", "PEPs", 9.0),
        _line("two", "FLORES a", 1.0, 40.0),
        _line("two", "FLORES b", 3.0, 10.0),
        _line("two", "CSV", 0.5),
        _line("one", "PEPs", 1.25),
    ]
    assert table(lines).splitlines() == [
        "| text | one, bits per byte | bytes per patch | two, bits per byte | bytes per patch |",
        "|---|---|---|---|---|",
        "| PEPs | 1.250 [0.750, 1.750] | 4.00 | – | – |",
        "| CSV | – | – | 0.500 | 4.00 |",
        "| FLORES a | 4.000 [3.500, 4.500] | 2.00 | 1.000 [0.500, 1.500] | 2.50 |",
        "| FLORES b | 2.000 [1.500, 2.500] | 5.00 | 3.000 [2.500, 3.500] | 10.00 |",
        "| mean of 2 languages | 3.000 | 3.50 | 2.000 | 6.25 |",
        "| worst language | 4.000 (a) | 2.00 (a) | 3.000 (b) | 2.50 (a) |",
        "| patches of a sentence, most over fewest |  | 2.5 (a / b) |  | 4.0 (a / b) |",
    ]


def test_other_weights_under_the_same_label_are_another_model() -> None:
    lines = [_line("one", "PEPs", 2.0), {**_line("one", "PEPs", 3.0), "sha256": "0123456789"}]
    head, _, row = table(lines).splitlines()
    assert "one (hash of , entropy), bits" in head
    assert "one (01234567, entropy), bits" in head
    assert "2.000" in row
    assert "3.000" in row
