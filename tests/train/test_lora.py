"""Adapters: merged equals applied, only they are trained and stored, and peft reads them."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import blt
from blt import cli
from blt.chat import ChatTemplate
from blt.checkpoint import adapters
from blt.checkpoint.convert import convert
from blt.checkpoint.open import open_checkpoint
from blt.checkpoint.pretrained import load_patcher
from blt.data import SourceConfig, loader_of
from blt.errors import UserError
from blt.report.verify import verify
from blt.serve.model import model_of
from blt.serve.settings import Settings
from blt.train import DataConfig, Recipe, TrainConfig, lora, train_recipe
from blt.train.sections import LoraConfig
from blt.train.trainer import Trainer
from commands import fails
from metrics import reports
from processes import train, write
from shapes import random_blt

peft = pytest.importorskip("peft")

TEXTS = [f"{n} bottles of beer on the wall".encode() for n in range(40)]
IDS = blt.encode("12 bottles of beer")
CONFIG = LoraConfig(rank=4, alpha=8.0)
TRAIN = TrainConfig(steps=3, lr=1e-2, device="cpu", precision="float32")


def batches() -> Any:
    return loader_of(TEXTS, batch_bytes=256, context_bytes=64, seed=0)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    random_blt("space").save(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def trained(base: Path) -> blt.LanguageModel:
    """With an adapter that has learned something."""
    model = blt.load(base)
    lora.begin(model, CONFIG, str(base), seed=0)
    trainer = Trainer(model.train(), batches(), TRAIN)
    for _ in range(3):
        trainer.step(0.5)
    trainer.loader.close()
    return model.eval()


def test_an_adapter_changes_nothing_before_it_learns(base: Path) -> None:
    model = blt.load(base)
    expected = model.logits(IDS)
    lora.begin(model, CONFIG, str(base), seed=0)
    assert torch.equal(model.logits(IDS), expected)


def test_an_adapter_is_written_over_no_other_folder(
    base: Path, trained: blt.LanguageModel, tmp_path: Path
) -> None:
    trained.save(tmp_path / "adapter")
    trained.save(tmp_path / "adapter")  # over an adapter it is
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(path.name for path in base.iterdir())
    for target in (tmp_path / "notes", tmp_path / "file", base):
        with pytest.raises(UserError, match=f"{target.name}: has no adapter_config.json"):
            trained.save(target)
    assert (tmp_path / "notes" / "mine.txt").read_text() == "mine"
    assert sorted(path.name for path in base.iterdir()) == before


def test_merged_equals_applied_and_stored_is_the_adapter_alone(
    base: Path, trained: blt.LanguageModel, tmp_path: Path
) -> None:
    applied = trained.logits(IDS)
    assert (applied - blt.load(base).logits(IDS)).abs().max() > 1e-2  # it has learned
    trained.save(tmp_path / "adapter")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {adapters.CONFIG, adapters.WEIGHTS, "checksums.json"}
    followed, given = blt.load(tmp_path / "adapter"), blt.load(base, adapter=tmp_path / "adapter")
    convert(base, tmp_path / "merged", merge=tmp_path / "adapter")
    for lm in (followed, given, blt.load(tmp_path / "merged")):
        assert (lm.logits(IDS) - applied).abs().max() <= 1e-5 * applied.abs().max()
        assert (lm.embed("beer") - trained.embed("beer")).abs().max() < 1e-4
    # What writes reads weights past the modules' forward.
    how = {"max_bytes": 12, "temperature": 0}
    assert trained.generate("12 bot", **how).data == followed.generate("12 bot", **how).data


def test_every_verb_takes_a_base_with_an_adapter_for_it(
    base: Path,
    trained: blt.LanguageModel,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained.chat_template = ChatTemplate.default().source
    trained.save(tmp_path / "run" / "checkpoint")
    (tmp_path / "text.txt").write_text("12 bottles of beer")
    chosen = ["--adapter", str(tmp_path / "run")]  # of a run, its checkpoint is meant
    of_base = ["--model", str(base), *chosen]
    assert cli.main(["eval", "bpb", str(tmp_path / "text.txt"), *of_base, "--json"]) == 0
    bits = trained.bits_per_byte("12 bottles of beer")
    assert json.loads(capsys.readouterr().out)["bits_per_byte"] == pytest.approx(bits, rel=1e-4)
    assert cli.main(["generate", "12 bot", *of_base, "--json", "--temperature", "0"]) == 0
    lm = blt.load(base, adapter=tmp_path / "run")
    expected = lm.generate("12 bot", temperature=0, valid_utf8=True)
    assert json.loads(capsys.readouterr().out)["text"] == expected.text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"12?\n")))
    assert cli.main(["chat", str(base), *chosen, "--max-bytes", "9"]) == 0  # has its template
    assert capsys.readouterr().out.count("\n") == 1
    served = model_of(Settings(str(base), adapter=str(tmp_path / "run")), "cpu")
    assert (served.logits(IDS) - trained.logits(IDS)).abs().max() < 1e-4
    assert served.chat_template == trained.chat_template
    several = ["eval", "bpb", str(tmp_path / "text.txt"), "--model", str(base), "pretrained"]
    assert "--adapter is for one --model" in fails(capsys, *several, *chosen)


def test_the_gradients_are_those_of_the_plain_formula(base: Path) -> None:
    """Among them those of layers whose product is fused with the activation before it."""
    model = blt.load(base)
    lora.begin(model, CONFIG, str(base), seed=0)
    with torch.no_grad():
        for name, parameter in adapters.tensors_of(model).items():
            if name.endswith(adapters.B):
                parameter.normal_(std=0.02)
    plain = blt.load(base)
    layers = {n.removesuffix(adapters.A): p for n, p in adapters.tensors_of(model).items()}
    pairs = {
        n.removeprefix(adapters.PREFIX): (a, adapters.tensors_of(model)[n + adapters.B])
        for n, a in layers.items()
        if not n.endswith(adapters.B)
    }
    leaves = {
        n: (a.detach().clone().requires_grad_(), b.detach().clone().requires_grad_())
        for n, (a, b) in pairs.items()
    }
    changed = {
        f"{n}.weight": plain.get_parameter(f"{n}.weight").detach() + 2 * b @ a
        for n, (a, b) in leaves.items()
    }
    batch = plain.lay_out([IDS])
    torch.func.functional_call(plain, changed, (batch,)).square().sum().backward()
    model(batch).square().sum().backward()
    assert any(n.endswith("ff.down") for n in pairs)
    for name, (a, b) in pairs.items():
        for found, expected in zip((a, b), leaves[name], strict=True):
            assert found.grad is not None, name
            assert expected.grad is not None
            assert torch.allclose(found.grad, expected.grad, rtol=1e-3, atol=1e-4), name


def test_only_adapters_have_gradients_and_optimiser_states(trained: blt.LanguageModel) -> None:
    learned = {name for name, p in trained.named_parameters() if p.requires_grad}
    assert learned == {
        n.removeprefix(adapters.PREFIX).replace(".weight", ".default.weight")
        for n in adapters.tensors_of(trained)
    }
    trainer = Trainer(trained.train(), batches(), TRAIN)
    trainer.step(0.5)
    trainer.loader.close()
    held = sum(t.numel() for name, t in trainer.state().tensors.items() if "exp_avg" in name)
    assert held == 2 * sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_all_linear_layers_of_the_local_and_global_models_are_adapted(base: Path) -> None:
    model = blt.load(base)
    names = lora.targets_of(model, ())
    linear = {n for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    left = {n for n in linear if n.startswith("entropy_model.")} | {"decoder.head"}
    assert set(names) == linear - left
    assert all(
        n.startswith("global_transformer.") for n in lora.targets_of(model, ("global_transformer",))
    )
    assert all(n.endswith("attention.qkv") for n in lora.targets_of(model, ("attention.qkv",)))
    with pytest.raises(UserError, match=r"lora.targets: no layer has 'qvk'.*there are.*qkv"):
        lora.targets_of(model, ("qvk",))


def test_peft_loads_what_is_stored(base: Path, trained: blt.LanguageModel, tmp_path: Path) -> None:
    trained.save(tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(blt.load(base), str(tmp_path / "adapter")).eval()
    with torch.no_grad():
        found = theirs.base_model.model.packed_logits([IDS])
    assert (found - trained.logits(IDS)).abs().max() < 1e-5


@pytest.fixture
def recipe(base: Path, tmp_path: Path) -> Recipe:
    """Conversations, learned by an adapter of ``base``."""
    turns = [[("user", f"{n} bottles?"), ("assistant", f"{n}, on the wall")] for n in range(80)]
    rows = [{"messages": [{"role": r, "content": c} for r, c in each]} for each in turns]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(str(tmp_path / "chat.jsonl"), messages="messages")
    every = {"steps": 4, "evals": 1, "eval_bytes": 200, "sample_prompts": ("12",)}
    return Recipe(
        kind="blt",
        init=str(base),
        data=DataConfig(sources=(source,), batch_bytes=256, context_bytes=64),
        train=replace(TRAIN, **every, checkpoint_every_seconds=1e-9),
        lora=CONFIG,
    )


def test_a_training_of_adapters_goes_on_exactly(base: Path, recipe: Recipe, tmp_path: Path) -> None:
    whole = train_recipe(recipe, tmp_path / "whole")
    checkpoint = tmp_path / "whole" / "checkpoint"
    assert adapters.base_of(checkpoint) == str(base)
    assert not (checkpoint / "model.safetensors").exists()
    loaded = blt.load(checkpoint)
    assert (loaded.logits(IDS) - whole.logits(IDS)).abs().max() < 1e-4
    at_once = adapters.read(checkpoint)[1]

    def stop(report: Any) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_recipe(recipe, tmp_path / "parts", on_progress=stop)
    train_recipe(recipe, tmp_path / "parts", resume=True)
    again = adapters.read(tmp_path / "parts" / "checkpoint")[1]
    for layer, pair in at_once.items():
        assert all(map(torch.equal, pair, again[layer])), layer


def test_an_adapter_of_a_base_in_int8(base: Path, recipe: Recipe, tmp_path: Path) -> None:
    convert(base, tmp_path / "int8", precision="int8")
    recipe = replace(recipe, init=str(tmp_path / "int8"))
    applied = train_recipe(recipe, tmp_path / "run").logits(IDS)
    checkpoint = tmp_path / "run" / "checkpoint"
    assert adapters.base_of(checkpoint) == str(tmp_path / "int8")
    convert(tmp_path / "int8", tmp_path / "merged", merge=checkpoint)
    for merged in (blt.load(checkpoint), blt.load(tmp_path / "merged")):
        assert (merged.logits(IDS) - applied).abs().max() < 1e-4
    convert(tmp_path / "int8", tmp_path / "again", merge=checkpoint, precision="int8")
    rounded = blt.load(tmp_path / "again").logits(IDS)
    assert (rounded - applied).abs().max() < 0.05 * applied.abs().max()


def test_an_adapter_of_a_model_that_cuts_by_entropies(recipe: Recipe, tmp_path: Path) -> None:
    random_blt("entropy").save(tmp_path / "cuts")
    recipe = replace(recipe, init=str(tmp_path / "cuts"), model=None)
    train_recipe(recipe, tmp_path / "run")
    longer = replace(recipe, train=replace(recipe.train, steps=6))
    model = train_recipe(longer, tmp_path / "run", resume=True)
    found = blt.load(tmp_path / "cuts", adapter=tmp_path / "run")
    assert (found.logits(IDS) - model.logits(IDS)).abs().max() < 1e-4
    assert found.threshold == blt.load(tmp_path / "cuts").threshold


def test_two_processes_train_the_adapter_that_one_would(
    recipe: Recipe, base: Path, tmp_path: Path
) -> None:
    often = {"steps": 6, "checkpoint_every_seconds": 60.0}
    train(write(recipe, tmp_path / "1.toml", **often, accumulate=2), tmp_path / "one")
    train(write(recipe, tmp_path / "2.toml", **often), tmp_path / "two", processes=2)
    alone, together = reports(tmp_path / "one"), reports(tmp_path / "two")
    assert alone[-1]["bits_per_byte"] < alone[0]["bits_per_byte"]
    for a, b in zip(alone, together, strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-4)
        assert b["bytes_seen"] == a["bytes_seen"]
    longer = often | {"steps": 9}
    train(write(recipe, tmp_path / "1.toml", **longer), tmp_path / "one", "--resume", processes=2)
    longer["accumulate"] = 2
    train(write(recipe, tmp_path / "2.toml", **longer), tmp_path / "two", "--resume")
    for a, b in zip(reports(tmp_path / "one"), reports(tmp_path / "two"), strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-3)
    found = [adapters.read(tmp_path / run / "checkpoint")[1] for run in ("one", "two")]
    for layer, pair in found[0].items():
        for a, b in zip(pair, found[1][layer], strict=True):
            assert (a - b).abs().max() < 0.02 * a.abs().max() + 1e-4, layer


def test_a_compiled_training_of_adapters_has_the_losses_of_a_plain_one(
    recipe: Recipe, tmp_path: Path, without_a_compiler: None
) -> None:
    short = replace(recipe.train, steps=3, evals=0)  # tracing takes the time
    train_recipe(replace(recipe, train=short), tmp_path / "plain")
    compiled = replace(recipe, train=replace(short, compile=True))
    train_recipe(compiled, tmp_path / "compiled")
    for a, b in zip(reports(tmp_path / "plain"), reports(tmp_path / "compiled"), strict=True):
        assert b["bits_per_byte"] == pytest.approx(a["bits_per_byte"], rel=1e-4)


def test_an_adapter_brings_the_template_that_it_was_trained_with(
    base: Path, recipe: Recipe, tmp_path: Path
) -> None:
    assert blt.load(base).chat_template is None
    train_recipe(recipe, tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoint"
    assert blt.load(checkpoint).chat_template == ChatTemplate.default().source
    convert(base, tmp_path / "merged", merge=checkpoint)
    assert blt.load(tmp_path / "merged").chat_template == ChatTemplate.default().source


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_patch_size": 3.0}, "target_patch_size"),
        ({"entropy_model": "pretrained"}, "leave out entropy_model"),
        ({"model": {"hash_rows": 7}}, "what the recipe changes in model"),
    ],
)
def test_an_adapter_of_a_changed_base_is_refused_before_anything_is_written(
    base: Path, recipe: Recipe, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    if "model" in change:
        change = {"model": replace(blt.load(base).config, **change["model"])}
    with pytest.raises(UserError, match=message):
        train_recipe(replace(recipe, **change), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_adapter_of_the_packaged_byte_model_has_a_folder_for_its_base(recipe: Recipe) -> None:
    """ "pretrained" is the BLT to whoever loads the adapter."""
    made = replace(recipe, kind="byte", init="pretrained", model=None)
    with pytest.raises(UserError, match=r"lora: init 'pretrained': .*name a folder"):
        lora.check(made)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"r": 0}, "r must be at least 1"),
        ({"r": 0.5}, "r must be a whole number"),
        ({"r": 64}, r"lora_A.weight' is torch.float32 \[\d+, \d+\], and the adapter's rank is 64"),
        ({"lora_alpha": -1}, "lora_alpha must be positive"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number"),
        ({"use_dora": True}, "use_dora"),
        ({"peft_type": "IA3"}, "peft_type"),
        ({"base_model_name_or_path": None}, "names no base model"),
    ],
)
def test_an_adapter_of_another_kind_is_refused_by_its_key(
    trained: blt.LanguageModel, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    trained.save(tmp_path / "adapter")
    path = tmp_path / "adapter" / adapters.CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (tmp_path / "adapter" / "checksums.json").unlink()
    with pytest.raises(UserError, match=message):
        blt.load(tmp_path / "adapter")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lambda x: x * math.nan, "has values that are not finite"),
        (lambda x: x.flatten(), "and the adapter's rank is"),
        (lambda x: x.sum(), r"\[\], and the adapter's rank is"),
        (lambda x: x.long(), "is torch.int64"),
    ],
)
def test_tensors_that_are_no_adapter_are_named(
    trained: blt.LanguageModel, tmp_path: Path, changed: Any, message: str
) -> None:
    trained.save(tmp_path / "adapter")
    path = tmp_path / "adapter" / adapters.WEIGHTS
    tensors = load_file(path)
    name = sorted(tensors)[-1]
    save_file({**tensors, name: changed(tensors[name]).contiguous()}, path)
    (tmp_path / "adapter" / "checksums.json").unlink()
    with pytest.raises(UserError, match=message):
        blt.load(tmp_path / "adapter")


def test_a_link_out_of_an_adapters_folder_is_not_followed(
    trained: blt.LanguageModel, tmp_path: Path
) -> None:
    trained.save(tmp_path / "adapter")
    path = tmp_path / "adapter" / adapters.WEIGHTS
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="is a link out of its folder"):
        blt.load(tmp_path / "adapter")


def test_what_does_not_fit_is_refused_and_says_the_way_out(
    base: Path, trained: blt.LanguageModel, tmp_path: Path
) -> None:
    trained.save(tmp_path / "adapter")
    other = blt.ByteLM(blt.ByteTransformerConfig(dim=16, heads=2, layers=1, ff_dim=16))
    other.save(tmp_path / "other")
    refused = rf"adapter does not fit {tmp_path}/other: .*; it was made for {base}"
    with pytest.raises(UserError, match=refused):
        blt.load(tmp_path / "other", adapter=tmp_path / "adapter")
    with pytest.raises(UserError, match=r"no adapter_config\.json here"):
        blt.load(base, adapter=tmp_path / "other")
    with pytest.raises(UserError, match=r"is an adapter; try: blt convert .*base .* --merge"):
        convert(tmp_path / "adapter", tmp_path / "out")
    data = DataConfig(sources=("x",))
    recipe = Recipe("blt", data, TRAIN, entropy_model="pretrained", lora=CONFIG)
    with pytest.raises(UserError, match="lora: adapts a model that is there"):
        lora.check(recipe)


def test_what_reads_model_folders_reads_adapters_or_says_the_way_out(
    base: Path, trained: blt.LanguageModel, tmp_path: Path
) -> None:
    trained.save(tmp_path / "adapter")
    assert load_patcher(tmp_path / "adapter").config == load_patcher(base).config
    assert verify(tmp_path / "adapter").faults == []
    with pytest.raises(UserError, match="is an adapter; merge it first: blt convert"):
        open_checkpoint(tmp_path / "adapter")


def test_the_model_in_the_package_is_merged_in_float32(tmp_path: Path) -> None:
    model = blt.load()
    lora.begin(model, LoraConfig(rank=1, targets=("global_transformer",)), "pretrained", seed=0)
    with torch.no_grad():
        for name, parameter in adapters.tensors_of(model).items():
            if name.endswith(adapters.B):
                parameter.normal_(std=0.02)
    model.eval().save(tmp_path / "adapter")
    convert("pretrained", tmp_path / "merged", merge=tmp_path / "adapter")
    expected = model.logits(IDS)
    for place in ("adapter", "merged"):
        found = blt.load(tmp_path / place).logits(IDS)
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert load_patcher(tmp_path / "adapter").config == model.config.patching
