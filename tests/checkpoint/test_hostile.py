"""Bad and hostile checkpoints are refused by name; nothing is executed, nothing is written."""

from __future__ import annotations

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import blt
from blt.checkpoint.convert import convert
from blt.cli import main
from blt.errors import UserError
from shapes import TINY, TINY_BLT

NORM = "model.local_decoder.norm.weight"
Attack = Callable[[Path], None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good checkpoint in transformers' layout, in shards."""
    torch.manual_seed(0)
    blt.BLT(TINY_BLT).save(tmp_path / "made")
    convert(tmp_path / "made", tmp_path / "bad", "transformers", shard_bytes=30_000)
    return tmp_path / "bad"


def refused(folder: Path, *named: str) -> None:
    """Neither loaded nor converted: one line that says all of this, and nothing left behind."""
    before = sorted(folder.parent.rglob("*"))
    for attempt in (
        lambda: blt.load(folder),
        lambda: convert(folder, folder.parent / "out", "transformers"),
    ):
        with pytest.raises(UserError) as error:
            attempt()
        assert "\n" not in str(error.value)
        for part in named:
            assert part in str(error.value)
    assert sorted(folder.parent.rglob("*")) == before


def shard(folder: Path, number: int = 0) -> Path:
    return sorted(folder.glob("*.safetensors"))[number]


def edit_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_index(folder: Path, **moves: str) -> None:
    edit_json(
        folder / "model.safetensors.index.json", lambda index: index["weight_map"].update(moves)
    )


def replace_tensor(folder: Path, name: str, tensor: torch.Tensor | None) -> None:
    """In the shard where it is; None: take it out."""
    index = json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]
    path = folder / index[name]
    tensors = load_file(path)
    del tensors[name]
    save_file(tensors if tensor is None else tensors | {name: tensor}, path)


class Bomb:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (open, (str(self.path), "w"))


# --- pickles -------------------------------------------------------------------------------------


def metas_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "meta"
    folder.mkdir()
    args = {"dim": 16, "n_heads": 2, "n_layers": 1, "sliding_window": 32}
    (folder / "params.json").write_text(json.dumps({"entropy_model": args}))
    return folder


@pytest.mark.parametrize("how", ["torch.save", "legacy", "plain"])
def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, how: str) -> None:
    folder, mark = metas_folder(tmp_path), tmp_path / "executed"
    path = folder / "consolidated.pth"
    data = {"model": {"x": Bomb(mark)}}
    if how == "plain":
        path.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, path, _use_new_zipfile_serialization=how == "torch.save")
    refused(folder, "consolidated.pth", "torch.save" if how != "torch.save" else "run")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_pickles_of_other_names_are_not_opened(folder: Path, name: str) -> None:
    mark = folder.parent / "executed"
    for path in (*folder.glob("*.safetensors"), folder / "model.safetensors.index.json"):
        path.unlink()
    torch.save({"x": Bomb(mark)}, folder / name)
    refused(folder, name, "pickle", "safetensors")
    assert not mark.exists()


@pytest.mark.parametrize(
    "data",
    [
        {"weights": {}},
        [1, 2],
        {"model": {"x": 3}},
        {"model": {"x": torch.zeros(4, dtype=torch.int64)}},
        {"model": {"x": torch.zeros(1).expand(10**9)}},  # huge, over four bytes
        {"model": {"x": torch.zeros(3).to_sparse()}},
    ],
    ids=["no model", "a list", "a number", "integers", "expanded", "sparse"],
)
def test_a_pth_that_holds_something_else_is_named(tmp_path: Path, data: Any) -> None:
    folder = metas_folder(tmp_path)
    torch.save(data, folder / "consolidated.pth")
    refused(folder, "consolidated.pth")


@pytest.mark.parametrize("program", [b"", b".", b"0.", b"]R.", b"\x80\x02K\x01\x85R."])
def test_a_pth_whose_pickle_is_damaged_is_named(tmp_path: Path, program: bytes) -> None:
    folder, buffer = metas_folder(tmp_path), io.BytesIO()
    torch.save({"model": {"x": torch.zeros(4)}}, buffer)
    path = folder / "consolidated.pth"
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, program if name.endswith("data.pkl") else old.read(name))
    refused(folder, "consolidated.pth")


def test_a_compressed_or_cut_pth_is_named(tmp_path: Path) -> None:
    folder = metas_folder(tmp_path)
    path, buffer = folder / "consolidated.pth", io.BytesIO()
    torch.save({"model": dict(blt.ByteLM(TINY).state_dict())}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refused(folder, "compressed")
    path.write_bytes(buffer.getvalue()[:-100])
    refused(folder, "consolidated.pth")


# --- tensors -------------------------------------------------------------------------------------


def test_a_wrong_shape_is_named(folder: Path) -> None:
    replace_tensor(folder, NORM, torch.zeros(17))
    refused(folder, NORM, "(17,)", "(16,)")


def test_wrong_shapes_whose_sum_is_right_are_named(folder: Path) -> None:
    """q, k and v lie below each other here: one row more of one for one less of another."""
    prefix = "model.global_transformer.layers.0.self_attn."
    replace_tensor(folder, f"{prefix}q_proj.weight", torch.zeros(33, 32))
    replace_tensor(folder, f"{prefix}k_proj.weight", torch.zeros(31, 32))
    refused(folder, f"{prefix}q_proj.weight", "differ in shape")


def test_a_missing_tensor_is_named(folder: Path) -> None:
    replace_tensor(folder, NORM, None)
    refused(folder, NORM, "index")
    edit_json(folder / "model.safetensors.index.json", lambda index: index["weight_map"].pop(NORM))
    refused(folder, NORM, "missing")


def test_an_extra_tensor_is_named(folder: Path) -> None:
    path = shard(folder)
    save_file(load_file(path) | {"surprise": torch.zeros(2)}, path)
    refused(folder, "surprise", "index")
    edit_index(folder, surprise=path.name)
    refused(folder, "unknown tensor 'surprise'")


def test_a_tensor_in_two_shards_is_named(folder: Path) -> None:
    second = shard(folder, 1)
    name = next(iter(load_file(shard(folder))))
    save_file(load_file(second) | {name: torch.zeros(2)}, second)
    refused(folder, name, "in both", second.name)


def test_integers_are_no_weights(folder: Path) -> None:
    replace_tensor(folder, NORM, torch.zeros(16, dtype=torch.int32))
    refused(folder, NORM, "I32")


# --- paths ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../made/model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "config.json", ""]
)
def test_paths_in_an_index_are_refused(folder: Path, name: str) -> None:
    edit_index(folder, **{NORM: name})
    refused(folder, "index", repr(name), "not the plain name")


