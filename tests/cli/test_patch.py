"""``blt patch``: what it prints of any bytes, and its one-line errors."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

import blt
from blt import cli
from blt.checkpoint import pretrained
from blt.patching.tables import write_lookup_table
from commands import fails
from shapes import random_blt


def blt_json(*args: object) -> dict[str, object]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert cli.main(["patch", *map(str, args), "--json"]) == 0
    return json.loads(out.getvalue())


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


def test_a_table_of_counts_needs_no_model_and_cuts_its_text_as_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained.resources, "files", lambda _: tmp_path)  # no model in there
    text, table = "How much wood would a woodchuck chuck? " * 20, tmp_path / "table.safetensors"
    lost = table.parent / "nowhere" / "table.safetensors"
    said = fails(capsys, "patch", text, "--make-table", lost, "--counts", "--target", 3)
    assert "nowhere" in said
    assert "cannot be written" in said
    made = ("patch", text, "--make-table", str(table), "--counts", "--target", "3", "--order", "1")
    assert cli.main([*made]) == 0
    assert "of 260 1-grams, learned from 780 bytes" in capsys.readouterr().out
    cut = blt_json(text, "--rule", "lookup", "--table", table)
    assert cut["mean_patch_size"] == pytest.approx(3, rel=0.15)
    assert cli.main([*made[:-1], "2", "--fair-scripts"]) == 0
    assert "2-grams" in capsys.readouterr().out
    assert "1 byte knows no scripts" in fails(capsys, *made, "--fair-scripts")
    assert "--counts" in fails(capsys, "patch", text, "--make-table", table, "--fair-scripts")
    assert "--make-table" in fails(capsys, "patch", text, "--counts")
    assert "--make-table" in fails(capsys, "patch", text, "--order", 3)
    assert "--json" in fails(capsys, "patch", text, "--make-table", table, "--json")
    assert "--threshold" in fails(capsys, *made, "--threshold", 2)
    assert "--rule" in fails(capsys, *made, "--rule", "space")
    assert "1 to 3" in fails(capsys, *made[:-1], "4")


def test_a_model_that_cuts_by_a_table_brings_its_own(tmp_path: Path) -> None:
    lm = random_blt("lookup", max_patch_length=9)
    lm.save(tmp_path / "model")
    text = "a table of two bytes says where patches begin, and no entropy model is asked"
    own = blt_json(text, "--model", tmp_path / "model")
    assert own["rule"] == "lookup"
    assert own["lengths"] == lm.patch(text).lengths[1:].tolist()
    assert len(own["lengths"]) > 5
    write_lookup_table(tmp_path / "other.safetensors", ~lm.lookup_table, 1)
    other = blt_json(text, "--model", tmp_path / "model", "--table", tmp_path / "other.safetensors")
    assert other["lengths"] != own["lengths"]


def test_threshold_of_the_model_is_used(byte_model: Path, blt_model: Path) -> None:
    assert blt_json("abc", "--model", byte_model)["parameters"]["threshold"] == 5.2
    packaged = blt.load()
    assert isinstance(packaged, blt.BLT)
    text = "the BLT in the package cuts, not its entropy model"
    assert (
        blt_json(text, "--model", "pretrained")["mean_patch_size"] == packaged.patch(text).mean_size
    )
    spaces = blt_json("a b", "--rule", "space")["parameters"]
    assert spaces == {"rule": "space"}  # and nothing that it does not use
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
    command = [sys.executable, "-m", "blt", "patch", "--rule", "space", "--json"]
    done = subprocess.run(command, input=b"\xff\x00 a", capture_output=True, check=True)
    patches = json.loads(done.stdout)["patches"]
    assert b"".join(base64.b64decode(patch["base64"]) for patch in patches) == b"\xff\x00 a"
    quiet = f"{' '.join(command)} | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", quiet], input=b"a b " * 100_000, capture_output=True)
    assert done.stderr == b""


def test_a_model_that_learned_to_cut_shows_how_likely_each_patch_was(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    random_blt("learned", max_patch_length=9).save(tmp_path / "model")
    text, model = "some text to cut", ("--model", tmp_path / "model")
    cut = blt_json(text, *model)
    assert cut["entropies"] is None
    assert len(cut["probabilities"]) == len(text)  # type: ignore[arg-type]
    assert cli.main(["patch", text, *map(str, model)]) == 0
    shown = capsys.readouterr().out
    assert f"{cut['probabilities'][0]:.3f}" in shown  # type: ignore[index]
    assert "rule: learned" in shown
    assert "--model" in fails(capsys, "patch", "x", "--rule", "learned")
    assert "threshold" in fails(capsys, "patch", "x", *model, "--threshold", "1")
    table = ("--make-table", tmp_path / "table")
    assert "no entropies" in fails(capsys, "patch", "x", *model, *table)


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


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    assert "permissions" in fails(capsys, "patch", "--file", secret)
