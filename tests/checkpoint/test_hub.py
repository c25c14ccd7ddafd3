"""Models from the hub and to it, with a hub that is a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import blt
from blt.checkpoint.convert import convert
from blt.checkpoint.open import open_checkpoint
from blt.checkpoint.push import push_to_hub
from blt.errors import UserError
from blt.files import checksums
from blt.files.configs import to_dict
from blt.report.verify import verify
from checkpoints import equal_weights

huggingface_hub = pytest.importorskip("huggingface_hub")
httpx = pytest.importorskip("httpx")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which every repository is a folder; each commit is written to a log."""
    root = tmp_path / "hub"
    root.mkdir()

    class Api:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo_id: str, private: bool, exist_ok: bool) -> None:
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            (root / "log").write_text(f"{self.token} {private}")

        def create_commit(self, repo_id: str, operations: list[Any], commit_message: str) -> None:
            for operation in operations:
                path = root / repo_id / operation.path_in_repo
                path.parent.mkdir(exist_ok=True)
                with operation.as_file() as file:
                    path.write_bytes(file.read())

    def download(repo_id: str, allow_patterns: list[str]) -> str:
        assert allow_patterns == ["*.json", "*.safetensors", "chat_template.jinja"]
        if not (root / repo_id).is_dir():
            raise huggingface_hub.errors.LocalEntryNotFoundError("no such thing\nmore")
        return str(root / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    return root


@pytest.mark.parametrize("layout", ["blt", "transformers", "meta"])
def test_what_is_pushed_loads_by_its_id(
    hub: Path, tmp_path: Path, lm: blt.BLT, layout: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = lm
    if layout == "meta":  # it derives feed-forward widths
        config = {**vars(lm.config), "encoder_ff_dim": 96, "decoder_ff_dim": 96}
        assert lm.config.entropy_model is not None
        shape = {**vars(lm.config.entropy_model), "ff_dim": 96}
        config |= {"global_ff_dim": 192, "entropy_model": blt.ByteTransformerConfig(**shape)}
        model = blt.BLT(blt.Config(**config))
    monkeypatch.setattr(model, "chat_template", "{{ 'é' }}\n")
    model.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "out", layout, shard_bytes=10**5)
    (tmp_path / "out" / "notes.txt").write_text("not for everybody")
    url = push_to_hub(tmp_path / "out", "me/mine", license="apache-2.0", token="secret")
    assert url == "https://huggingface.co/me/mine"
    assert (hub / "log").read_text() == "secret True"
    assert not (hub / "me/mine/notes.txt").exists()
    card = (hub / "me/mine/README.md").read_text()
    assert "license: apache-2.0" in card
    assert "| patching | entropy, θ = 4.6 nats |" in card
    assert ("BltForCausalLM" in card) == (layout == "transformers")
    loaded = blt.load("me/mine")
    assert equal_weights(loaded, model)
    assert loaded.chat_template == model.chat_template


def test_where_a_model_lay_is_not_pushed(hub: Path, tmp_path: Path, lm: blt.BLT) -> None:
    """Earlier versions wrote it into init.json."""
    scored = {"as_it_was": {"bits_per_byte": 2.0, "patch_size": 4.0, "bytes": 9}}
    change = {"key": "entropy_model", "was": "/home/me/old", "is": "/home/me/runs/new/checkpoint"}
    begun = {"init": "/home/me/old", "kind": "blt", "heldout": scored, "changed": [change]}
    lm.save(tmp_path / "ours")
    (tmp_path / "ours/init.json").write_text(json.dumps(begun))
    checksums.record(tmp_path / "ours", ["init.json"])
    push_to_hub(tmp_path / "ours", "me/mine")
    for path in (hub / "me/mine").iterdir():
        assert b"/home/me" not in path.read_bytes(), path
    pushed = json.loads((hub / "me/mine/init.json").read_text())
    assert (pushed["init"], pushed["changed"][0]["is"]) == ("old", "new")
    assert verify(hub / "me/mine").faults == []
    assert "began from `old`, which had 2.000" in (hub / "me/mine/README.md").read_text()


def test_what_a_training_goes_on_with_stays_here(hub: Path, tmp_path: Path, lm: blt.BLT) -> None:
    lm.save(tmp_path / "ours")
    (tmp_path / "ours/trainer").mkdir()
    of_training = ["trainer.json", "trainer/0.safetensors", "notes.txt"]
    for name in of_training:
        (tmp_path / "ours" / name).write_text("{}")
    checksums.record(tmp_path / "ours", ["trainer.json", "notes.txt"])
    noted = checksums.read(tmp_path / "ours")
    digests = noted.sha256 | {"trainer/0.safetensors": "0" * 64}
    crc32 = noted.crc32 | {"trainer/0.safetensors": {"step": "0" * 8}}
    everything = to_dict(checksums.Checksums(digests, crc32))
    (tmp_path / "ours/checksums.json").write_text(json.dumps(everything))
    push_to_hub(tmp_path / "ours", "me/mine")
    pushed = {path.name for path in (hub / "me/mine").rglob("*") if path.is_file()}
    assert pushed == {"config.json", "model.safetensors", "checksums.json", "README.md"}
    left = checksums.read(hub / "me/mine")
    assert left.sha256.keys() == noted.sha256.keys() - {*of_training}
    assert left.crc32 == noted.crc32
    assert verify(hub / "me/mine").faults == []


def test_the_code_on_the_card_runs(hub: Path, tmp_path: Path, lm: blt.BLT) -> None:
    pytest.importorskip("transformers")
    lm.save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "theirs", "transformers")
    for folder in ("ours", "theirs"):
        push_to_hub(tmp_path / folder, f"me/{folder}")
        card = (hub / "me" / folder / "README.md").read_text()
        code = card.split("```python\n")[1].split("```")[0]
        scope: dict[str, Any] = {}
        # transformers has its own way to the hub: to it, this one is a folder
        exec(code.replace('pretrained("me', f'pretrained("{hub}/me'), scope)
        model = scope.get("lm") or scope["model"]
        weights = [tensor.sum(dtype=torch.float64) for tensor in model.state_dict().values()]
        assert len(weights) > 20


