"""`blt eval` scores what it says, with every kind of model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import blt
from blt import cli
from blt.errors import UserError
from blt.evals import cute
from blt.evals.compare import short_names
from blt.evals.languages import read_languages
from blt.lm import LanguageModel, TokenLM
from blt.model.config import TokenTransformerConfig
from blt.tokens.tokenizer import ByteTokenizer
from shapes import TINY, TINY_BLT, random_blt
from texts import MULTILINGUAL


@pytest.fixture(scope="module")
def models() -> list[LanguageModel]:
    torch.manual_seed(0)
    shape = TokenTransformerConfig(vocab_size=300, dim=16, heads=2, layers=1, ff_dim=32)
    tokens = TokenLM(shape, ByteTokenizer.train([MULTILINGUAL], 300)).eval()
    return [random_blt(), blt.ByteLM(TINY).eval(), tokens]


@given(st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=20)), max_size=5))
def test_log_likelihoods_of_parts_add_up_to_that_of_the_whole(
    models: list[LanguageModel], pairs: list[tuple[bytes, bytes]]
) -> None:
    for lm in models[:2]:  # tokens may join across the border
        found = lm.log_likelihoods(pairs)
        for (prompt, rest), value in zip(pairs, found, strict=True):
            whole = lm.bits_per_byte(prompt + rest) * len(prompt + rest)
            part = lm.bits_per_byte(prompt) * len(prompt)
            assert value == pytest.approx(-(whole - part) * math.log(2), abs=1e-2)
    for lm in models:
        found = lm.log_likelihoods([(b"", text) for _, text in pairs])
        for (_, text), value in zip(pairs, found, strict=True):
            bits = lm.bits_per_byte(text) * len(text)
            assert value == pytest.approx(-bits * math.log(2), abs=1e-2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    blt.BLT(TINY_BLT).save(tmp_path / "model")
    return tmp_path / "model"


def rows(capsys: pytest.CaptureFixture[str], *args: object) -> list[dict[str, Any]]:
    assert cli.main(["eval", *map(str, args), "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_task_of_the_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_bytes(MULTILINGUAL[:600] + b"\xff")
    use = ("--model", model)
    (row,) = rows(capsys, "bpb", text, *use)
    assert row["bytes"] == 601
    assert row["bits_per_byte"] == pytest.approx(
        blt.load(model).bits_per_byte(text.read_bytes()), rel=1e-4
    )
    noises = rows(capsys, "noise", text, *use)
    assert [row["noise"] for row in noises[::2]][:3] == ["none", "AntSpeak", "Drop"]
    assert noises[0]["more_bits"] == noises[1]["more_bits"] == 0
    assert cli.main(["eval", "bpb", str(text), *map(str, use)]) == 0
    assert "bits per byte" in capsys.readouterr().out


def test_several_models_are_compared_row_by_row(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    text, other = tmp_path / "text.txt", tmp_path / "other"
    text.write_bytes(MULTILINGUAL[:900])
    pieces = ("--context-bytes", 500)  # two of them
    blt.ByteLM(TINY).save(other)
    alone = [
        *rows(capsys, "noise", text, *pieces, "--model", model),
        *rows(capsys, "noise", text, *pieces, "--model", other),
    ]
    both = rows(capsys, "noise", text, *pieces, "--model", model, other)
    assert [row.pop("model") for row in both] == ["model"] * 22 + ["other"] * 22
    for row, single in zip(both, alone, strict=True):
        assert single.items() <= row.items()
    assert {row["difference"] for row in both[:22]} == {None}
    for first, second in zip(both[:22], both[22:], strict=True):
        change = second["more_bits"] - first["more_bits"]
        assert second["difference"] == pytest.approx(change, abs=1e-9)
        assert second["difference_low"] - 1e-9 <= change <= second["difference_high"] + 1e-9
    figure = tmp_path / "noise.png"
    command = ["eval", "noise", text, *pieces, "--model", model, other, "--plot", figure]
    assert cli.main([*map(str, command)]) == 0
    lines = [line.split()[:2] for line in capsys.readouterr().out.splitlines()[1:]]
    names = [n for n in ("none", "AntSpeak") for _ in range(2)]  # in all of it, in the first half
    assert lines[:8] == [[n, m] for n in names for m in ("model", "other")]
    assert figure.stat().st_size > 0
    assert cli.main(["eval", "noise", str(text), "--model", str(model), str(model)]) == 2
    assert "named twice" in capsys.readouterr().err


def test_options_that_would_do_nothing_are_refused(
    capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("text")
    for command, message in (
        (["languages", tmp_path, "--max-bytes", 100], "--max-bytes: means nothing for languages"),
        (["bpb", text, "--generate"], "which takes --max-bytes, --context-bytes"),
        (["bpb", text, "--limit", 3], "--limit: means nothing for bpb"),
        (["bpb", "--model", model, text], "those after --model are taken for models"),
        (["bpb", text, "--device", "toaster"], "--device: 'toaster' is not there"),
    ):
        assert cli.main(["eval", *map(str, command)]) == 2
        assert message in capsys.readouterr().err


def test_the_packaged_model_leaves_the_others_their_short_names() -> None:
    runs = [Path(f"/long/way/to/runs/{name}/checkpoint") for name in ("one", "two")]
    packaged = Path("pretrained")
    assert short_names([packaged, *runs]) == ["pretrained", "one", "two"]
    assert short_names([runs[0], packaged]) == ["one", "pretrained"]
    named_alike = short_names([packaged, Path("/away/pretrained")])
    assert len(set(named_alike)) == 2


@given(st.lists(st.text("ab/", min_size=1), min_size=2, unique_by=Path))
def test_short_names_of_models_differ_and_lie_in_their_paths(paths: list[str]) -> None:
    names = short_names([Path(path) for path in paths])
    assert len(set(names)) == len(names)
    for name, path in zip(names, paths, strict=True):
        assert name
        assert name in str(Path(path))


def test_languages_are_compared_sentence_by_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    folder = tmp_path / "parallel"
    folder.mkdir()
    (folder / "eng_Latn.txt").write_text("One sentence.\nAnother.\nRest\n")
    (folder / "deu_Latn.txt").write_text("Ein Satz.\nNoch ein anderer.\nRest\n")
    figure = tmp_path / "languages.svg"
    english, german, worst = rows(
        capsys, "languages", folder, "--model", model, "--limit", 2, "--plot", figure
    )
    assert (english["language"], english["patches_vs_english"]) == ("eng_Latn", 1)
    lm, lines = blt.load(model), b"Ein Satz.\nNoch ein anderer."
    assert german["bytes"] == len(lines)
    assert german["bits_per_byte"] == pytest.approx(lm.bits_per_byte(lines), rel=1e-4)
    patches = len(lm.patch(lines).lengths) - 1  # BOS
    assert german["bytes_per_patch"] == pytest.approx(len(lines) / patches)
    assert german["patches_per_sentence"] == pytest.approx(patches / 2)
    values = [row["bits_per_byte"] for row in (english, german)]
    assert worst["bits_per_byte"] == pytest.approx(max(values) / min(values))
    assert "bits per byte" in figure.read_text()
    (folder / "fra_Latn.txt").write_text("Une seule\n")
    assert cli.main(["eval", "languages", str(folder), "--model", str(model)]) == 2
    assert "not parallel: 'deu_Latn' has 3 lines, 'fra_Latn' has 1" in capsys.readouterr().err
    (folder / "fra_Latn.txt").rename(folder / "eng_Latn.old")
    assert cli.main(["eval", "languages", str(folder), "--model", str(model)]) == 2
    assert "eng_Latn.txt: a second file for 'eng_Latn'" in capsys.readouterr().err


def test_a_language_without_text_is_named(tmp_path: Path) -> None:
    for name, text in (("deu", "\nb\n"), ("eng", "a\nb\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    assert read_languages(tmp_path, None)["deu"] == [b"", b"b"]
    with pytest.raises(UserError, match="the first 1 lines of 'deu' are empty"):
        read_languages(tmp_path, 1)


def test_lines_that_a_limit_leaves_out_must_be_parallel_too(tmp_path: Path) -> None:
    (tmp_path / "eng.txt").write_text("One.\nTwo.\n")
    (tmp_path / "deu.txt").write_text("Eins.\n")
    with pytest.raises(UserError, match="not parallel"):
        read_languages(tmp_path, 1)


def test_mistakes_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, model: Path
) -> None:
    table = tmp_path / "spell.tsv"
    table.write_text("input1\tlabel\none\n")
    with pytest.raises(UserError, match=r"spell\.tsv:2: 1 columns"):
        cute.read_task(table)
    for args, message in (
        (["cuddle", "x"], "choose one of"),
        (["cute", str(tmp_path / "model")], "no spell.tsv"),
        (["piqa", "a.jsonl"], "use blt lm-eval --model blt --model_args pretrained=FOLDER "),
        (["blimp", "none.jsonl"], "none.jsonl"),
        (["lambada"], "name its texts or data"),
        (["bpb", "x", "--typos", "list"], "--typos: means nothing for bpb"),
        (["cute", "a", "b"], "nothing else"),
        (["bpb", str(tmp_path / "none")], "no such file"),
        (["bpb"], "name its texts"),
        (["bpb", "x", "--plot", "a.gif"], "must end in .png"),
        (["bpb", "x", "--plot", "none/a.png"], "no such folder none"),
        (["cute", str(tmp_path), "--limit", "0"], "--limit must be at least 1, got 0"),
        (["bpb", str(table), "--max-bytes", "0"], "--max-bytes must be at least 1"),
        (["languages", str(table)], "name a folder"),
    ):
        assert cli.main(["eval", *args, "--model", str(model)]) == 2
        assert message in capsys.readouterr().err
