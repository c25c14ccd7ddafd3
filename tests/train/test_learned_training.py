"""What is only read has no loss: the mean is over what is learned, as one works it out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import blt
from blt import vocab
from blt.data import Loader
from blt.data.form import SourceConfig
from blt.data.segments import MemorySegments
from blt.errors import UserError
from blt.lm import LanguageModel, TokenLM, load
from blt.scoring.bits import measured
from blt.texts.marked import Marked, marked
from blt.train import Recipe, Report, TrainConfig, read_recipe, train_recipe, write_recipe
from blt.train.corpus import open_text
from blt.train.loop import Loop
from blt.train.trainer import Trainer
from conversations import CHAT, PAIR
from metrics import events

Part = tuple[list[int], bool]
RAGGED = [
    [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello!")],
    [
        ("user", "How many bottles? ü"),
        ("assistant", "9"),
        ("user", "Sure?"),
        ("assistant", "Yes, 9 bottles."),
    ],
    [("user", "a"), ("assistant", "")],
    [("user", "bottles of beer " * 5), ("assistant", "on the wall " * 3)],
    [("assistant", "I begin."), ("user", "and I end")],
]


def parts_of(conversation: list[tuple[str, str]]) -> list[Part]:
    """Role, newline, content and EOS of each turn, as the default template lays them out."""
    found: list[Part] = []
    for role, content in conversation:
        said = [*ids_of(content), vocab.EOS]
        found += [(ids_of(f"{role}\n"), False), (said, role == "assistant")]
    return found


def ids_of(text: str) -> list[int]:
    return [byte + vocab.OFFSET for byte in text.encode()]


# A completion that begins within what a tokenizer makes a token of.
ACROSS: list[Part] = [
    (ids_of("9 bottles of b"), False),
    ([*ids_of("eer on the wall, "), vocab.EOS], True),
]


@pytest.fixture(scope="module", params=["blt", "byte", "token"])
def model(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> LanguageModel:
    recipe: Recipe = request.getfixturevalue(f"{request.param}_recipe")
    return train_recipe(recipe, tmp_path_factory.mktemp(request.param) / "run")


def by_hand(model: LanguageModel, parts: list[Part], end: bool = True) -> tuple[float, int]:
    """Nats of what is learned, read alone, one id after another; and for how many bytes.

    A token is learned where all its bytes are; ``end``: the last EOS counts.
    """
    ids, learned, sizes = [vocab.BOS], [False], [0]
    run: list[tuple[int, bool]] = []

    def close() -> None:
        """Bytes up to a special id."""
        if isinstance(model, TokenLM):
            text, at = bytes(i - vocab.OFFSET for i, _ in run), 0
            for token in model.tokenizer.encode(text):
                size = model.tokenizer.sizes[token]
                ids.append(token)
                learned.append(all(is_learned for _, is_learned in run[at : at + size]))
                sizes.append(size)
                at += size
        else:
            for token_id, is_learned in run:
                ids.append(token_id)
                learned.append(is_learned)
                sizes.append(1)
        run.clear()

    for part, is_learned in parts:
        for token_id in part:
            if token_id >= vocab.OFFSET:
                run.append((token_id, is_learned))
                continue
            close()
            ids.append(token_id if not isinstance(model, TokenLM) else model.eos)
            learned.append(is_learned)
            sizes.append(1)
    if isinstance(model, TokenLM):
        ids[0] = model.bos
    with torch.no_grad():
        log_p = model.packed_logits([torch.tensor(ids[:-1])]).double().log_softmax(-1)
    nats, count = 0.0, 0
    for at in range(1, len(ids)):
        if learned[at] and (end or at + 1 < len(ids)):
            nats -= float(log_p[at - 1, ids[at]])
            count += sizes[at]
    return nats, count


def test_masked_loss_is_that_worked_out_by_hand(model: LanguageModel) -> None:
    conversations = [*map(parts_of, RAGGED), ACROSS]
    documents = [marked(parts) for parts in conversations]
    size = sum(len(document) + 2 for document in documents)
    # One ends with what nobody learns, and so without an EOS to read.
    loader = Loader([MemorySegments(documents, 200)], batch_bytes=size - 1, context_bytes=200)
    found = [by_hand(model, parts) for parts in conversations]
    nats, count = (sum(column) for column in zip(*found, strict=True))
    trainer = Trainer(model, loader, TrainConfig(steps=1, lr=1e-9, precision="float32"))
    step = trainer.step(0.0)
    assert step.nats == pytest.approx(nats / count, rel=1e-5)
    assert step.num_bytes == sum(
        len(part) - part.count(vocab.EOS) for parts in conversations for part, _ in parts
    )


def test_held_out_bits_are_of_what_is_learned(model: LanguageModel) -> None:
    """The end of a document is not counted, as in plain text."""
    model.eval()
    conversations = [*map(parts_of, RAGGED), ACROSS]
    found = [by_hand(model, parts, end=False) for parts in conversations]
    nats, count = (sum(column) for column in zip(*found, strict=True))
    pieces = [marked(parts) for parts in conversations]
    score = measured(model, pieces, torch.float32)
    assert score.num_bytes == count
    assert score.bits == pytest.approx(nats / math.log(2), rel=1e-5)
    plain = [b"plain text", b"and more"]
    both = measured(model, [*pieces, *plain], torch.float32)
    assert both.num_bytes == count + sum(map(len, plain))
    assert both.bits == pytest.approx(score.bits + measured(model, plain, torch.float32).bits)


@pytest.fixture
def chats(tmp_path: Path) -> Path:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{n} bottles of"},
                {"role": "assistant", "content": "beer" + " on the wall" * (n % 3)},
            ]
        }
        for n in range(120)
    ]
    rows.insert(2, {"messages": []})
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def learning(recipe: Recipe, path: Path) -> Recipe:
    source = SourceConfig(str(path), **CHAT)
    return replace(recipe, data=replace(recipe.data, sources=(source,), noise=0.3))


@pytest.mark.parametrize("kind", ["byte", "token", "blt"])
def test_a_resumed_training_on_conversations_is_the_uninterrupted_one(
    kind: str, request: pytest.FixtureRequest, chats: Path, tmp_path: Path
) -> None:
    recipe = learning(request.getfixturevalue(f"{kind}_recipe"), chats)
    often = replace(recipe, train=replace(recipe.train, checkpoint_every_seconds=1e-9))

    def interrupt(report: Report) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    whole = train_recipe(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_recipe(often, tmp_path / "run", on_progress=interrupt)
    again = train_recipe(often, tmp_path / "run", resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    (data,) = events(tmp_path / "whole", "data")
    assert data["broken"] == [f"{chats}:3: {data['broken'][0].split(': ', 1)[1]}"]
    assert 0 < data["learned_bytes"] < data["train_bytes"]
    last = events(tmp_path / "whole", "train")[-1]
    (source,) = open_text(recipe)
    score = measured(load(tmp_path / "whole/checkpoint"), source.heldout, torch.float32)
    if sum(map(len, source.heldout)) <= recipe.train.eval_bytes:
        assert last["heldout_bits_per_byte"] == pytest.approx(score.bits_per_byte, rel=1e-4)


def test_text_of_which_nothing_is_asked_is_not_evaluated_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """No bits over no bytes are no score."""
    config, trainer = SimpleNamespace(eval_bytes=400), SimpleNamespace()
    trainer.parallel = SimpleNamespace(main=True)
    loop: Any = SimpleNamespace(config=config, trainer=trainer, _context_bytes=64)
    texts = {"some": [b"text " * 9], "none": [Marked(b"a question", [])]}
    assert list(Loop._chosen(loop, texts)) == ["some"]
    assert "is not evaluated, as nothing is learned of what is held out" in caplog.text
    assert caplog.text.rstrip().endswith("none")


def test_it_is_what_is_learned_that_a_model_learns(byte_recipe: Recipe, tmp_path: Path) -> None:
    """Of prompts that are read only, it knows no more than before."""
    rows = [{"question": "aaaaaaaa", "answer": "bbbbbbbb"} for _ in range(200)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = replace(
        byte_recipe.data,
        sources=(SourceConfig(str(tmp_path / "a.jsonl"), **PAIR),),
    )
    found = {}
    for learn in ("completions", "all"):
        recipe = replace(
            byte_recipe,
            data=replace(data, learn=learn),
            train=replace(byte_recipe.train, steps=30, evals=0),
        )
        model = train_recipe(recipe, tmp_path / learn)
        assert isinstance(model, blt.ByteLM)
        found[learn] = model.score([(b"", b"aaaa"), (b"aaaaaaaa", b"bbbb")])
    assert found["completions"][1].log_p > -4
    assert found["completions"][0].log_p < -15 < found["all"][0].log_p


RECIPE = """
kind = "byte"
[train]
steps = 1
[data]
"""


def test_recipes_have_tables_for_sources_that_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(
        RECIPE
        + """sources = [
    {path = "notes.txt", weight = 1},
    {path = "chat.jsonl", messages = "messages", weight = 2.5},
    {path = "hf:owner/name", text = "body", config = "en", split = "test", weight = 3},
]
"""
    )
    recipe = read_recipe(path)
    assert recipe.data.weights == (1.0, 2.5, 3.0)
    assert recipe.data.sources[0] == "notes.txt"
    assert recipe.data.sources[1] == SourceConfig("chat.jsonl", messages="messages")
    assert recipe.data.converses
    write_recipe(path, recipe)
    assert read_recipe(path) == recipe
    changed = read_recipe(path, ['data.sources=[{path="a", text="t"}]', "data.weights=[]"])
    assert changed.data.sources == (SourceConfig("a", text="t"),)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (
            'sources = ["a", {path = "b", mesages = "m"}]',
            r"x\.toml: data\.sources\.1: unknown key 'mesages'; did you mean 'messages'",
        ),
        (
            'sources = [{path = "b", messages = 3}]',
            r"x\.toml: data\.sources\.0: messages: .*string",
        ),
        ('sources = [{path = "b", weight = 1}, "a"]', "give each source a weight, or none"),
        ('sources = [{path = "b", weight = 1}]\nweights = [2]', "have a weight each already"),
        ('sources = [{path = "b", prompt = "a"}]', r"data\.sources\.0: .*need each other"),
        ('sources = [{messages = "b"}]', r"data\.sources\.0: path"),
        ('sources = ["a"]\nlearn = "answers"', r"data\.learn"),
        ('sources = ["a"]\nmax_broken = -1', r"data\.max_broken must be at least 0"),
    ],
)
def test_what_is_wrong_with_a_source_is_named(tmp_path: Path, line: str, why: str) -> None:
    (tmp_path / "x.toml").write_text(RECIPE + line)
    with pytest.raises(UserError, match=why):
        read_recipe(tmp_path / "x.toml")


def test_trainings_have_the_users_limit_of_broken_rows(byte_recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "some text that is long enough"}\n' * 40 + "{\n" * 3)
    data = replace(byte_recipe.data, sources=(str(path),), max_broken=2)
    recipe = replace(byte_recipe, data=data)
    with pytest.raises(UserError, match=r"a\.jsonl:43: .*more than 2 broken lines"):
        train_recipe(recipe, tmp_path / "run")
    train_recipe(replace(recipe, data=replace(data, max_broken=3)), tmp_path / "run")
    (event,) = events(tmp_path / "run", "data")
    assert event["broken_lines"] == 3
