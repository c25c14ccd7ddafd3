"""The command line: what it prints, its exit statuses, and its one-line errors."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt import cli
from blt.checkpoint import pretrained
from shapes import TINY, TINY_BLT


@pytest.fixture(scope="module")
def byte_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "byte"
    blt.ByteLM(TINY).save(folder)
    pretrained.save_patching(folder, blt.PatchingConfig(threshold=5.2))
    return folder


@pytest.fixture(scope="module")
def blt_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "blt"
    torch.manual_seed(0)
    blt.BLT(TINY_BLT).save(folder)
    return folder


def blt_json(*args: object) -> dict[str, object]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["patch", *map(str, args), "--json"]) == 0
    return json.loads(out.getvalue())


def fails(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """The one line on standard error of a command that must end in 2."""
    assert cli.main([str(arg) for arg in args]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("blt: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


# --- the command itself ---------------------------------------------------------------------------


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"blt {blt.__version__}\n"
    for args in ([], ["--help"], *([verb, "--help"] for verb in cli.VERBS)):
        assert cli.main(args) == 0
        assert "usage: blt" in capsys.readouterr().out


def test_wrong_arguments_end_in_2(capsys: pytest.CaptureFixture[str]) -> None:
    for args in (["nonsense"], ["patch", "x", "--nonsense"], ["patch", "--stride", "x"], ["train"]):
        assert cli.main(args) == 2


def test_changes_to_a_recipe_may_stand_anywhere(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where a folder's name looks like one, as an option's value."""
    recipe = "recipes/entropy-laptop.toml"
    run = ["--run", str(tmp_path / "a=b"), f"--run={tmp_path}/c=d"]
    for args in (
        ["train", recipe, "train.steps=3", run[0], run[1], "seed=-1"],
        ["train", recipe, run[2], "train.steps=3", "--resume", "seed=-1"],
        ["plan", "train.steps=3", recipe, "--json", "seed=-1"],
    ):
        assert cli.main(args) == 2
        assert "seed must not be negative" in capsys.readouterr().err


def test_byteify_recipe_without_a_source_names_the_verb(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["train", "recipes/byteify.toml", "--run", str(tmp_path / "run")]) == 2
    assert "`blt byteify SOURCE RECIPE --run FOLDER`" in capsys.readouterr().err


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, blt.cli; blt.cli.main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("said", ["stopped; the last checkpoint is runs/x/checkpoint", ""])
def test_interrupt_ends_in_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], said: str
) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt(*filter(None, [said]))

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["demo"]) == 130
    assert capsys.readouterr().err == f"blt: {said or 'interrupted'}\n"


# --- patch ----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["byte-model", "space", "static", "byte"]))
def test_json_round_trips_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, byte_model: Path, data: bytes, rule: str
) -> None:
    file = tmp_path_factory.mktemp("text") / "data"
    file.write_bytes(data)
    choice = ["--model", byte_model] if rule == "byte-model" else ["--rule", rule]
    cut = blt_json("--file", file, *choice)
    patches = [base64.b64decode(patch["base64"]) for patch in cut["patches"]]
    assert b"".join(patches) == data
    assert cut["lengths"] == [len(patch) for patch in patches]
    assert all(length > 0 for length in cut["lengths"])
    assert cut["bytes"] == len(data)
    if rule == "byte-model":
        assert len(cut["entropies"]) == len(data)
    for patch, exact in zip(cut["patches"], patches, strict=True):
        assert patch["text"] is None or patch["text"].encode() == exact


def test_every_rule(tmp_path: Path, byte_model: Path) -> None:
    text = "Hello, world: héllo"
    for rule in ("entropy", "entropy-monotonic", "entropy-combined"):
        cut = blt_json(text, "--rule", rule, "--model", byte_model, "--threshold", 5)
        assert cut["rule"] == rule
    assert blt_json("abcdef", "--rule", "static", "--stride", 4)["lengths"] == [4, 2]
    assert blt_json("abc", "--rule", "byte")["lengths"] == [1, 1, 1]
    assert blt_json("ab cd", "--rule", "space")["lengths"] == [3, 2]
    assert blt_json("abcde", "--rule", "space", "--max-patch-length", 2)["lengths"] == [2, 2, 1]
    table = tmp_path / "table.safetensors"
    assert cli.main(["patch", text, "--model", str(byte_model), "--make-table", str(table)]) == 0
    assert blt_json(text, "--rule", "lookup", "--table", table)["rule"] == "lookup"


def test_threshold_of_the_model_is_used(byte_model: Path, blt_model: Path) -> None:
    assert blt_json("abc", "--model", byte_model)["parameters"]["threshold"] == 5.2
    found = blt_json("abc", "--model", blt_model)["parameters"]["threshold"]
    assert found == blt.PatchingConfig().threshold
    assert blt_json("abc", "--model", byte_model, "--threshold", 9)["lengths"] == [3]


