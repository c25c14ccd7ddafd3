"""``blt generate``: plain, raw, in JSON and in patches, and its one-line errors."""

from __future__ import annotations

import base64
import io
import json
import os
import sys
from pathlib import Path

import pytest
import torch

import blt
from blt import cli
from commands import fails


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
    args = ("x", "--model", blt_model, "--temperature", "1")
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
    stop = data.decode()[2].encode()
    stops = ["--stop", "never written", "--stop", os.fsdecode(stop)]
    assert cli.main([*command, *stops, "prompt", "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["prompt"] == "prompt"
    assert cli.main([*command, *stops, "--json"]) == 0
    stopped = json.loads(capsysbinary.readouterr().out)
    assert stopped["finish_reason"] == "stop"
    assert base64.b64decode(stopped["base64"]) == data[: data.index(stop)]


def test_text_is_valid_and_raw_bytes_are_any(
    capfdbinary: pytest.CaptureFixture[bytes], blt_model: Path
) -> None:
    """--no-valid-utf8 and --valid-utf8 say otherwise."""
    lm = blt.load(blt_model)
    how = {"max_bytes": 80, "temperature": 2.0, "seed": 1}
    command = ["generate", "caf\udcc3", "--model", str(blt_model)]
    command += ["--max-bytes", "80", "--temperature", "2", "--seed", "1"]

    def printed(*options: str) -> bytes:
        assert cli.main([*command, *options]) == 0
        return capfdbinary.readouterr().out

    valid = lm.generate(b"caf\xc3", valid_utf8=True, **how)
    free = lm.generate(b"caf\xc3", **how)
    assert "�" in free.text
    (b"\xc3" + valid.data).decode()
    assert printed().decode() == f"{valid.text}\n"
    assert printed("--no-valid-utf8").decode() == f"{free.text}\n"
    assert printed("--raw") == printed("--raw", "--no-valid-utf8") == free.data
    assert printed("--raw", "--valid-utf8") == valid.data
    assert json.loads(printed("--json"))["text"] == valid.text
    assert json.loads(printed("--json", "--no-valid-utf8"))["text"] == free.text
    assert b"\xef\xbf\xbd" not in printed("--show-patches")
    assert cli.main([*command, "--valid-utf8", "--no-valid-utf8"]) == 2


def test_generate_says_how_fast_it_was(capsys: pytest.CaptureFixture[str], blt_model: Path) -> None:
    command = ["generate", "x", "--model", str(blt_model), "--stats", "--draft-bytes", "4"]
    assert cli.main([*command, "--max-bytes", "40"]) == 0
    error = capsys.readouterr().err
    for part in ("40 bytes in", "bytes/s", "drafted bytes accepted"):
        assert part in error


@pytest.mark.parametrize("how", [[], ["--json"], ["--show-patches"]])
def test_texts_that_were_not_written_to_the_end_are_an_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, blt_model: Path, how: list[str]
) -> None:
    lm = blt.load(blt_model)
    assert isinstance(lm, blt.BLT)
    weight = lm.decoder.head.weight
    with torch.no_grad():
        weight.copy_(weight.sign() * 3e38)  # sums of which are not finite
    lm.save(tmp_path / "overflows")
    command = ["generate", "one", "two", "--model", str(tmp_path / "overflows"), *how]
    assert cli.main(command) == 2
    shown = capsys.readouterr()
    assert "2 of 2 texts not written to the end: the model's output is not finite" in shown.err
    if how == ["--json"]:
        errors = [json.loads(line)["error"] for line in shown.out.splitlines()]
        assert errors == ["the model's output is not finite"] * 2


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
    within = ("x", "--model", byte_model, "--stop", "\udca9")
    assert "begins within a character" in fails(capsys, "generate", *within)
    assert "draft_bytes" in fails(
        capsys, "generate", "x", "--model", byte_model, "--draft-bytes", "4"
    )
    assert "memory_budget" in fails(
        capsys, "generate", "x", "--model", blt_model, "--max-bytes", "99999999999"
    )
    assert "choose one" in fails(capsys, "generate", "x", "--model", byte_model, "--raw", "--json")
    assert "choose one" in fails(capsys, "generate", "x", "--prompts", tmp_path / "p")
    assert "No such file" in fails(capsys, "generate", "--prompts", tmp_path / "p")
