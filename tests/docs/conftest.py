"""A folder in which a page's commands find what they name: small stand-ins for models and texts."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

import blt.serve.run
from blt.chat import ChatTemplate
from blt.checkpoint.convert import convert
from blt.serve.settings import Settings
from blt.train import DataConfig, Recipe, TrainConfig, train_recipe
from once import once
from pages import ROOT
from served import serving
from shapes import TINY, tiny_config

TEXT = "".join(f"{n} bottles of beer, and the old man counts them.\n" for n in range(60))


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages' commands name."""
    return once(tmp_path_factory, "stand-ins", write_stand_ins)


def write_stand_ins(folder: Path) -> None:
    write_texts(folder)
    train_recipe(small_patcher(folder / "books"), folder / "runs" / "entropy")
    train_recipe(
        small_recipe(folder / "books", folder / "runs" / "entropy" / "checkpoint"),
        folder / "runs" / "mine",
    )
    mine = folder / "runs" / "mine" / "checkpoint"
    for copy in ("runs/demo/checkpoint", "path/to/folder"):
        shutil.copytree(mine, folder / copy)
    shutil.copytree(mine, folder / "runs" / "chat" / "checkpoint")
    ChatTemplate.default().write(folder / "runs" / "chat" / "checkpoint")
    convert(mine, folder / "itazap" / "blt-1b-hf", "transformers")
    convert(mine, folder / "facebook" / "blt-1b", "meta")
    theirs = folder / "facebook"
    (theirs / "blt-1b" / "entropy_model").rename(theirs / "blt-entropy")


def write_texts(folder: Path) -> None:
    (folder / "keys.txt").write_text("a key\n")
    (folder / "flores200" / "devtest").mkdir(parents=True)
    for name in ("file", "notes.txt", "books/a.txt", "flores200/devtest/eng_Latn.devtest"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(TEXT)
    (folder / "flores200" / "devtest" / "deu_Latn.devtest").write_text(TEXT.upper())
    (folder / "books" / "more").mkdir()
    (folder / "books" / "more" / "b.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    (folder / "tldr" / "pages").mkdir(parents=True)
    examples = "\n\n".join(f"- Count {n} bottles:\n\n`count {n} --of beer`" for n in range(60))
    (folder / "tldr" / "pages" / "count.md").write_text(f"# count\n\n> Counts.\n\n{examples}\n")
    (folder / "docs").mkdir()
    for name in ("README.md", "docs/one.md"):
        (folder / name).write_text(TEXT[:600])
    lines = "".join(json.dumps({"text": line}) + "\n" for line in TEXT.splitlines())
    (folder / "code.jsonl.zst").write_bytes(zstandard.compress(lines.encode()))
    for name in ("recipes", "deploy"):
        (folder / name).symlink_to(ROOT / name)


DATA = {"context_bytes": 200, "batch_bytes": 512}
# enough for a model that writes text, and no special ids
TRAIN = TrainConfig(steps=40, lr=1e-2, precision="float32", eval_bytes=500)


def small_patcher(text: Path) -> Recipe:
    """An entropy model without tables, of a width that other layouts can hold."""
    return Recipe(
        "byte", DataConfig((str(text),), **DATA), TRAIN, byte_model=replace(TINY, ff_dim=48)
    )


def small_recipe(text: Path, patcher: Path) -> Recipe:
    return Recipe(
        "blt",
        DataConfig((str(text),), **DATA),
        TRAIN,
        # Widths that Meta's layout can hold.
        model=tiny_config(encoder_ff_dim=96, decoder_ff_dim=96, global_ff_dim=176),
        entropy_model=str(patcher),
    )


@pytest.fixture
def as_a_reader(
    stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Path], Path]]:
    """Go to a folder of stand-ins; gives the page with the address of a server in it."""
    shutil.copytree(stand_ins, tmp_path / "desk", symlinks=True)
    monkeypatch.chdir(tmp_path / "desk")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    monkeypatch.setattr(blt.serve.run, "serve", lambda *_: None)  # for its options only
    with ExitStack() as servers:

        def at_the_desk(page: Path) -> Path:
            text = page.read_text()
            if ":8000/v1" in text:
                server: Any = servers.enter_context(serving(Settings(template="default")))
                text = text.replace("http://127.0.0.1:8000", server.url)
                text = text.replace("localhost:8000", server.url.removeprefix("http://"))
            copy = tmp_path / page.name
            copy.write_text(text)
            return copy

        yield at_the_desk