def test_target_sets_the_mean_patch_size(byte_model: Path) -> None:
    text = "How much wood would a woodchuck chuck if a woodchuck could chuck wood?" * 3
    cut = blt_json(text, "--model", byte_model, "--target", 4)
    assert cut["mean_patch_size"] == pytest.approx(4, rel=0.1)


def test_installation_without_the_shipped_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(pretrained.resources, "files", lambda _: tmp_path)
    assert "--model FOLDER" in fails(capsys, "patch", "x")


def test_bpe_offsets_are_bytes(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    text = tmp_path / "text"
    text.write_bytes("äöü 日本 x".encode() + b" \xff\xfey z")
    cut = blt_json("--file", text, "--rule", "bpe", "--tokenizer", tmp_path / "tokenizer.json")
    # "äöü " is 7 bytes, "日本 " 7, "x " 2, then two invalid bytes, y, a space
    assert cut["lengths"] == [7, 7, 2, 4, 1]


def test_plain_output_has_separators(capsys: pytest.CaptureFixture[str], byte_model: Path) -> None:
    assert cli.main(["patch", "ab cd", "--rule", "space"]) == 0
    out = capsys.readouterr().out
    assert "ab │cd\n" in out
    assert "2.50 bytes per patch" in out
    assert cli.main(["patch", "ab cd", "--model", str(byte_model)]) == 0
    assert "nats" in capsys.readouterr().out


def test_pipe_in_and_broken_pipe_out() -> None:
    command = [sys.executable, "-m", "blt.cli", "patch", "--rule", "space", "--json"]
    done = subprocess.run(command, input=b"\xff\x00 a", capture_output=True, check=True)
    patches = json.loads(done.stdout)["patches"]
    assert b"".join(base64.b64decode(patch["base64"]) for patch in patches) == b"\xff\x00 a"
    quiet = f"{' '.join(command)} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", quiet], input=b"a b " * 100_000, capture_output=True)
    assert done.stderr == b""


def test_patch_mistakes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, byte_model: Path
) -> None:
    missing = tmp_path / "missing"
    text = tmp_path / "text"
    text.write_text("some text")
    assert "missing: No such file" in fails(capsys, "patch", "--file", missing)
    assert "folder" in fails(capsys, "patch", "--file", tmp_path)
    assert "choose one" in fails(capsys, "patch", "text", "--file", text)
    assert "'entropy'" in fails(capsys, "patch", "x", "--rule", "entropie")
    assert "stride" in fails(capsys, "patch", "x", "--rule", "static", "--stride", "0")
    assert "--table" in fails(capsys, "patch", "x", "--rule", "lookup")
    assert "text: not a safetensors" in fails(
        capsys, "patch", "x", "--rule", "lookup", "--table", text
    )
    assert "--tokenizer" in fails(capsys, "patch", "x", "--rule", "bpe")
    assert "tokenizer.json" in fails(capsys, "patch", "x", "--rule", "bpe", "--tokenizer", text)
    assert "no such folder" in fails(capsys, "patch", "x", "--model", missing)
    assert "--order" in fails(
        capsys, "patch", "x", "--model", byte_model, "--make-table", text, "--order", "9"
    )
    assert text.read_text() == "some text"
    assert "no bytes" in fails(capsys, "patch", "", "--model", byte_model, "--target", "4")
    assert "target" in fails(capsys, "patch", "x", "--model", byte_model, "--target", "0.5")
    assert "only entropy rules" in fails(capsys, "patch", "x", "--rule", "space", "--target", "4")


# --- generate -------------------------------------------------------------------------------------


def test_generate(
    capfdbinary: pytest.CaptureFixture[bytes], blt_model: Path, byte_model: Path
) -> None:
    for model in (blt_model, byte_model):
        command = ["generate", "abc", "--model", str(model), "--max-bytes", "5"]
        assert cli.main(command) == 0
        first = capfdbinary.readouterr().out
        first.decode()  # whole characters only
        assert cli.main(command) == 0
        assert capfdbinary.readouterr().out == first
        assert cli.main([*command, "--raw"]) == 0
        assert len(capfdbinary.readouterr().out) <= 5