def test_a_shard_that_is_not_there_is_named(folder: Path) -> None:
    edit_index(folder, **{NORM: "other.safetensors"})
    refused(folder, "other.safetensors", "missing")


def test_a_link_out_of_the_folder_is_not_followed(folder: Path) -> None:
    path = shard(folder)
    outside = folder.parent / "outside.safetensors"
    os.replace(path, outside)
    path.symlink_to(outside)
    refused(folder, path.name, "link")


def test_links_of_the_hubs_cache_are_followed(folder: Path) -> None:
    """snapshots/HASH/model.safetensors leads to blobs/ beside it."""
    cache = folder.parent / "models--me--mine"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots").mkdir()
    snapshot = cache / "snapshots" / "abc"
    expected = blt.load(folder).state_dict()
    os.replace(folder, snapshot)
    path = shard(snapshot)
    os.replace(path, cache / "blobs" / "1234")
    path.symlink_to("../../blobs/1234")
    found = blt.load(snapshot).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


# --- headers -------------------------------------------------------------------------------------


def header(entries: Any, data: bytes = b"") -> bytes:
    text = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    "content",
    [
        (2**63).to_bytes(8, "little") + b"{}",
        (50 * 2**20).to_bytes(8, "little") + b"{}",
        header({"x": entry([4], 0, 16)}, b"short"),
        header({"x": entry([10**12], 0, 16)}, bytes(16)),
        header({"x": entry([4], 0, 16), "y": entry([4], 8, 24)}, bytes(24)),
        header({"x": entry([4], 16, 32)}, bytes(32)),
        header({"x": entry([2**40, 2**40], 0, 16)}, bytes(16)),
        header({"x": entry([-4], 0, 16)}, bytes(16)),
        header(b'{"x": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}' * 2, bytes(16)),
        header(
            b'{"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
            b'"x":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
            bytes(16),
        ),
        header(b"[" * 100_000),
        b"",
    ],
    ids=[
        *("length overflows", "huge header", "data cut", "shape lies", "overlap", "gap"),
        *("shape overflows", "negative", "not JSON", "name twice", "nested", "empty"),
    ],
)
def test_lying_headers_are_refused(folder: Path, content: bytes) -> None:
    path = shard(folder)
    path.write_bytes(content)
    refused(folder, path.name, "damaged")


# --- configs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        '{"model_type": "blt", "patching_threshold": NaN}',
        '{"model_type": "blt", "patching_threshold": Infinity}',
        '{"model_type": "blt", "patching_threshold": 1e999}',
        '{"model_type": "blt", "model_type": "blt"}',
        '{"model_type": ' * 100_000,
        '{"model_type": "blt", "cross_attn_k": ' + "9" * 5000 + "}",
        '{"x": "' + "x" * 2**24 + '"}',
    ],
    ids=["NaN", "Infinity", "overflow", "key twice", "nested", "huge number", "huge file"],
)
def test_bad_json_is_refused(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, "config.json")


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("global_config", {"num_hidden_layers": 4000}, "4000 layers"),
        ("global_config", {"num_hidden_layers": 10**9}, "global_layers must be 1 to"),
        ("global_config", {"hidden_size": 2**40}, "global_dim must be 2 to"),
        ("global_config", {"intermediate_size": 2**62}, "global_ff_dim must be 1 to"),
        ("patcher_config", {"num_hidden_layers": -1}, "layers"),
    ],
)
def test_a_config_cannot_ask_for_the_impossible(
    folder: Path, part: str, change: dict[str, Any], named: str
) -> None:
    edit_json(folder / "config.json", lambda config: config[part].update(change))
    refused(folder, named)


# --- where it is written -------------------------------------------------------------------------


def test_a_failed_conversion_leaves_what_was_there(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = folder.parent / "made"
    before = {path.name: path.read_bytes() for path in made.iterdir()}

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("blt.files.stored._write_file", fail)
    with pytest.raises(OSError, match="disk full"):
        convert(folder, made)
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bad", "made"]


def test_the_source_is_never_replaced(folder: Path) -> None:
    for target in (folder, folder / "inside", folder.parent):
        with pytest.raises(UserError, match=r"lies with the source|not overwritten"):
            convert(folder, target)


def test_what_is_not_a_model_is_never_overwritten(folder: Path) -> None:
    thesis = folder.parent / "thesis"
    thesis.mkdir()
    (thesis / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="not overwritten"):
        convert(folder, thesis)
    assert [path.name for path in thesis.iterdir()] == ["thesis.tex"]


def test_the_command_ends_in_one_line_and_status_2(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder.parent / "out"
    assert main(["convert", str(folder), str(out), "--to", "blt"]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    shard(folder).write_bytes(b"half")
    assert main(["convert", str(folder), str(folder.parent / "again")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"blt: {shard(folder)}: damaged")
