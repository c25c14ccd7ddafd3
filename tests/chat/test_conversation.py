"""A conversation is kept, fits into what a model reads, and comes back from its file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blt.chat import ChatTemplate
from blt.chat.conversation import Conversation
from blt.errors import UserError

TEMPLATE = ChatTemplate.default()
TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "one?"},
    {"role": "assistant", "content": "1"},
    {"role": "user", "content": "two?"},
    {"role": "assistant", "content": "2"},
    {"role": "user", "content": "three?"},
]


def test_the_oldest_turns_are_left_out_until_the_rest_fits_and_the_system_message_stays() -> None:
    conversation = Conversation(TURNS)
    sizes = []
    for kept, left_out in ((TURNS[1:], 0), (TURNS[3:], 2), (TURNS[5:], 4)):
        expected = TEMPLATE.prompt([TURNS[0], *kept])
        most = len(expected) - 1
        for room in (most, most + 1):
            prompt, gone = conversation.prompt(TEMPLATE, room)
            assert (prompt.tolist(), gone) == (expected.tolist(), left_out)
        sizes.append(most)
    assert conversation.messages == TURNS, "the conversation itself is whole"
    with pytest.raises(UserError, match=rf"prompt of {sizes[-1]} bytes, and {sizes[-1] - 1} fit"):
        conversation.prompt(TEMPLATE, sizes[-1] - 1)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "role": st.sampled_from(["system", "user", "assistant"]),
                "content": st.binary() | st.text(st.characters(exclude_categories=["Cs"])),
            }
        ),
        min_size=1,
    )
)
def test_what_is_saved_comes_back_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, messages: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.mktemp("chats") / "saved.jsonl"
    conversation = Conversation(messages)
    conversation.save(path)
    loaded = Conversation.load(path)
    assert loaded.messages == conversation.messages
    assert TEMPLATE.render(loaded.messages) == TEMPLATE.render(messages)


def test_conversations_are_added_as_lines_and_the_last_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "saved.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "before"}]}')  # no newline
    assert Conversation(TURNS[:2]).save(path) == 2
    assert Conversation(TURNS).save(path) == 3
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row["messages"][-1]["content"] for row in rows] == ["before", "one?", "three?"]
    assert Conversation.load(path).messages == TURNS


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "is empty"),
        ("{", "line 1: damaged"),
        ('{"text": "x"}', "line 1: has no messages"),
        ('{"messages": [{"role": "user"}]}', "line 1: messages.0.content: missing"),
    ],
)
def test_a_file_without_a_conversation_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(line)
    with pytest.raises(UserError, match=message):
        Conversation.load(tmp_path / "x.jsonl")
    with pytest.raises(UserError, match="nothing to save"):
        Conversation().save(tmp_path / "y.jsonl")


def test_questions_and_answers_are_taken_back() -> None:
    conversation = Conversation(TURNS)
    assert not conversation.take_answer()
    assert conversation.take_question() == "three?"
    assert conversation.take_answer()
    assert conversation.take_question() == "two?"
    conversation.set_system("be long")
    assert [m["content"] for m in conversation.messages] == ["be long", "one?", "1"]
    conversation.reset()
    assert [m["content"] for m in conversation.messages] == ["be long"]
    conversation.set_system("")
    with pytest.raises(UserError, match="nothing has been asked"):
        conversation.take_question()
