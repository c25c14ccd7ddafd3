"""API keys: whose file is taken, and when it is read again."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from blt.errors import UserError
from blt.serve import keys as module
from blt.serve.keys import Keys


@pytest.fixture(autouse=True)
def look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.0)


def write(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace the file, as editors and Kubernetes do."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.chmod(mode)
    os.replace(new, path)


def accepted(keys: Keys) -> str:
    return "".join(key for key in "abc" if keys.accept(b"Bearer " + key.encode()))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    write(path, b"a\n")
    keys = Keys.read(str(path))
    assert accepted(keys) == "a"
    write(path, b"b\nc\n")
    assert accepted(keys) == "bc"
    with path.open("a") as file:
        file.write("a\n")
    assert accepted(keys) == "abc"
    (tmp_path / "second").mkdir()
    write(tmp_path / "second" / "keys", b"c\n")
    path.unlink()
    path.symlink_to(tmp_path / "second" / "keys")  # a volume of Kubernetes moves links
    assert accepted(keys) == "c"


@pytest.mark.parametrize(
    ("data", "mode", "why"),
    [
        (b"", 0o600, "no API key"),
        (b"# a\n", 0o600, "no API key"),
        (b"\xff\n", 0o600, "not UTF-8"),
        (b"b\n", 0o620, "chmod go-w"),
        (b"b\n", 0o602, "chmod go-w"),
        (None, 0, "No such file"),
    ],
)
def test_a_broken_new_file_keeps_the_old_keys_and_is_told_once(
    data: bytes | None, mode: int, why: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    write(path, b"a\n")
    keys = Keys.read(str(path))
    if data is None:
        path.unlink()
    else:
        write(path, data, mode)
    with caplog.at_level(logging.WARNING, "blt.serve"):
        assert accepted(keys) == "a"
        assert accepted(keys) == "a"
    (record,) = caplog.records
    assert "old keys hold" in record.getMessage()
    assert why in record.values["why"]  # type: ignore[attr-defined]
    write(path, b"b\n")
    assert accepted(keys) == "b"


def test_a_key_counts_under_the_scheme_bearer_only(tmp_path: Path) -> None:
    write(tmp_path / "keys", b"a\n")
    keys = Keys.read(str(tmp_path / "keys"))
    assert keys.accept(b"Bearer a")
    assert keys.accept(b"bearer a")
    for given in (b"Basic a", b"Bearera", b" a", b"a", b""):
        assert not keys.accept(given)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_refused(mode: int, tmp_path: Path) -> None:
    write(tmp_path / "keys", b"a\n", mode)
    with pytest.raises(UserError, match=r"keys: others than its owner may write .*chmod go-w"):
        Keys.read(str(tmp_path / "keys"))


def test_a_file_that_others_can_read_is_taken(tmp_path: Path) -> None:
    """As containers mount secrets; `blt serve` warns of it."""
    write(tmp_path / "keys", b"a\n", 0o644)
    assert accepted(Keys.read(str(tmp_path / "keys"))) == "a"
    assert module.others_can_read(str(tmp_path / "keys"))


def test_a_mark_of_utf_8_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    write(tmp_path / "keys", b"\xef\xbb\xbfa\r\nb\r\n")
    assert accepted(Keys.read(str(tmp_path / "keys"))) == "ab"


def test_a_file_in_another_encoding_is_an_error(tmp_path: Path) -> None:
    write(tmp_path / "keys", "a\n".encode("utf-16"))
    with pytest.raises(UserError, match="keys: not UTF-8"):
        Keys.read(str(tmp_path / "keys"))
