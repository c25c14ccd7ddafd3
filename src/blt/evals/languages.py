"""Parallel text: what does the same thing cost in each language?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blt.data.compressed import unpacked
from blt.errors import UserError, require
from blt.evals.patch_size import patch_size
from blt.evals.rows import Measured, Options, Row
from blt.lm import LanguageModel
from blt.scoring.bits import piece_bits
from blt.texts.pieces import segments

RATIO = "largest / smallest"  # the last row
REFERENCE = "en"  # the language whose file's name begins so is compared with


def read_languages(folder: Path, limit: int | None) -> dict[str, list[bytes]]:
    """Sentences of each language: one file per language, a sentence on each line.

    Raises:
        UserError: no such folder, no files, two of a language, different numbers of lines, or
            only empty ones.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: name a folder with one file per language")
    found = {}
    for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
        language = path.name.split(".")[0]
        if language in found:
            raise UserError(f"{path}: a second file for {language!r}; leave one of them")
        with unpacked(path) as file:
            found[language] = file.read().splitlines()
    counts = {name: len(lines) for name, lines in found.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        first = next(iter(counts.items()), ("", 0))
        odd = next((item for item in counts.items() if item[1] != first[1]), first)
        raise UserError(
            f"{folder}: not parallel: {first[0]!r} has {first[1]} lines, {odd[0]!r} has {odd[1]}"
        )
    chosen = {name: lines[:limit] for name, lines in found.items()}
    for name, lines in chosen.items():
        require(any(lines), f"{folder}: the first {len(lines)} lines of {name!r} are empty")
    return chosen


def measure(lm: LanguageModel, name: str, lines: list[bytes], options: Options) -> Measured:
    """The costs of one language's sentences, scored as one text."""
    text = b"\n".join(lines)
    pieces = segments([text], options.context_bytes)
    bits, sizes = piece_bits(lm, pieces, options.dtype(lm)), list(map(len, pieces))
    size = patch_size(lm, pieces, **options.scoring(lm))
    row: Row = {
        "language": name,
        "bytes": len(text),
        "bits_per_byte": sum(bits) / max(1, len(text)),
        "bytes_per_patch": size,
        "bits_per_sentence": sum(bits) / len(lines),
        "patches_per_sentence": None if size is None else len(text) / size / len(lines),
    }
    return Measured(row, "bits_per_byte", bits, sizes)


def compare(lm: LanguageModel, folder: Path, options: Options) -> Iterator[Measured]:
    """A row for each language, and the largest over the smallest of each column.

    ``patches_vs_english`` is how many patches (or tokens; bytes where there are neither) the same
    sentences are, relative to the language whose file begins with "en".
    """
    languages = read_languages(folder, options.limit)
    reference = next((name for name in languages if name.startswith(REFERENCE)), None)
    order = sorted(languages, key=lambda name: (name != reference, name))
    found: list[Row] = []
    base = 0.0
    for name in order:
        measured = measure(lm, name, languages[name], options)
        row = measured.row
        cost = row["patches_per_sentence"] or row["bytes"] / len(languages[name])
        base = base or cost
        row["patches_vs_english"] = None if reference is None else cost / base
        found.append(row)
        yield measured
    worst: Row = {"language": RATIO}
    for key in list(found[0])[1:]:
        values = [row[key] for row in found if row[key]]
        worst[key] = max(values) / min(values) if values else None
    yield Measured(worst, "bits_per_byte")
