"""The same packages give the same text; other packages, and text that evaluates, are refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import re
import subprocess
import tarfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from blt.errors import UserError
from blt.evals.overlap import blocks_of
from tools.texts import build as building
from tools.texts import fetch as fetching
from tools.texts.against import apart, evaluated, letters
from tools.texts.archives import members
from tools.texts.build import build
from tools.texts.fetch import Source, command, fetch, sources
from tools.texts.written import SIZE, documents

SECRET = "Diese Zeile steht auch in einem Text, mit dem Modelle geprüft werden."
GERMAN = {f"k{n}": f"Das ist der Satz Nummer {n} von vielen Sätzen." for n in range(300)}
NONE = blocks_of([])


def _tar(path: Path, files: dict[str, str], mode: str = "w:gz") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode=mode) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    path.write_bytes(data.getvalue())
    return data.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Source:
    packages = tmp_path / "out" / "packages"
    packages.mkdir(parents=True)
    files = {
        "package/LICENSE": "MIT",
        "package/i18n/en.json": json.dumps({"a": "An English sentence that is not translated"}),
        "package/i18n/de.json": json.dumps(
            {"z": "An English sentence that is not translated", **GERMAN, "s": SECRET}
        ),
    }
    data = _tar(packages / "p-1.0.tgz", files)
    return Source(
        name="program",
        client="npm",
        package="p",
        version="1.0",
        file="p-1.0.tgz",
        sha256=hashlib.sha256(data).hexdigest(),
        licence="MIT",
        licence_file="package/LICENSE",
        attribution="its authors",
        files=[{"pattern": r"i18n/(?P<language>\w+)\.json$", "reader": "json"}],
    )


def test_the_same_packages_give_the_same_bytes(tmp_path: Path, source: Source) -> None:
    def run() -> dict[str, bytes]:
        build(tmp_path / "out", [source], NONE)
        files = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
        return {str(p): p.read_bytes() for p in files}

    first = run()
    assert run() == first
    written = tmp_path / "out" / "text" / "de" / "program.jsonl.gz"
    texts = [
        json.loads(line)["text"] for line in gzip.decompress(written.read_bytes()).splitlines()
    ]
    assert "\n".join(texts).splitlines() == [*GERMAN.values(), SECRET]
    assert all(SIZE <= len(text.encode()) + 1 < SIZE + 200 for text in texts[:-1])
    assert (tmp_path / "out" / "licences" / "program.txt").read_text() == "MIT"
    assert "| de | deu_Latn | Latin |" in (tmp_path / "out" / "SOURCES.md").read_text()


def test_lines_that_evaluate_are_dropped_and_counted(tmp_path: Path, source: Source) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "rows.jsonl.gz").write_bytes(gzip.compress(json.dumps({"q": [SECRET]}).encode()))
    record = build(tmp_path / "out", [source], evaluated([folder]))["program"]
    without = build(tmp_path / "out", [source], NONE)["program"]
    assert record["overlapping"] == {"de": {"documents": 1, "lines": 1}}
    assert without["overlapping"] == {}
    of, all_of = record["languages"]["de"], without["languages"]["de"]
    assert of["documents"] == all_of["documents"]
    assert of["bytes"] == all_of["bytes"] - len(f"{SECRET}\n".encode())
    assert record["lines_left_out"]["untranslated"] == 1
    with pytest.raises(UserError, match="no files to check against"):
        evaluated([tmp_path / "missing"])


def test_a_passage_is_found_wherever_it_stands_and_takes_its_line_alone() -> None:
    against = blocks_of([letters(SECRET)])
    found = apart([SECRET, f"before\nx{SECRET}y\nafter", SECRET[30:], ""], against)
    assert found == (["before\nafter", SECRET[30:], ""], 2, 2)
    halves = f"{SECRET[:30]}\n{SECRET[30:]}"
    assert apart([halves], against) == ([halves], 0, 0)


def test_a_passage_is_as_much_text_in_every_script() -> None:
    """Two words of Tamil are none, though they have 50 bytes; 17 Chinese characters are one."""
    for text, fewest in (
        ("பயன்படுத்த முடியும் என்று அவர்கள் நேற்று மாலை சொன்னார்கள்", 50),
        ("The sentence that somebody is to be asked about later", 50),
        ("委员会昨天下午在首都宣布了一项新的计划以帮助农民", 17),
        ("위원회는어제오후수도에서농민을돕기위한새로운계획을발표했다", 25),
        ("いいんかいはきのうのごごあたらしいけいかくをはっぴょうしました", 25),
    ):
        against = blocks_of([letters(text)])
        assert apart([text[:fewest]], against).lines == 1
        assert apart([text[: fewest - 1]], against).lines == 0
    assert letters("a\U00020000\ud800é").tolist() == [97, *[0x20000] * 3, ord("?"), 0xE9]


def test_another_package_than_the_pinned_is_refused_by_name(tmp_path: Path, source: Source) -> None:
    folder = tmp_path / "out" / "packages"
    (folder / source.file).write_bytes(b"other")
    with pytest.raises(UserError, match=r"p-1\.0\.tgz: sha256 is .* pins"):
        fetch(source, folder)
    with pytest.raises(UserError, match="sha256"):
        build(tmp_path / "out", [source], NONE)
    assert not (tmp_path / "out" / "text").exists()


def test_a_package_that_cannot_be_had_is_named(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "command", lambda *_: ["false"])
    with pytest.raises(UserError, match=r"program: cannot fetch p 1\.0 by npm"):
        fetch(source, tmp_path / "empty")


@pytest.mark.parametrize("client", ["pip", "npm", "apt"])
def test_a_package_comes_into_a_folder_that_is_named_from_where_one_is(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    data = (tmp_path / "out" / "packages" / source.file).read_bytes()

    def client_at_work(words: list[str], *, cwd: Path, **_: object) -> subprocess.CompletedProcess:
        named = [Path(b) for a, b in pairwise(words) if a in ("--dest", "--pack-destination")]
        (cwd / (named or [Path()])[0] / source.file).write_bytes(data)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", client_at_work)
    monkeypatch.chdir(tmp_path)
    found = fetch(replace(source, client=client), Path("some/where"))
    assert found.read_bytes() == data


def test_packages_hold_what_is_read_in_them(tmp_path: Path, source: Source) -> None:
    for change, error in (
        ({"licence_file": "COPYING"}, "no COPYING"),
        ({"files": [{"pattern": "nothing", "reader": "json"}]}, "no strings"),
        (
            {"files": [{"pattern": "LICENSE", "language": "de", "reader": "json"}]},
            "not read as json",
        ),
    ):
        with pytest.raises(UserError, match=error):
            build(tmp_path / "out", [Source(**{**vars(source), **change})], NONE)


def test_a_debian_package(tmp_path: Path) -> None:
    inner = _tar(tmp_path / "x", {"./b/two": "2", "./b/one": "1"}, "w")
    parts = {"debian-binary": b"2.0", "data.tar.xz": lzma.compress(inner)}
    data = b"!<arch>\n"
    for name, content in parts.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{0:<8}{len(content):<10}`\n".encode()
        data += content + b"\n" * (len(content) % 2)
    path = tmp_path / "p.deb"
    path.write_bytes(data)
    assert list(members(path, re.compile("b/"))) == [("./b/one", b"1"), ("./b/two", b"2")]
    path.write_bytes(b"!<arch>\n")
    with pytest.raises(UserError, match="no Debian package"):
        list(members(path, re.compile("b/")))
    (tmp_path / "p.tgz").write_bytes(b"broken")
    with pytest.raises(UserError, match="cannot be unpacked"):
        list(members(tmp_path / "p.tgz", re.compile("b/")))


def test_the_list_names_files_hashes_and_readers(tmp_path: Path) -> None:
    known = sources()
    assert len({source.file for source in known}) == len(known) > 20
    for source in known:
        assert len(source.sha256) == 64
        assert source.version in " ".join(command(source))
        assert not any("://" in word for word in command(source))
        assert source.readers()


def test_documents_are_full_and_none_is_empty() -> None:
    assert documents([]) == []
    assert documents(["a" * SIZE, "b", "c"]) == ["a" * SIZE, "b\nc"]


def test_a_build_that_ended_early_goes_on(
    tmp_path: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Source(**{**vars(source), "name": "other"})  # the same lines: all repeated
    whole = build(tmp_path / "out", [source, other], NONE)
    assert whole["other"]["languages"] == {}

    broken = Source(**{**vars(other), "files": [{"pattern": "nothing", "reader": "json"}]})
    with pytest.raises(UserError, match="no strings"):
        build(tmp_path / "out", [source, broken], NONE)
    with monkeypatch.context() as patched:
        patched.setattr(building, "strings", lambda *_: pytest.fail("read again"))
        with pytest.raises(pytest.fail.Exception):
            build(tmp_path / "out", [source, other], NONE)
        assert building._begun(tmp_path / "out" / "text.partial", NONE).keys() == {"program"}
    assert build(tmp_path / "out", [source, other], NONE) == whole