def test_a_card_of_ones_own_is_kept(hub: Path, tmp_path: Path, lm: blt.BLT) -> None:
    lm.save(tmp_path / "ours")
    (tmp_path / "ours" / "README.md").write_text("# Mine")
    push_to_hub(tmp_path / "ours", "me/mine", private=False)
    assert (hub / "me/mine/README.md").read_text() == "# Mine"
    assert (hub / "log").read_text() == "None False"


def test_what_is_not_whole_is_not_pushed(hub: Path, tmp_path: Path, lm: blt.BLT) -> None:
    lm.save(tmp_path / "ours")
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "ours" / "link.json").symlink_to(tmp_path / "secret.json")
    with pytest.raises(UserError, match=r"link\.json: is a link out"):
        push_to_hub(tmp_path / "ours", "me/mine")
    (tmp_path / "ours" / "link.json").unlink()
    with pytest.raises(UserError, match="owner/name"):
        push_to_hub(tmp_path / "ours", "mine")
    (tmp_path / "ours" / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        push_to_hub(tmp_path / "ours", "me/mine")
    assert not list(hub.iterdir())


def test_an_id_that_is_nowhere_is_told_in_one_line(hub: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^a/b: no such folder here, and not from the hub"
    ) as error:
        blt.load("a/b")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no such folder"):  # no id: never asked for
        blt.load(tmp_path / "a/b/c")


@pytest.mark.parametrize("words", ["", "\n", " \nmore", "no route\nmore"])
@pytest.mark.parametrize("kind", [httpx.ReadTimeout, OSError])
def test_an_error_of_the_hub_is_one_line_also_without_words(
    hub: Path,
    tmp_path: Path,
    lm: blt.BLT,
    monkeypatch: pytest.MonkeyPatch,
    kind: type[Exception],
    words: str,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise kind(words)

    said = (words.split() or [kind.__name__])[0]
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=rf"^a/b: .*not from the hub \({said}.*\)$"):
        blt.load("a/b")
    lm.save(tmp_path / "ours")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", fail)
    with pytest.raises(UserError, match=rf"^me/mine: .*not taken it \({said}.*\)$"):
        push_to_hub(tmp_path / "ours", "me/mine")


def test_a_folder_here_comes_before_the_hub(hub: Path, tmp_path: Path, lm: blt.BLT) -> None:
    lm.save("me/mine")
    assert equal_weights(blt.load("me/mine"), lm)
    convert("me/mine", "me/theirs", "transformers")
    assert open_checkpoint(Path("me/theirs")).kind == "blt"