def generated(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    assert cli.main(["generate", *map(str, args), "--max-bytes", "12"]) == 0
    return capsys.readouterr().out


def test_generate_in_json_and_in_patches(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, blt_model: Path
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_bytes(b"one\n\xff\xfe\nthree\n")
    lines = generated(capsys, "--model", blt_model, "--prompts", prompts, "--json").splitlines()
    results = [json.loads(line) for line in lines]
    assert [result["prompt"] for result in results] == ["one", "��", "three"]
    for seed, result in enumerate(results):
        data = base64.b64decode(result["base64"])
        assert data.decode("utf-8", "replace") == result["text"]
        assert len(data) == len(result["logprobs"]) == sum(result["patch_lengths"])
        if seed != 1:  # the same alone
            one = (result["prompt"], "--model", blt_model, "--seed", seed, "--json")
            alone = generated(capsys, *one)
            assert json.loads(alone)["base64"] == result["base64"]
    args = ("x", "--model", blt_model, "--valid-utf8", "--temperature", "1")
    plain = generated(capsys, *args).rstrip("\n")
    shown = generated(capsys, *args, "--show-patches")
    size = len(plain.encode())
    assert shown.count("│") <= size + 1
    assert shown.startswith("x")
    shown = generated(capsys, "ab cd ef", *args[1:], "--max-bytes", 1, "--show-patches")
    lengths = blt.load(blt_model).patch("ab cd ef").lengths.tolist()[1:]
    firsts = [sum(lengths[:count]) for count in range(1, len(lengths))]
    assert [shown.replace("│", "", i).find("│") for i in range(len(firsts))] == firsts
    two = generated(capsys, "one", "two", *args[1:])
    assert two.index("==> one <==") < two.index("==> two <==")
    assert generated(capsys, *args, "--precision", "int8", "--draft-bytes", 3)


def test_several_prompts_and_stop_strings_are_told_apart(
    capsysbinary: pytest.CaptureFixture[bytes],
    monkeypatch: pytest.MonkeyPatch,
    blt_model: Path,
) -> None:
    pipe = io.TextIOWrapper(io.BytesIO(b"one\n\xff\nthree\n"))
    monkeypatch.setattr(sys, "stdin", pipe)
    command = ["generate", "--model", str(blt_model), "--max-bytes", "9", "--temperature", "1"]
    assert cli.main([*command, "--prompts", "-"]) == 0
    shown = capsysbinary.readouterr().out.decode()
    heads = ["==> one <==", "==> � <==", "==> three <=="]
    assert [line for line in shown.splitlines() if line in heads] == heads
    assert cli.main([*command, "--json"]) == 0
    data = base64.b64decode(json.loads(capsysbinary.readouterr().out)["base64"])
    stops = ["--stop", "never written", "--stop", os.fsdecode(data[4:6])]
    assert cli.main([*command, *stops, "prompt", "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["prompt"] == "prompt"
    assert cli.main([*command, *stops, "--json"]) == 0
    stopped = json.loads(capsysbinary.readouterr().out)
    assert stopped["finish_reason"] == "stop"
    assert base64.b64decode(stopped["base64"]) == data[: data.index(data[4:6])]


def test_generate_says_how_fast_it_was(capsys: pytest.CaptureFixture[str], blt_model: Path) -> None:
    command = ["generate", "x", "--model", str(blt_model), "--stats", "--draft-bytes", "4"]
    assert cli.main([*command, "--max-bytes", "40"]) == 0
    error = capsys.readouterr().err
    for part in ("40 bytes in", "bytes/s", "drafted bytes accepted"):
        assert part in error


def test_generate_mistakes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, byte_model: Path, blt_model: Path
) -> None:
    assert "no config.json" in fails(capsys, "generate", "x", "--model", tmp_path)
    assert "no such folder" in fails(capsys, "generate", "x", "--model", tmp_path / "none")
    assert f"--model {byte_model}" in fails(capsys, "generate", byte_model)
    assert "--batch" in fails(capsys, "generate", "x", "--model", byte_model, "--batch", "0")
    assert "seed" in fails(capsys, "generate", "x", "--model", byte_model, "--seed", "-1")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "llama"}')
    assert "llama" in fails(capsys, "generate", "x", "--model", foreign)
    (foreign / "config.json").write_text("{")
    assert "damaged" in fails(capsys, "generate", "x", "--model", foreign)
    wrong_key = {"format": "blt-1", "kind": "byte", "model": {"dims": 4}}
    (foreign / "config.json").write_text(json.dumps(wrong_key))
    assert "did you mean 'dim'" in fails(capsys, "generate", "x", "--model", foreign)
    (foreign / "config.json").write_bytes((byte_model / "config.json").read_bytes())
    assert "model.safetensors: missing" in fails(capsys, "generate", "x", "--model", foreign)
    weights = (byte_model / "model.safetensors").read_bytes()
    (foreign / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    assert "damaged" in fails(capsys, "generate", "x", "--model", foreign)
    assert "temperature" in fails(
        capsys, "generate", "x", "--model", byte_model, "--temperature", "-1"
    )
    assert "top_p" in fails(capsys, "generate", "x", "--model", byte_model, "--top-p", "0")
    assert "stop" in fails(capsys, "generate", "x", "--model", byte_model, "--stop", "")
    assert "draft_bytes" in fails(
        capsys, "generate", "x", "--model", byte_model, "--draft-bytes", "4"
    )
    assert "memory_budget" in fails(
        capsys, "generate", "x", "--model", blt_model, "--max-bytes", "99999999999"
    )
    assert "choose one" in fails(capsys, "generate", "x", "--model", byte_model, "--raw", "--json")
    assert "choose one" in fails(capsys, "generate", "x", "--prompts", tmp_path / "p")
    assert "No such file" in fails(capsys, "generate", "--prompts", tmp_path / "p")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    assert "permissions" in fails(capsys, "patch", "--file", secret)
