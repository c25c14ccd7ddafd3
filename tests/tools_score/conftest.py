"""A small folder of corpora, and models that cut in different ways."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import blt
from blt.checkpoint.pretrained import save_patching
from blt.patching import PatchingConfig
from shapes import TINY, random_blt

LANGUAGES = {
    "eng_Latn": "sentence number {} is here",
    "rus_Cyrl": "предложение номер {} здесь",
    "khm_Khmr": "ប្រយោគលេខ {} នៅទីនេះ",
}
for _language in ("deu_Latn", "arb_Arab", "hin_Deva", "zho_Hans", "jpn_Jpan", "swh_Latn"):
    LANGUAGES[_language] = _language + " ប្រយោគ {}"


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    peps = [json.dumps({"text": f"PEP {n}: on the number {n}\n" * 30}) for n in range(9)]
    files = {
        "train-en-peps/peps.valid.jsonl.gz": "\n".join(peps),
        "valid-en-books/one.txt.gz": "It was a – dark – night. " * 200,
        "train-logs/auth.log.gz": "".join(f"sshd: no user {n}\n" for n in range(900)),
        "train-logs/nginx.log.gz": "".join(f'{{"status": {n}}}\n' for n in range(900)),
        "train-structured/countries.csv.gz": "".join(f"{n},{n * n}\n" for n in range(900)),
        "train-structured/loose.csv": "a,b\n1,2\n",
    }
    for n in range(300):
        files[f"train-structured/{n}.json.gz"] = json.dumps([n] * 9)
    for language, sentence in LANGUAGES.items():
        lines = "".join(sentence.format(n) + "\n" for n in range(40))
        files[f"bench-flores200/devtest/{language}.devtest.gz"] = lines
    for name, content in files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        packed = gzip.compress(content.encode()) if name.endswith(".gz") else content.encode()
        path.write_bytes(packed)
    return data


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An entropy model, a BLT that has one, and a BLT that cuts by a table."""
    home = tmp_path_factory.mktemp("models")
    blt.ByteLM(TINY).save(home / "byte")
    save_patching(home / "byte", PatchingConfig(threshold=5.0))
    random_blt().save(home / "entropy")
    table = random_blt("lookup")
    assert table.lookup_table is not None
    without = blt.BLT(blt.Config(**{**vars(table.config), "entropy_model": None}))
    without.lookup_table = table.lookup_table
    without.eval().save(home / "lookup/checkpoint")
    return {
        "byte": home / "byte",
        "entropy": home / "entropy",
        "lookup": home / "lookup/checkpoint",
    }
