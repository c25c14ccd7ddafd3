"""A token model's layers are taken over, left alone for a while, then learn slowly."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import blt
from blt.byteify import byteify, hooks_of
from blt.byteify.cuts import tokens_of
from blt.byteify.hooks import Byteify
from blt.byteify.start import LAYERS
from blt.byteify.teacher import Teacher
from blt.cli import main
from blt.data.form import SourceConfig
from blt.data.prepare import Options, prepare
from blt.errors import UserError
from blt.lm import LanguageModel, TokenLM
from blt.model.flops import flops_per_byte
from blt.model.language import Batch
from blt.model.packing import end_to_end
from blt.patching import PatchingConfig
from blt.plan import find_hardware, make_plan
from blt.train import DataConfig, Recipe, Report, TrainConfig, train_recipe, write_recipe
from blt.train.hooks import Extra
from blt.train.loop import OnProgress
from blt.train.optim import LR_SHARE, MatrixOptimizer, optimizers
from blt.train.recipe import read_recipe
from conversations import CHAT, CHATS, PAIR, PAIRS, write
from shapes import TOKEN_SHAPE


def changed(recipe: Recipe, *, byteify: dict[str, Any] | None = None, **train: Any) -> Recipe:
    assert recipe.byteify is not None
    return replace(
        recipe,
        byteify=replace(recipe.byteify, **(byteify or {})),
        train=replace(recipe.train, **train),
    )


def train_hooked(recipe: Recipe, run: Path, **how: Any) -> LanguageModel:
    return train_recipe(recipe, run, hooks=hooks_of(recipe), **how)


def layers(model: LanguageModel, prefix: str = LAYERS) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


def losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    events = [event for event in map(json.loads, lines) if event["event"] == "train"]
    return [event["bits_per_byte"] for event in events]


def test_the_first_stage_leaves_the_layers_bit_for_bit_and_the_second_does_not(
    recipe: Recipe, token_run: Path, tmp_path: Path
) -> None:
    taken = layers(blt.load(token_run), "transformer.")
    model = train_hooked(changed(recipe, byteify={"frozen": 1.0}), tmp_path / "first")
    assert layers(model).keys() == taken.keys()
    assert all(torch.equal(tensor, taken[name]) for name, tensor in layers(model).items())
    model = train_hooked(recipe, tmp_path / "both")
    assert not any(torch.equal(tensor, taken[name]) for name, tensor in layers(model).items())


def test_in_the_first_stage_everything_else_learns(recipe: Recipe, tmp_path: Path) -> None:
    frozen = changed(recipe, byteify={"frozen": 1.0})
    model = train_hooked(frozen, tmp_path / "first")
    begun = train_hooked(changed(frozen, steps=1, lr=1e-12), tmp_path / "begun")
    for name, tensor in model.state_dict().items():
        same = torch.equal(tensor, begun.state_dict()[name])
        assert same == name.startswith(LAYERS), name


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_only_the_layers_have_a_share_of_the_learning_rate(
    kind: MatrixOptimizer, recipe: Recipe
) -> None:
    shaped = hooks_of(recipe).resolve(recipe)
    assert shaped.model is not None
    model = blt.BLT(shaped.model)
    shares: dict[str, float] = {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for optimizer in optimizers(model, 1e-3, (0.9, 0.95), 0.1, kind, {LAYERS: 0.25}):
        for group in optimizer.param_groups:
            shares |= {names[id(p)]: group.get(LR_SHARE, 1.0) for p in group["params"]}
    assert shares.keys() == set(names.values())
    for name, share in shares.items():
        assert share == (0.25 if name.startswith(LAYERS) else 1.0), name


def test_a_share_of_nothing_is_a_second_stage_that_changes_nothing(
    recipe: Recipe, tmp_path: Path
) -> None:
    still = train_hooked(changed(recipe, byteify={"global_lr": 0.0}), tmp_path / "still")
    begun = train_hooked(changed(recipe, steps=1, lr=1e-12), tmp_path / "begun")
    for name, tensor in layers(still).items():
        assert torch.equal(tensor, layers(begun)[name]), name


@pytest.mark.parametrize("stage", [3, 7], ids=["in the first stage", "in the second"])
@pytest.mark.parametrize(
    ("how", "optimizer", "distill"), [("ctrl-c", "adamw", 0.0), ("crash", "muon", 0.5)]
)
def test_a_resumed_run_is_the_uninterrupted_one(
    stage: int, how: str, optimizer: Any, distill: float, recipe: Recipe, tmp_path: Path
) -> None:
    every = 1e-9 if how == "crash" else 1e9  # a crash loses what came after the last checkpoint
    recipe = changed(
        recipe,
        byteify={"distill": distill},
        optimizer=optimizer,
        checkpoint_every_seconds=every,
    )

    def interrupt(report: Report) -> None:
        if report.step == stage:
            if how == "crash":
                raise ZeroDivisionError
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(ZeroDivisionError if how == "crash" else KeyboardInterrupt):
        train_hooked(recipe, tmp_path / "cut", on_progress=interrupt)
    resumed = train_hooked(recipe, tmp_path / "cut", resume=True)
    whole = train_hooked(recipe, tmp_path / "whole")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for (name, a), b in zip(resumed.state_dict().items(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_teacher_changes_what_is_learned_and_is_counted(recipe: Recipe, tmp_path: Path) -> None:
    """The loss that is reported stays the cross-entropy of the bytes."""
    flops, found = [], []
    for distill in (0.0, 0.7):
        last: list[Report] = []
        run = tmp_path / str(distill)
        train_hooked(changed(recipe, byteify={"distill": distill}), run, on_progress=last.append)
        flops.append(last[-1].flops)
        found.append(losses(run))
    assert flops[1] > 1.01 * flops[0]
    assert found[1][0] == found[0][0]
    assert found[1][-1] != found[0][-1]


def test_a_plan_counts_the_token_model_that_teaches(
    recipe: Recipe, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    hooks = hooks_of(recipe)
    assert isinstance(hooks, Byteify)
    teacher = Teacher(hooks.reader, hooks.source, torch.device("cpu"))
    held = teacher.embedding.nbytes + teacher.norm.nbytes + teacher.head.nbytes
    ways: tuple[dict[str, Any], ...] = ({"frozen": 0.0}, {"distill": 0.0}, {})
    plans = [make_plan(changed(recipe, byteify=way), find_hardware("H100")) for way in ways]
    without, silent, speaking = (plan.teacher for plan in plans)
    assert (without, silent) == (0, held)
    logits = 4 * len(teacher.head) * recipe.data.batch_bytes / 4.5  # of about so many tokens
    assert logits < speaking - silent < 8 * logits
    assert {plan.needed - plan.teacher for plan in plans} == {plans[0].needed}
    write_recipe(tmp_path / "recipe.toml", recipe)
    assert main(["plan", str(tmp_path / "recipe.toml"), "--hardware", "H100"]) == 0
    assert "the token model that teaches" in capsys.readouterr().out


def test_in_the_first_stage_the_layers_read_what_they_read_in_the_source(
    recipe: Recipe, token_run: Path, tmp_path: Path
) -> None:
    """And what they make of it does not depend on the encoder."""
    hooks, source = hooks_of(recipe), blt.load(token_run)
    assert isinstance(hooks, Byteify)
    assert isinstance(source, TokenLM)
    read: list[tuple[list[Tensor], Tensor]] = []
    watched = hooks.extra_loss

    def watching(batch: Batch, logits: Tensor, targets: Tensor) -> Extra:
        if hooks.hidden is not None:
            read.append((batch.documents, hooks.hidden))
        return watched(batch, logits, targets)

    hooks.extra_loss = watching  # type: ignore[method-assign]
    train_recipe(recipe, tmp_path / "run", hooks=hooks)
    assert len(read) == 5
    for documents, hidden in read:
        assert not hidden.requires_grad
        tokens = [source.ids_of(blt.vocab.decode(ids)) for ids in documents]
        ids, spans = end_to_end(tokens, source.device)
        expected = source.transformer(source.embed_ids(ids, spans), spans).split(spans.lengths)
        counts = [int(tokens_of(source.tokenizer, ids).decisions[:-1].sum()) for ids in documents]
        for mine, theirs in zip(hidden.split(counts), expected, strict=True):
            shared = min(len(mine), len(theirs))  # a last token of one byte has no patch
            torch.testing.assert_close(mine[:shared], theirs[:shared], rtol=1e-4, atol=1e-5)


def test_a_training_counts_what_each_stage_does(recipe: Recipe, tmp_path: Path) -> None:
    """The formula: 3 forward passes of all; in the first stage one of the layers and the head."""
    hooks, shape = hooks_of(recipe), hooks_of(recipe).resolve(recipe).model
    assert isinstance(hooks, Byteify)
    assert shape is not None
    batches: list[tuple[Batch, int | None]] = []
    watched = hooks.extra_loss

    def watching(batch: Batch, logits: Tensor, targets: Tensor) -> Extra:
        patches = None if hooks.lesson is None else hooks.lesson.packed.num_patches
        batches.append((batch, patches))
        return watched(batch, logits, targets)

    hooks.extra_loss = watching  # type: ignore[method-assign]
    done: list[Report] = []
    train_recipe(recipe, tmp_path / "run", hooks=hooks, on_progress=done.append)
    before = 0.0
    for report, (batch, patches) in zip(done, batches, strict=True):
        assert report.patch_size is not None
        parts = flops_per_byte(shape, report.patch_size, recipe.data.context_bytes)
        expected = 3 * parts.total * batch.num_bytes
        assert (patches is not None) == (report.step <= 5)
        if patches is not None:
            expected -= 2 * parts.global_ * batch.num_bytes
            expected += 2 * 32 * (300 + 2) * patches
        assert report.flops - before == pytest.approx(expected)
        before = report.flops


def test_what_a_source_remembers_is_taken_over(
    data: DataConfig, train: TrainConfig, recipe: Recipe, tmp_path: Path
) -> None:
    """A source that knows its text well: from scratch a few steps do not get there."""
    learned = replace(train, steps=150, lr=1e-2, evals=0)
    train_recipe(Recipe("token", data, learned, token_model=TOKEN_SHAPE), tmp_path / "token")
    source = str(tmp_path / "token" / "checkpoint")
    few = changed(recipe, byteify={"source": source, "frozen": 0.6}, steps=30, lr=1e-2, evals=0)
    assert few.model is not None
    patching = PatchingConfig(rule="lookup", lookup_order=3)
    model = replace(few.model, local_dim=40, hash_rows=1009, patching=patching)
    aligned = replace(few, model=model, target_patch_size=0.0)
    result = byteify(aligned, tmp_path / "run", scratch=True, show=quiet)
    assert result is not None
    assert result["gap_closed"] > 0.25


@contextmanager
def quiet(name: str) -> Iterator[OnProgress]:
    yield lambda report: None


def test_a_run_is_compared_with_its_source_and_with_one_from_scratch(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = byteify(recipe, run, scratch=True, show=quiet)
    assert result is not None
    assert result == json.loads((run / "byteify.json").read_text())
    bits = {row["model"]: row["bits_per_byte"] for row in result["models"]}
    assert list(bits) == ["source", "byteified", "scratch"]
    shares = (bits["scratch"] - bits["byteified"]) / (bits["scratch"] - bits["source"])
    assert result["gap_closed"] == pytest.approx(shares)
    low, high = result["gap_closed_interval"]
    assert low <= result["gap_closed"] <= high
    scratch = read_recipe(run / "scratch" / "recipe.toml")
    assert scratch == changed(hooks_of(recipe).resolve(recipe), byteify={"scratch": True})
    size = [row["parameters"] for row in result["models"]]
    assert size[1] == size[2]
    read = [row["training_bytes"] for row in result["models"]]
    assert read[0] is None
    assert read[1] == read[2] > 5000  # ten steps of 512 ids, a few of them no bytes
    assert byteify(recipe, run, resume=True, scratch=True, show=quiet) == result


def test_the_command_trains_compares_and_draws(
    recipe: Recipe, token_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recipe.byteify is not None
    elsewhere = replace(recipe.byteify, source="named on the command line")
    write_recipe(tmp_path / "r.toml", replace(recipe, byteify=elsewhere))
    run = tmp_path / "run"
    arguments = ["byteify", str(token_run), str(tmp_path / "r.toml"), "train.steps=2"]
    assert main([*arguments, "--run", str(run)]) == 0
    said = capsys.readouterr().out
    assert "source" in said
    assert "byteified" in said
    assert str(run / "byteify.png") in said
    assert (run / "byteify.png").stat().st_size > 1000
    assert json.loads((run / "byteify.json").read_text())["gap_closed"] is None
    assert len(blt.load(run / "checkpoint").generate("9", max_bytes=5).text) > 0
    assert main(["plan", str(run / "recipe.toml")]) == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"frozen": 1.5}, "byteify.frozen must be between 0 and 1"),
        ({"global_lr": -1.0}, "byteify.global_lr must be between 0 and 1"),
        ({"distill": 2.0}, "byteify.distill must be between 0 and 1"),
    ],
)
def test_shares_are_checked(recipe: Recipe, change: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named):
        changed(recipe, byteify=change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"patching": PatchingConfig(rule="lookup", fair_scripts=True)}, "fair_scripts: the table"),
        ({"patching": PatchingConfig(rule="learned")}, "byteify.frozen: a router learns nothing"),
    ],
)
def test_what_a_source_cannot_teach_is_refused(
    recipe: Recipe, change: dict[str, Any], named: str
) -> None:
    assert recipe.model is not None
    recipe = replace(recipe, model=replace(recipe.model, **change))
    with pytest.raises(UserError, match=named):
        hooks_of(recipe).resolve(recipe)


def test_a_table_is_taught_by_the_tokenizer_and_nothing_else(
    recipe: Recipe, tmp_path: Path
) -> None:
    """Also for the model from scratch, so that both are cut alike."""
    assert recipe.model is not None
    patching = PatchingConfig(rule="lookup", lookup_order=2)
    recipe = replace(recipe, model=replace(recipe.model, patching=patching), target_patch_size=0.0)
    with pytest.raises(UserError, match="entropy_model: the source's tokenizer teaches the table"):
        hooks_of(recipe).resolve(replace(recipe, entropy_model="pretrained"))
    with pytest.raises(UserError, match=r"stale_patches: only with byteify\.frozen=0"):
        hooks_of(recipe).resolve(changed(recipe, stale_patches=0.1))
    models = [
        train_hooked(
            changed(recipe, byteify={"scratch": scratch}, steps=1), tmp_path / str(scratch)
        )
        for scratch in (False, True)
    ]
    tables = [model.state_dict()["lookup_table"] for model in models]
    assert tables[0].any()
    assert torch.equal(*tables)


@pytest.mark.parametrize("prepared", [False, True], ids=["plain", "prepared"])
@pytest.mark.parametrize("kind", ["conversations", "answers"])
def test_text_of_which_only_some_is_learned_is_refused_before_anything_is_written(
    recipe: Recipe, kind: str, prepared: bool, tmp_path: Path
) -> None:
    """Else special ids would move all cuts behind them, and bytes be scored that nobody learns."""
    keys, rows = (CHAT, CHATS) if kind == "conversations" else (PAIR, PAIRS)
    source: str | SourceConfig = SourceConfig(write(tmp_path, "jsonl", rows), **keys)
    if prepared:
        prepare(tmp_path / "shards", Options((source,), heldout=0.3))
        source = str(tmp_path / "shards")
    recipe = replace(recipe, data=replace(recipe.data, sources=(source,), heldout=0.3))
    for scratch in (False, True):
        one = changed(recipe, byteify={"scratch": scratch, "distill": 0.0})
        with pytest.raises(UserError, match="has conversations, or answers of which alone"):
            train_hooked(one, tmp_path / "run")
        with pytest.raises(UserError, match="has conversations, or answers of which alone"):
            byteify(one, tmp_path / "run", show=quiet)
    assert not (tmp_path / "run").exists()


def test_questions_with_answers_that_are_learned_whole_are_plain_text(
    recipe: Recipe, tmp_path: Path
) -> None:
    source = SourceConfig(write(tmp_path, "jsonl", PAIRS), **PAIR)
    data = replace(recipe.data, sources=(source,), heldout=0.3, learn="all")
    assert byteify(changed(replace(recipe, data=data), steps=1), tmp_path / "run", show=quiet)


def test_each_source_is_compared_on_some_bytes_or_it_is_refused(
    recipe: Recipe, data: DataConfig, tmp_path: Path
) -> None:
    """A byte for two sources would be none for either, and nothing to compare on."""
    (tmp_path / "other").mkdir()
    for n in range(40):
        (tmp_path / f"other/{n}.txt").write_text(f"{n} cups of tea on the table. " * 20)
    sources = (*data.sources, str(tmp_path / "other"))
    both = replace(recipe, data=replace(data, sources=sources, weights=(1.0, 1.0)))
    with pytest.raises(UserError, match=r"^train\.eval_bytes: 1 are none for each of 2 sources"):
        byteify(changed(both, eval_bytes=1), tmp_path / "run", show=quiet)
    assert not (tmp_path / "run").exists()
    result = byteify(changed(both, eval_bytes=2, steps=1), tmp_path / "run", show=quiet)
    assert result is not None
    assert result["heldout_bytes"] == 2


def test_what_cannot_be_is_said_before_anything_is_written(
    recipe: Recipe, data: Any, train: Any, tmp_path: Path
) -> None:
    assert recipe.byteify is not None
    source = recipe.byteify.source
    with pytest.raises(UserError, match="nowhere: no such folder"):
        train_hooked(changed(recipe, byteify={"source": "nowhere"}), tmp_path / "run")
    with pytest.raises(UserError, match=r"train it with hooks=blt\.byteify\.hooks_of"):
        train_recipe(recipe, tmp_path / "run")
    with pytest.raises(UserError, match="no section byteify"):
        byteify(replace(recipe, byteify=None), tmp_path / "run", show=quiet)
    with pytest.raises(UserError, match="byteify: only for kind 'blt'"):
        Recipe("byte", data, train, byteify=recipe.byteify)
    folder = shutil.copytree(source, tmp_path / "source")
    (folder / "tokenizer.json").unlink()  # it could be taken over, but not compared
    with pytest.raises(UserError, match=r"source/tokenizer\.json"):
        byteify(changed(recipe, byteify={"source": str(folder)}), tmp_path / "run", show=quiet)
    assert not (tmp_path / "run").exists()
