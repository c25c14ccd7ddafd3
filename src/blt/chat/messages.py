"""Messages as people have them, checked: who speaks, and what is said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

from blt import vocab
from blt.errors import UserError, named, require

ROLES = ("system", "user", "assistant")
ASSISTANT = "assistant"


class Message(TypedDict):
    """One turn; bytes that are no text are lone surrogates in ``content``."""

    role: str
    content: str


def check_messages(messages: Any, name: str = "messages") -> list[Message]:
    """Messages as templates read them.

    Args:
        messages: objects with ``role`` and ``content``: text, bytes, or a list of parts of text,
            which are joined as they are. Other keys may only be null.
        name: what to call them in errors.

    Raises:
        UserError: names the index and the key of what is wrong.
    """
    single = isinstance(messages, str | bytes | dict) or not isinstance(messages, Sequence)
    require(not single, f"{name}: must be a list of messages, got {type(messages).__name__}")
    require(len(messages) > 0, f"{name}: an empty list; give one message at least")
    return [_message(message, f"{name}.{index}") for index, message in enumerate(messages)]


def _message(message: Any, where: str) -> Message:
    if not isinstance(message, dict):
        raise UserError(f"{where}: must be an object with role and content, got {message!r:.40}")
    role, content = message.get("role"), message.get("content")
    known = ", ".join(ROLES)
    require(role is not None, f"{where}.role: missing; it is one of {known}")
    require(role in ROLES, f"{where}.role: {role!r:.40} is unknown; it is one of {known}")
    for key, value in message.items():
        others = key in ("role", "content") or value is None
        require(others, f"{where}.{key}: is not supported; a message has a role and content")
    require(
        content is not None, f"{where}.content: missing; a message without content says nothing"
    )
    if isinstance(content, list):
        parts = (_part(part, f"{where}.content.{at}") for at, part in enumerate(content))
        return {"role": str(role), "content": "".join(parts)}
    return {"role": str(role), "content": _text(content, f"{where}.content")}


def _part(part: Any, where: str) -> str:
    """The text of one part of a content, as OpenAI's clients send it."""
    if not isinstance(part, dict):
        raise UserError(f"{where}: must be an object with type and text, got {part!r:.40}")
    kind = part.get("type")
    require(kind == "text", f"{where}.type: {kind!r:.40} is not supported; only 'text' is read")
    more = [key for key, value in part.items() if key not in ("type", "text") and value is not None]
    require(not more, f"{where}.{(more or [''])[0]}: is not supported; a part has a type and text")
    return _text(part.get("text"), f"{where}.text")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str | bytes):
        raise UserError(f"{where}: must be text, got {value!r:.40}")
    with named(where):
        return vocab.to_bytes(value, "content").decode("utf-8", "surrogateescape")
