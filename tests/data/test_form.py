"""Rows mean what the user says, in whatever file, and what they lack is named with file and row."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from blt import vocab
from blt.data import read
from blt.data.form import SourceConfig, parsed_source, source_of
from blt.errors import UserError
from blt.texts.marked import encode, targets
from conversations import CHAT, CHATS, PAIR, PAIRS, write

EOS = vocab.EOS


def ids(text: str) -> list[int]:
    return [byte + vocab.OFFSET for byte in text.encode()]


def learned(text: bytes) -> bytes:
    found = targets(text)
    return vocab.decode(found[found != vocab.PAD])


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet", "hf"])
def test_conversations_are_the_same_documents_in_any_file(tmp_path: Path, kind: str) -> None:
    source = SourceConfig(write(tmp_path, kind, CHATS), **CHAT)
    found = read([source]).documents
    for text, row in zip(found, CHATS, strict=True):
        turns = [(f"{turn['role']}\n", turn["content"]) for turn in row["messages"]]
        whole = [i for role, content in turns for i in (*ids(role), *ids(content), EOS)]
        assert encode(text).tolist() == [vocab.BOS, *whole[:-1]]  # each document has an end
        assert learned(text) == row["messages"][-1]["content"].encode()
    every = read([source], learn="all").documents
    assert [encode(text).tolist() for text in every] == [encode(text).tolist() for text in found]
    assert [learned(text) for text in every] == [vocab.decode(encode(text)) for text in found]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet", "hf"])
def test_prompts_are_read_and_completions_learned_in_any_file(tmp_path: Path, kind: str) -> None:
    source = SourceConfig(write(tmp_path, kind, PAIRS), **PAIR)
    found = read([source]).documents
    assert found == [f"{n}?{n}!\0".encode() for n in range(4)]
    assert [learned(text) for text in found] == [f"{n}!\0".encode() for n in range(4)]
    every = read([source], learn="all").documents
    assert every == found
    assert {type(text) for text in every} == {bytes}  # as plain text is


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet", "hf"])
def test_a_text_has_any_key(tmp_path: Path, kind: str) -> None:
    name = write(tmp_path, kind, [{"body": "one", "text": "no"}, {"body": "two", "text": "no"}])
    found = read([SourceConfig(name, text="body")]).documents
    assert found == [b"one", b"two"]
    assert {type(text) for text in found} == {bytes}


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "json", "parquet", "hf"])
def test_a_key_that_no_row_has_is_named_with_file_and_keys(tmp_path: Path, kind: str) -> None:
    name = write(tmp_path, kind, PAIRS)
    path = name.removeprefix("hf:") if kind == "hf" else name
    source = SourceConfig(name, prompt="question", completion="answers")
    with pytest.raises(UserError, match=r"no (row|column).*'answers'.*question, answer") as caught:
        read([source])
    assert path in str(caught.value)
    if kind != "parquet":  # whose columns are those of all rows
        assert f"{path}:1" in str(caught.value)


BROKEN: list[tuple[Any, str]] = [
    ([{"role": "user"}], r"messages\.0\.content: missing"),
    ([{"role": "user", "content": None}], r"messages\.0\.content: missing"),
    ([{"role": "user", "content": 3}], r"messages\.0\.content: .*3"),
    (
        [{"role": "user", "content": "a"}, {"role": "bot", "content": "a"}],
        r"messages\.1\.role:.*bot",
    ),
    ([{"content": "a"}], r"messages\.0\.role: missing"),
    (["a"], r"messages\.0: must be an object"),
    ([], "messages: "),
    ("a", "messages: must be a list"),
    (None, "messages: "),
    ([{"role": "user", "content": "\ud800"}], r"messages\.0"),
]


def test_bad_messages_are_named_with_file_and_row_and_left_out(tmp_path: Path) -> None:
    rows = [CHATS[0], *({"messages": found} for found, _ in BROKEN), CHATS[1]]
    name = write(tmp_path, "jsonl", rows)
    corpus = read([SourceConfig(name, **CHAT)])
    assert len(corpus.documents) == 2
    assert corpus.broken.count == len(BROKEN)
    for row, (line, (_, why)) in enumerate(zip(corpus.broken.named, BROKEN, strict=True), 2):
        assert line.startswith(f"{name}:{row}: ")
        assert re.search(why, line), line


def test_a_row_without_a_key_or_a_string_is_named(tmp_path: Path) -> None:
    rows = [*PAIRS, {"question": "a"}, {"question": "a", "answer": ["b"]}]
    name = write(tmp_path, "jsonl", rows)
    assert read([SourceConfig(name, **PAIR)]).broken.named == [
        f"{name}:5: no 'answer' among its keys, which are question",
        f"{name}:6: 'answer' must be a string, got list",
    ]


def test_the_limit_of_broken_rows_is_the_users(tmp_path: Path) -> None:
    name = write(tmp_path, "jsonl", [{"text": "a"}, *[{"text": 3}] * 150])
    with pytest.raises(UserError, match=r"rows\.jsonl:102: .*more than 100 .*max_broken"):
        read([name])
    corpus = read([name], max_broken=150)
    assert corpus.broken.count == len(corpus.broken.named) == 150
    with pytest.raises(UserError, match=r"rows\.jsonl:2: .*more than 0 broken"):
        read([name], max_broken=0)


def test_a_conversation_that_is_named_as_a_text_says_what_to_write(tmp_path: Path) -> None:
    name = write(tmp_path, "jsonl", CHATS)
    with pytest.raises(UserError, match=r"no 'text' .* messages = \"messages\""):
        read([name])


def test_files_without_rows_are_left_out_where_keys_are_named(tmp_path: Path) -> None:
    name = write(tmp_path, "jsonl", PAIRS)
    (tmp_path / "notes.txt").write_text("not to be learned")
    corpus = read([SourceConfig(str(tmp_path), **PAIR)])
    assert corpus.documents == read([SourceConfig(name, **PAIR)]).documents
    assert corpus.broken.left_out.counts == {"files without rows": 1}
    with pytest.raises(UserError, match=r"notes\.txt: has no rows"):
        read([SourceConfig(str(tmp_path / "notes.txt"), **PAIR)])


def test_any_takes_every_file_as_it_is(tmp_path: Path) -> None:
    files = {
        "a.bin": b"\0\x01" * 9,
        "b.txt.gz": gzip.compress(b"packed"),
        "c.zip": b"PK\x03\x04",
        "d.jsonl": b'{"text": "x"}\n',
        "e/model.safetensors": b"\xff" * 20,
        "e/config.json": b"{}",
        "f.txt": b"text",
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "empty").touch()
    for path in (tmp_path, tmp_path / "**" / "*"):
        corpus = read([SourceConfig(str(path), text="any")])
        assert sorted(corpus.documents) == sorted(files.values())
        assert corpus.broken.left_out.counts["empty files"] == 1
    assert read([SourceConfig(str(tmp_path / "c.zip"), text="any")]).documents == [b"PK\x03\x04"]
    assert b"\0\x01" * 9 not in read([tmp_path]).documents  # which are not taken by accident


def test_a_dataset_has_configurations_and_splits(tmp_path: Path) -> None:
    for config in ("one", "two"):
        for split in ("train", "test"):
            (tmp_path / "set" / config).mkdir(parents=True, exist_ok=True)
            rows = pa.table({"text": [f"{config} {split}"]})
            parquet.write_table(rows, tmp_path / f"set/{config}/{split}.parquet")
    configs = "".join(
        f"- config_name: {c}\n  data_files:\n"
        + "".join(f"  - split: {s}\n    path: {c}/{s}.parquet\n" for s in ("train", "test"))
        for c in ("one", "two")
    )
    (tmp_path / "set/README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    name = f"hf:{tmp_path}/set"
    assert read([f"{name}/two@test"]).documents == [b"two test"]
    assert read([f"{name}/one"]).documents == [b"one train"]
    assert read([SourceConfig(name, config="two", split="test")]).documents == [b"two test"]
    assert read([SourceConfig(f"{name}@test", config="one")]).documents == [b"one test"]
    with pytest.raises(UserError, match=r"cannot be read .*(one|two)"):
        read([f"{name}/three"])
    with pytest.raises(UserError, match="has the split 'test' already"):
        read([SourceConfig(f"{name}@test", split="train")])


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"path": "a", "mesages": "m"}, r"'mesages'; did you mean 'messages'\?"),
        ({"path": "a", "text": "a", "messages": "b"}, "text and messages; a row is read in one"),
        ({"path": "a", "prompt": "a"}, "prompt and completion need each other"),
        ({"path": "a", "completion": "a"}, "prompt and completion need each other"),
        ({"path": "a", "config": "b"}, "config is of datasets"),
        ({"path": "hf:a", "text": "any"}, "of files and folders"),
        ({"path": "builtin:python", "text": "a"}, "has no keys"),
        ({"path": "a", "weight": 0.0}, "weight must be positive"),
        ({"path": "a", "text": ""}, "text names no key"),
        ({"path": ""}, "has no path"),
        ({"text": "a"}, "path"),
        ({"path": 3}, "path: .*string"),
    ],
)
def test_wrong_tables_are_named(table: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        source_of(table, "recipe.toml")


def test_the_command_line_has_tables_too() -> None:
    assert parsed_source("books/*.txt") == "books/*.txt"
    given = '{path = "a.jsonl", messages = "turns"}'
    assert parsed_source(given) == SourceConfig("a.jsonl", messages="turns")
    with pytest.raises(UserError, match="not valid TOML"):
        parsed_source("{path = }")
