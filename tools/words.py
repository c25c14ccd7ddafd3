"""Questions about words, with their answers: how is it pronounced, how is it spelled?

    python -m tools.words data/words \\
        --g2p ../shared/data/bench-g2p \\
        --typos ../shared/data/noise-typos/codespell_dictionary.txt.gz \\
        --queries ../shared/data/noise-typos/symspell_noisy_query_en_1000.txt.gz

Reads task 1 of SIGMORPHON 2021 (21 languages; its own parts; github.com/sigmorphon/2021-task1),
codespell's dictionary (github.com/codespell-project/codespell) and SymSpell's noisy queries
(github.com/wolfgarbe/SymSpell, noisy_query_en_1000.txt), and writes JSON lines with the keys
``kind``, ``prompt``, ``completion``: ``g2p.train.jsonl``, ``g2p.dev.jsonl``, ``g2p.test.jsonl``,
and ``spelling.*.jsonl`` likewise.

Misspellings with several corrections are left out, and those that are no single words. All
misspellings of one right word lie in one part, by the hash of that word: nobody can have learned
it. What SymSpell's queries ask for is in no other part.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from blt.evals.phonemes import read_words
from blt.evals.typos import listed
from blt.files.durable import write_text
from tools.asked import bare, mistakes_end

PARTS = ("train", "dev", "test")
HELD_OUT = 20  # one right word of so many is in dev, and one in test


class Question(NamedTuple):
    """As in the files."""

    kind: str
    prompt: str
    completion: str

    @classmethod
    def of(cls, kind: str, asked: str, answer: str) -> Question:
        return cls(kind, f"{asked}:", f" {answer}")  # no token reaches from one into the other


def pronounced(folder: Path) -> Iterator[tuple[str, Question]]:
    """Words of every language, each asked for with its language, and the part each is in."""
    paths = sorted(folder.rglob("*.tsv*"))
    for path in paths:
        language, _, part = path.name.split(".")[0].rpartition("_")
        if part in PARTS:
            for word, sounds in read_words(path):
                yield part, Question.of(language, f"{language} {word}", sounds)


def misspelled(typos: Path, queries: Path) -> Iterator[tuple[str, Question]]:
    """Misspelt words, their corrections, and the part each is in."""
    asked = list(_pairs(queries))
    kept = {right for right, _ in asked}
    for right, wrong in asked:
        yield "test", Question.of("SymSpell's queries", wrong, right)
    for right, wrong in _pairs(typos):
        if right not in kept:
            yield _part(right), Question.of("codespell", wrong, right)


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Right and wrong words of lines that have one of each."""
    for line, pairs in listed(path):
        if len(pairs) == 1 and "," not in line:
            yield pairs[0]


def _part(right: str) -> str:
    number = int.from_bytes(blake2b(right.encode(), digest_size=8).digest()) % HELD_OUT
    return {0: "test", 1: "dev"}.get(number, "train")


def write(name: str, questions: Iterable[tuple[str, Question]], folder: Path) -> None:
    """A file for each part, and a line on what is in it."""
    parts: dict[str, list[Question]] = {part: [] for part in PARTS}
    for part, question in questions:
        parts[part].append(question)
    for part, found in parts.items():
        path = folder / f"{name}.{part}.jsonl"
        lines = (json.dumps(question._asdict(), ensure_ascii=False) for question in found)
        write_text(path, "".join(f"{line}\n" for line in lines))
        size = sum(len((q.prompt + q.completion).encode()) for q in found)
        kinds = len({question.kind for question in found})
        print(f"{path}: {len(found):,} questions of {kinds} kinds, {size:,} bytes")


def main(words: list[str] | None = None) -> None:
    asked = bare("tools.words", __doc__)
    asked.add_argument("out", type=Path, help="the folder to write into")
    asked.add_argument("--g2p", type=Path, required=True, help="the folder of SIGMORPHON's .tsv")
    asked.add_argument("--typos", type=Path, required=True, help="lines 'wrong->right'")
    asked.add_argument("--queries", type=Path, required=True, help="lines 'wrong right count'")
    args = asked.parse_args(words)
    args.out.mkdir(parents=True, exist_ok=True)
    with mistakes_end():
        write("g2p", pronounced(args.g2p), args.out)
        write("spelling", misspelled(args.typos, args.queries), args.out)


if __name__ == "__main__":
    main()
