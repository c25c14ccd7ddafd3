"""Text that no model inside the package was trained on, by kind.

FLORES-200 devtest, books by other authors and other PEPs were never trained on. Of Python's source
and documentation, of logs and of JSON it is what recipes hold out: the share of those that hold out
least, :data:`FEWEST`, which is a part of what the others hold out; that it is one is checked. Logs
are two files, of each of which the end is held out. No CSV file is held out by its hash: the one
here is not packed, and recipes name packed ones.

Recipes before those with weights divide all their text at once, where the logs are a small part
and stay whole: an entropy model of these (up to commit bea6109) was trained on the logs, and on
none of the other text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blt.data import read, split
from blt.errors import UserError
from blt.evals.languages import read_languages
from tools.asked import wanted

FEWEST, MOST = 0.02, 0.05  # of documents, held out by the recipes of the models in the package
FLORES = "FLORES "  # and the language: how kinds of parallel text begin


@dataclass(frozen=True)
class Text:
    """Held-out text of one kind."""

    kind: str
    documents: list[bytes]
    sentences: list[bytes] | None = None  # the same in all languages


def texts(data: Path, only: Sequence[str] = ()) -> Iterator[Text]:
    """Held-out text of every kind.

    Args:
        data: the folder of corpora.
        only: kinds in whose name one of these is; none: all.

    Raises:
        UserError: text that is missing, shares that do not nest, or a word that is in no kind;
            names it.
    """
    sources: dict[str, Callable[[], list[bytes]]] = {
        "Python source and documentation": lambda: held_out("builtin:python"),
        "PEPs": lambda: _read(data / "train-en-peps/peps.valid.jsonl.gz"),
        "English books": lambda: _read(data / "valid-en-books/*.txt.gz"),
        "logs": lambda: held_out(str(data / "train-logs/*.log.gz")),
        "JSON": lambda: _json(data / "train-structured"),
        "CSV": lambda: _read(data / "train-structured/**/*.csv"),
    }
    languages = read_languages(data / "bench-flores200/devtest", None)
    kinds = wanted([*sources, *(FLORES + language for language in languages)], only)
    for kind in kinds:
        if kind in sources:
            yield Text(kind, sources[kind]())
        else:
            sentences = languages[kind.removeprefix(FLORES)]
            yield Text(kind, [b"\n".join(sentences)], sentences)


def held_out(source: str) -> list[bytes]:
    """What every recipe holds out of a source.

    Raises:
        UserError: what is held out at :data:`FEWEST` is not a part of that at :data:`MOST`.
    """
    documents = read((source,)).documents
    fewest, most = (split(documents, share).heldout for share in (FEWEST, MOST))
    if not all(any(more.endswith(one) for more in most) for one in fewest):
        raise UserError(f"{source}: some of what is held out at {FEWEST} is not at {MOST}")
    return fewest


def _json(folder: Path) -> list[bytes]:
    """What is held out of JSON and CSV, that of JSON: whole documents."""
    known = set(_read(folder / "**/*.json.gz"))
    found = [document for document in held_out(str(folder / "**/*.gz")) if document in known]
    if not found:
        raise UserError(f"{folder}: no JSON document is held out whole")
    return found


def _read(source: Path) -> list[bytes]:
    return read((source,)).documents
