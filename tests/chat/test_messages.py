"""What is no message is refused by its index."""

from __future__ import annotations

import pytest

from blt.chat import check_messages
from blt.errors import UserError

GOOD = {"role": "user", "content": "hello"}


@pytest.mark.parametrize(
    ("message", "named"),
    [
        ("hello", "messages.1: must be an object"),
        ({"content": "x"}, "messages.1.role: missing"),
        ({"role": "tool", "content": "x"}, "messages.1.role: 'tool' is unknown"),
        ({"role": ["user"], "content": "x"}, "messages.1.role"),
        ({"role": "user"}, "messages.1.content: missing"),
        ({"role": "user", "content": None}, "messages.1.content: missing"),
        ({"role": "user", "content": 3}, "messages.1.content: must be text"),
        ({"role": "user", "content": "\ud800"}, "messages.1.content: content: '\\ud800'"),
        ({**GOOD, "tool_calls": []}, "messages.1.tool_calls: is not supported"),
        ({"role": "user", "content": ["x"]}, "messages.1.content.0: must be an object"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "messages.1.content.0.type: 'image_url' is not supported",
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": "x", "more": 1}]},
            "messages.1.content.0.more: is not supported",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "messages.1.content.0.text: must be"),
    ],
)
def test_a_message_that_is_none_is_named(message: object, named: str) -> None:
    with pytest.raises(UserError) as error:
        check_messages([GOOD, message])
    assert str(error.value).startswith(named)


@pytest.mark.parametrize("messages", [[], "hello", {"role": "user"}, None, 3])
def test_messages_are_a_list_with_something_in_it(messages: object) -> None:
    with pytest.raises(UserError, match="messages: "):
        check_messages(messages)


def test_content_may_be_text_bytes_or_parts_of_text() -> None:
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    contents = ["hello", b"hello", parts]
    for content in contents:
        assert check_messages([{"role": "user", "content": content, "name": None}]) == [GOOD]
