"""Requests and answers of ``/v1/chat/completions``, as pydantic models."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blt.chat.messages import ROLES
from blt.serve.neutral import CHATS, Values, describe
from blt.serve.schemas import BytesOut, Usage, WritingRequest, refusal

DEFAULT_BYTES = 1024  # of an answer
TEXT_PART: dict[str, Any] = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
MESSAGE: dict[str, Any] = {  # as blt.chat.check_messages has it, which names what is wrong
    "type": "object",
    "properties": {
        "role": {"enum": list(ROLES)},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": TEXT_PART}]},
    },
    "required": ["role", "content"],
}


class ChatRequest(WritingRequest):
    """OpenAI's, and what bytes and patches add to it. Lengths are in bytes."""

    model_config = ConfigDict(json_schema_extra=lambda schema: describe(schema, CHATS))
    neutral: ClassVar[Values] = CHATS
    messages: list[Any] = Field(
        min_length=1,
        json_schema_extra={"items": MESSAGE},
        description="what was said; the next turn is the assistant's",
    )
    max_tokens: int | None = Field(
        default=None, ge=1, description=f"bytes to write at most; left out: {DEFAULT_BYTES}"
    )
    max_completion_tokens: int | None = Field(
        default=None, ge=1, description="OpenAI's newer name of max_tokens"
    )
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="needs logprobs")

    @model_validator(mode="after")
    def _consistent(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise refusal("top_logprobs", "needs logprobs: true")
        both = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(both) > 1:
            raise refusal("max_completion_tokens", "differs from max_tokens; give one of them")
        return self

    @property
    def most_bytes(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_BYTES

    @property
    def most_bytes_source(self) -> str:
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"

    def within(self, most: int) -> ChatRequest:
        """The same; where it says nothing of its length, at most so many bytes."""
        if self.max_tokens or self.max_completion_tokens:
            return self
        return self.model_copy(update={"max_tokens": min(DEFAULT_BYTES, most)})


class TopLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token is a byte: its ASCII character, or ``bytes:\\xNN``."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class Answer(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    index: int
    message: Answer
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"]
    blt: BytesOut | None = None


class ChatCompletion(BaseModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class Delta(BaseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    blt: BytesOut | None = None


class ChatChunk(BaseModel):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
