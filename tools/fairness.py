"""Patches that the same sentences are cut into, per language, by patchers of one training mix.

    python -m tools.fairness recipes/study/tables-or-patches.toml runs/study-entropy/checkpoint \\
        ../shared/data/bench-flores200/dev results/fairness/patches.jsonl [NAME]

The second is the folder of the entropy model that entropy rules and taught tables need. The
languages are files of parallel sentences; nothing is learned from them. One line a patcher and
language, where ``vs_english`` is over the patches of the same sentences in English, and one a
patcher that sums up. ``on_mix`` is bytes per patch of a sample of the training mix. With NAME, only
patchers in whose name it is. Lines are added as they come; what has one is not made again, so
delete those that are to be.
"""

from __future__ import annotations

import argparse
import json
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from blt.checkpoint.pretrained import find_entropy_model
from blt.data.text import weighted_sources
from blt.errors import require
from blt.evals.languages import read_languages
from blt.files.configs import from_dict
from blt.patching import Patcher, PatchingConfig
from blt.patching.calibration import LOOKUP_BYTES, calibrate, learn_lookup_table
from blt.patching.patcher import SAMPLE_BYTES, EntropyModel
from blt.tokens.tokenizer import ByteTokenizer
from blt.train.mix import training_sample
from blt.train.sections import DataConfig
from tools.asked import bare, mistakes_end, wanted
from tools.lines import Line, append, read_lines, rounded
from tools.parallel import Lengths, lengths_of, patch_lengths

TARGET = 4.5  # bytes per patch, on the training mix
CONTEXT = 2048
TOKENIZER_BYTES = 2**24
LONGEST = (None, 24, 16)  # bytes
Sample = Callable[[int], list[bytes]]  # so many bytes of the training mix


def patchers(sample: Sample, entropy_model: EntropyModel) -> dict[str, Callable[[], Lengths]]:
    """How each patcher that is compared is made, by its name."""
    found: dict[str, Callable[[], Lengths]] = {
        "space": partial(lengths_of, Patcher(PatchingConfig("space"))),
        "static, 4 bytes": partial(lengths_of, Patcher(PatchingConfig("static", stride=4))),
        "BPE 8192": partial(_bpe, sample),
    }
    for order in (2, 3):
        for fair, longest in product((True, False), LONGEST):
            config = PatchingConfig(
                "lookup", lookup_order=order, fair_scripts=fair, max_patch_length=longest
            )
            name = f"counts of {order} bytes{', fair' * fair}{_limit(longest)}"
            found[name] = partial(_table, sample, None, config)
    for longest in (None, LONGEST[-1]):
        config = PatchingConfig(max_patch_length=longest)
        found[f"entropy{_limit(longest)}"] = partial(_entropy, sample, entropy_model, config)
    for fair in (False, True):
        config = PatchingConfig("lookup", fair_scripts=fair)
        name = f"taught table of 2 bytes{', fair' * fair}"
        found[name] = partial(_table, sample, entropy_model, config)
    return found


def _limit(longest: int | None) -> str:
    return "" if longest is None else f", at most {longest} bytes"


def _entropy(sample: Sample, entropy_model: EntropyModel, config: PatchingConfig) -> Lengths:
    texts = sample(SAMPLE_BYTES)
    return lengths_of(
        Patcher(calibrate(entropy_model, texts, TARGET, config, sample_bytes=None), entropy_model)
    )


def _table(sample: Sample, teacher: EntropyModel | None, config: PatchingConfig) -> Lengths:
    texts = sample(LOOKUP_BYTES)
    found, table = learn_lookup_table(teacher, texts, TARGET, config, sample_bytes=None)
    return lengths_of(Patcher(found, table=table))


def _bpe(sample: Sample) -> Lengths:
    tokenizer = ByteTokenizer.train(sample(TOKENIZER_BYTES), 8192)
    tokens = tokenizer.tokens()
    return lambda piece: [len(tokens[i]) for i in tokenizer.encode(piece)]


def measured(
    name: str, lengths: Lengths, languages: dict[str, list[bytes]], mix: Sequence[bytes]
) -> Iterator[Line]:
    """A line for each language, English first, and one for all."""
    english = next(language for language in languages if language.startswith("en"))
    rows: list[dict[str, float]] = []
    for language in sorted(languages, key=lambda language: (language != english, language)):
        sentences = languages[language]
        found = patch_lengths(lengths, sentences, CONTEXT)
        row = {
            "patches_per_sentence": len(found) / len(sentences),
            "bytes_per_patch": sum(found) / len(found),
            "longest": max(found),
        }
        rows.append(row)
        versus = row["patches_per_sentence"] / rows[0]["patches_per_sentence"]
        yield {"patcher": name, "language": language, **row, "vs_english": versus}
    ratios = {
        f"{key}_worst_to_best": max(row[key] for row in rows) / min(row[key] for row in rows)
        for key in ("patches_per_sentence", "bytes_per_patch")
    }
    on_mix = sum(map(len, mix)) / sum(len(lengths(piece)) for piece in mix)
    longest = max(row["longest"] for row in rows)
    yield {"patcher": name, "all": len(rows), **ratios, "longest": longest, "on_mix": on_mix}


def measure(given: argparse.Namespace) -> None:
    """Add the lines of each patcher that is asked for and lacks some."""
    done, sample = {key(line) for line in read_lines(given.out)}, _sample_of(given.study)
    entropy_model = find_entropy_model(given.entropy_model)
    assert entropy_model is not None
    languages = read_languages(given.languages, None)
    made = patchers(sample, entropy_model)
    for name in wanted(made, [given.name] if given.name else []):
        if (name, None) in done:  # its last line
            continue
        for line in measured(name, made[name](), languages, sample(SAMPLE_BYTES)):
            if key(line) not in done:
                append(given.out, line)
        print(json.dumps(rounded(line)), flush=True)


def _sample_of(study: Path) -> Sample:
    """What draws from the training mix of a study."""
    require(study.is_file(), f"{study}: no such file; give the recipe of a study")
    data = from_dict(DataConfig, tomllib.loads(study.read_text())["base"]["data"], str(study))
    sources = weighted_sources(
        data.sources,
        heldout=data.heldout,
        max_bytes=data.max_bytes,
        context_bytes=CONTEXT,
        heldout_bytes=1,
    )
    return lambda size: training_sample(sources, data.weights, size, CONTEXT)


def key(line: Line) -> tuple[str, str | None]:
    """What a line is about: a patcher, and a language or all of them."""
    return line["patcher"], line.get("language")


def main(words: Sequence[str] | None = None) -> None:
    asked = bare("tools.fairness", __doc__)
    asked.add_argument("study", type=Path, help="the recipe whose data is the training mix")
    asked.add_argument("entropy_model", help="its folder")
    asked.add_argument("languages", type=Path, help="the folder of parallel sentences")
    asked.add_argument("out", type=Path, help="lines are added to this file")
    asked.add_argument("name", nargs="?", metavar="NAME", help="only patchers in whose name it is")
    given = asked.parse_args(words)
    with mistakes_end():
        measure(given)


if __name__ == "__main__":
    main()
