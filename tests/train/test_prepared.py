"""Training on prepared shards is training on the text, and only with the model they belong to."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt import cli
from blt.chat import ChatTemplate
from blt.data.form import SourceConfig
from blt.data.loader import Loader
from blt.data.prepare import Options, prepare
from blt.data.segments import MemorySegments
from blt.data.shards import ShardSegments
from blt.data.text import (
    heldout_by_source,
    open_sources,
    template_of_shards,
    weighted_sources,
)
from blt.errors import UserError
from blt.model.transformer import CausalTransformer
from blt.patching.patcher import SAMPLE_BYTES
from blt.train import Recipe, build, train_recipe
from blt.train.corpus import open_text
from commands import fails
from metrics import events, losses
from shapes import TINY

READ: Any = {"heldout": 0.1, "context_bytes": 128, "heldout_bytes": 4096}


@pytest.fixture
def documents(tmp_path: Path) -> str:
    """Documents that fit into a context whole."""
    path = tmp_path / "lines.jsonl"
    texts = [f"{n} green bottles hanging on the wall" for n in range(300)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def on(recipe: Recipe, *sources: Path, **changes: Any) -> Recipe:
    data = replace(recipe.data, sources=tuple(map(str, sources)), **changes)
    return replace(recipe, data=data, target_patch_size=0.0)


def test_stored_entropies_train_like_live_ones_without_asking_the_model(
    blt_recipe: Recipe,
    documents: str,
    entropy_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Bytes 4.6 nats: about what the fixture's model gives, so that both sides cut real patches.
    model = replace(blt_recipe.model, patching=blt.PatchingConfig(threshold=1.0))
    recipe = replace(blt_recipe, model=model)
    prepare(tmp_path / "live", Options((documents,)))
    prepare(tmp_path / "stored", Options((documents,), entropy_model=str(entropy_folder)))
    live = train_recipe(on(recipe, tmp_path / "live"), tmp_path / "a")
    asked = []
    answer = CausalTransformer.document_entropies
    monkeypatch.setattr(
        CausalTransformer,
        "document_entropies",
        lambda *args: asked.append(1) or answer(*args),
    )
    stored = train_recipe(
        replace(on(recipe, tmp_path / "stored"), train=replace(recipe.train, evals=0)),
        tmp_path / "b",
    )
    assert len(asked) <= 4  # for the report on held-out text alone
    assert losses(tmp_path / "b")[:-1] == losses(tmp_path / "a")[:-1]
    assert live.config == stored.config


def test_stored_entropies_count_also_beside_text_without_some(lm: blt.BLT, tmp_path: Path) -> None:
    """A segment is cut as its document is, whoever is in its batch."""
    long = tmp_path / "long.txt"
    long.write_text(" ".join(f"{n} green bottles" for n in range(400)))
    lm.save(tmp_path / "model")
    options = Options((str(long),), entropy_model=str(tmp_path / "model"), segment_bytes=100)
    prepare(tmp_path / "stored", replace(options, heldout=0.0))
    stored = ShardSegments(tmp_path / "stored")
    plain = MemorySegments([b"and a text without entropies"] * 20, 100)
    loader = Loader([stored, plain], [1.0, 1.0], batch_bytes=256, context_bytes=100)
    assert lm.entropy_model is not None
    (live,) = lm.entropy_model.document_entropies([blt.encode(long.read_bytes())])
    mixed = 0
    for batch in islice(loader, 20):
        assert batch.entropies is not None
        mixed += any(known is None for known in batch.entropies)
        decisions, found = lm.patcher.decide(batch.documents, batch.entropies)
        for ids, known, entropies in zip(batch.documents, batch.entropies, found, strict=True):
            if known is None:
                expected = lm.entropy_model.document_entropies([ids])[0]
            else:
                at = long.read_bytes().find(blt.decode(ids))
                expected = live[at : at + len(ids)]
            assert entropies is not None
            torch.testing.assert_close(entropies, expected, rtol=1e-3, atol=1e-3)
        assert [len(each) for each in decisions] == [len(ids) + 1 for ids in batch.documents]
    assert mixed > 10


def test_shards_of_another_entropy_model_or_reset_are_refused(
    blt_recipe: Recipe, documents: str, entropy_folder: Path, tmp_path: Path
) -> None:
    prepare(tmp_path / "other", Options((documents,), entropy_model="pretrained"))
    with pytest.raises(UserError, match="other: was prepared with another entropy model"):
        train_recipe(on(blt_recipe, tmp_path / "other"), tmp_path / "run")
    options = Options((documents,), entropy_model=str(entropy_folder), newline_reset=True)
    prepare(tmp_path / "reset", options)
    with pytest.raises(UserError, match="reset: was prepared with newline_reset True"):
        train_recipe(on(blt_recipe, tmp_path / "reset"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_stored_entropies_are_not_those_of_text_that_is_disturbed(
    blt_recipe: Recipe, documents: str, entropy_folder: Path, tmp_path: Path
) -> None:
    prepare(tmp_path / "shards", Options((documents,), entropy_model=str(entropy_folder)))
    with pytest.raises(UserError, match=r"shards: holds entropies .* leave out data\.noise"):
        train_recipe(on(blt_recipe, tmp_path / "shards", noise=0.2), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sources_are_mixed_and_scored_one_by_one(
    byte_recipe: Recipe, documents: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "shards", Options((documents,), heldout=0.2))
    text = Path(byte_recipe.data.sources[0])
    recipe = on(byte_recipe, tmp_path / "shards", text, weights=(1.0, 3.0))
    train_recipe(recipe, tmp_path / "run")
    scored = [
        event["heldout_by_source"]
        for event in events(tmp_path / "run")
        if "heldout_by_source" in event
    ]
    assert [set(scores) for scores in scored] == [{str(tmp_path / "shards"), str(text)}] * 2
    assert {event["source"] for event in events(tmp_path / "run", "data")} == set(scored[0])


@pytest.fixture
def chats(tmp_path: Path) -> SourceConfig:
    path = tmp_path / "chats.jsonl"
    turns = [[("user", f"{n} bottles?"), ("assistant", f"{n}, on the wall")] for n in range(90)]
    rows = [{"messages": [{"role": r, "content": c} for r, c in each]} for each in turns]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return SourceConfig(str(path), messages="messages")


MINE = ChatTemplate.default().source.replace("+ '\\n'", "+ ': '")


def test_two_keys_of_one_file_are_two_sources_and_both_are_scored(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"title": f"title {n} " * 9, "body": f"body {n} " * 99} for n in range(99)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = [SourceConfig(str(path), text=key) for key in ("title", "body")]
    found = heldout_by_source(weighted_sources(keys, **READ, max_bytes=None))
    assert list(found) == [str(path), f"{path} (2)"]
    assert [texts[0][:4] for texts in found.values()] == [b"titl", b"body"]


def test_a_limit_is_of_all_weighted_sources_and_prepared_text_is_said_to_have_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [tmp_path / name for name in ("a.txt", "b.txt")]
    for name in names:
        name.write_text(f"{name.stem} words " * 9999)
    for opened in (weighted_sources, open_sources):
        facts = [source.facts for source in opened(list(map(str, names)), **READ, max_bytes=9000)]
        assert sum(of["train_bytes"] + of["heldout_bytes"] for of in facts) == 9000
    prepare(tmp_path / "shards", Options((str(names[0]),)))
    mixed = weighted_sources([str(names[1]), str(tmp_path / "shards")], **READ, max_bytes=9000)
    assert mixed[0].facts["train_bytes"] + mixed[0].facts["heldout_bytes"] == 9000
    assert "shards: prepared text is read whole" in caplog.text
    for opened in (weighted_sources, open_sources):
        (whole,) = opened([str(tmp_path / "shards")], **READ, max_bytes=9000)
        assert whole.facts["train_bytes"] > 9000


def test_without_weights_each_source_is_read_once_in_an_epoch(tmp_path: Path) -> None:
    """Also one of conversations, of whose documents only a part is read."""
    chats = [{"prompt": "read only " * 90 + str(n), "completion": f"yes {n}"} for n in range(50)]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    (tmp_path / "plain.txt").write_text("".join(f"{n} words of a text\n" for n in range(2500)))
    prepare(tmp_path / "shards", Options((str(tmp_path / "plain.txt"),)))
    chat = SourceConfig(str(tmp_path / "chat.jsonl"), prompt="prompt", completion="completion")
    sources = open_sources([chat, str(tmp_path / "shards")], **READ, max_bytes=None)
    assert sources[0].facts["segments_with_nothing_to_learn"] > 100
    loader = Loader([one.train for one in sources], batch_bytes=256, context_bytes=128)
    read = [0, 0]
    while max(read) < 4:
        read = [at["epoch"] for at in next(loader).state["sources"]]
    assert min(read) >= 3


def test_a_model_gets_the_template_that_its_shards_were_prepared_with(
    byte_recipe: Recipe, chats: SourceConfig, tmp_path: Path
) -> None:
    """In a mixture, text that is not prepared is laid out in the same way."""
    (tmp_path / "mine.jinja").write_text(MINE)
    table = f'{{path = "{chats.path}", messages = "messages"}}'
    command = ["prepare", table, "--heldout", "0.2", "--out", str(tmp_path / "shards")]
    assert cli.main([*command, "--template", str(tmp_path / "mine.jinja")]) == 0
    assert template_of_shards([str(tmp_path / "shards")]).source == MINE  # type: ignore[union-attr]
    with pytest.raises(UserError, match="being written with other"):
        prepare(tmp_path / "shards", Options((chats,), heldout=0.2))
    stored = on(byte_recipe, tmp_path / "shards", heldout=0.2)
    train_recipe(stored, tmp_path / "run")
    assert blt.load(tmp_path / "run/checkpoint").chat_template == MINE
    both = replace(stored, data=replace(stored.data, sources=(str(tmp_path / "shards"), chats)))
    plain, prepared = open_text(both, ChatTemplate(MINE))
    assert len(plain.train) == len(prepared.train)
    for index in range(len(plain.train)):
        one, other = (x.train.read(index, 0, x.train.length(index)) for x in (plain, prepared))
        assert (one.data, one.specials) == (other.data, other.specials)
    assert b"user: " in one.data
    train_recipe(both, tmp_path / "both")
    sizes = {event["train_bytes"] for event in events(tmp_path / "both", "data")}
    assert len(sizes) == 1


def test_shards_of_two_templates_are_refused_and_another_than_before_is_said(
    byte_recipe: Recipe, chats: SourceConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(tmp_path / "mine", Options((chats,), template=MINE))
    prepare(tmp_path / "plain", Options((chats,)))
    manifests = [
        json.loads((tmp_path / x / "manifest.json").read_text()) for x in ("mine", "plain")
    ]
    assert [m["chat_template"] for m in manifests] == [MINE, ChatTemplate.default().source]
    assert all("template" not in m["options"] for m in manifests)
    different = (
        rf"{tmp_path}/mine and {tmp_path}/plain: were prepared with different chat templates"
    )
    with pytest.raises(UserError, match=different):
        train_recipe(on(byte_recipe, tmp_path / "mine", tmp_path / "plain"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    first = on(byte_recipe, tmp_path / "plain", heldout=0.2)
    train_recipe(first, tmp_path / "first")
    then = replace(on(first, tmp_path / "mine"), init=str(tmp_path / "first"))
    assert "is another than that of" not in caplog.text
    train_recipe(then, tmp_path / "then")
    kept = f"--template {tmp_path}/first/checkpoint"
    assert kept in caplog.text
    assert ChatTemplate.chosen(kept.split()[1]) is not None
    assert blt.load(tmp_path / "then/checkpoint").chat_template == MINE


def test_a_template_needs_conversations(
    documents: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prepare", documents, "--out", tmp_path / "out"]
    assert "none of the sources is of conversations" in fails(
        capsys, *command, "--template", "default"
    )
    assert "has no chat template" in fails(capsys, *command, "--template", tmp_path)
    prepare(tmp_path / "out", Options((documents,)))
    assert "chat_template" not in (tmp_path / "out/manifest.json").read_text()


def test_weights_must_fit_the_sources(byte_recipe: Recipe) -> None:
    for weights in ((1.0,), (1.0, 0.0), (1.0, -1.0)):
        with pytest.raises(ValueError, match="one positive number for each source"):
            replace(byte_recipe.data, sources=("a", "b"), weights=weights)


def test_theta_is_set_on_the_mix_that_is_trained_on(
    blt_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Text:
        def __init__(self, byte: bytes) -> None:
            self.documents = [byte * 300_000] * 2
            self.train = MemorySegments(self.documents, 2048)

        def sample(self, size: int) -> list[bytes]:
            return self.documents

    seen: list[bytes] = []

    def watched(model: object, texts: list[bytes], *_: object, **__: object) -> blt.PatchingConfig:
        seen.extend(texts)
        return blt.PatchingConfig()

    monkeypatch.setattr(build, "calibrate", watched)
    sources: list[Any] = [Text(b"a"), Text(b"b")]
    data = replace(blt_recipe.data, sources=("a", "b"), weights=(1.0, 3.0))
    model = blt.ByteLM(TINY)
    build.calibrated(replace(blt_recipe, data=data), blt.PatchingConfig(), model, sources)
    shares = [b"".join(seen).count(byte) for byte in (b"a", b"b")]
    assert shares[1] == pytest.approx(3 * shares[0], rel=0.05)
    assert sum(shares) == pytest.approx(SAMPLE_BYTES, rel=0.05)
