"""Patches that the same sentences are cut into, per language, by patchers of one training mix.

    python -m tools.fairness recipes/study/tables-or-patches.toml runs/study-entropy/checkpoint \\
        ../shared/data/bench-flores200/dev results/fairness/patches.jsonl [NAME]

The second is the folder of the entropy model that entropy rules and taught tables need. The
languages are files of parallel sentences; nothing is learned from them. One line a patcher and
language, where ``vs_english`` is over the patches of the same sentences in English, and one a
patcher that sums up. ``on_mix`` is bytes per patch of a sample of the training mix. With NAME, only
patchers in whose name it is.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from blt.checkpoint.pretrained import find_entropy_model
from blt.data.text import weighted_sources
from blt.evals.languages import read_languages
from blt.files.configs import from_dict
from blt.patching import Patcher, PatchingConfig
from blt.patching.calibration import LOOKUP_BYTES, calibrate, learn_lookup_table
from blt.patching.patcher import SAMPLE_BYTES, EntropyModel
from blt.tokens.tokenizer import ByteTokenizer
from blt.train.mix import training_sample
from blt.train.sections import DataConfig
from tools.asked import mistakes_end, wanted
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
) -> Iterator[dict[str, object]]:
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


def main(study: str, entropy_folder: str, languages_folder: str, out: str, only: str = "") -> None:
    data = from_dict(DataConfig, tomllib.loads(Path(study).read_text())["base"]["data"], study)
    sources = weighted_sources(
        data.sources,
        heldout=data.heldout,
        max_bytes=data.max_bytes,
        context_bytes=CONTEXT,
        heldout_bytes=1,
    )
    entropy_model = find_entropy_model(entropy_folder)
    assert entropy_model is not None
    languages = read_languages(Path(languages_folder), None)

    def sample(size: int) -> list[bytes]:
        return training_sample(sources, data.weights, size, CONTEXT)

    made = patchers(sample, entropy_model)
    names = wanted(made, [only] if only else [])
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with Path(out).open("w") as file:
        for name in names:
            for row in measured(name, made[name](), languages, sample(SAMPLE_BYTES)):
                print(json.dumps(_rounded(row)), file=file, flush=True)
            print(json.dumps(_rounded(row)), flush=True)


def _rounded(row: dict[str, object]) -> dict[str, object]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


if __name__ == "__main__":
    with mistakes_end():
        main(*sys.argv[1:])
