"""``/v1/chat/completions``: messages become a prompt, and what is written a message."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import BaseModel

from blt.chat import check_messages
from blt.errors import UserError
from blt.generate.request import Piece
from blt.generate.sampling import END
from blt.serve.asked import Asked
from blt.serve.chat_schemas import (
    Answer,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
    Delta,
    TokenLogprob,
    TopLogprob,
)
from blt.serve.errors import APIError
from blt.serve.forms import Head
from blt.serve.schemas import Usage
from blt.serve.service import Service
from blt.serve.writing import Part, Writer, token


async def asked_by(service: Service, request: ChatRequest) -> Asked:
    """What a chat comes down to: its messages as the model's template lays them out.

    Raises:
        APIError: 400, a model without a template, or messages that are none or that it refuses.
    """
    template = service.template
    if template is None:
        message = (
            f"{service.name} has no chat template, and was not trained to chat; send the text to "
            "go on with to /v1/completions, or start the server with --template"
        )
        raise APIError(400, message, code="no_chat_template")
    try:
        messages = check_messages(request.messages)
    except UserError as error:
        param = str(error).partition(": ")[0]
        raise APIError(400, str(error), param=param, code="invalid_messages") from None
    try:  # beside the event loop: templates are programs
        prompt = await asyncio.to_thread(template.prompt, messages)
    except UserError as error:
        raise APIError(400, str(error), param="messages", code="template_failed") from None
    stops = (*request.stops(), template.end) if template.end else request.stops()
    alternatives = (request.top_logprobs or 0) if request.logprobs else None
    asked = request.within(service.limits.max_bytes)
    return Asked(asked, [prompt], "messages", stops, alternatives)


class ChatWriter(Writer):
    """One answer in the making."""

    def tokens(self, pieces: tuple[Piece, ...], offsets: list[int]) -> ChatLogprobs:
        """An entry for each byte of the answer; what ended it has none."""
        return ChatLogprobs(
            content=[
                TokenLogprob(
                    **_token(byte, nats), top_logprobs=[TopLogprob(**_token(*one)) for one in top]
                )
                for piece in pieces
                for byte, nats, top in zip(piece.data, piece.logprobs, piece.top, strict=True)
            ]
        )


class ChatForm:
    """That of ``/v1/chat/completions``."""

    writer = ChatWriter

    def whole(self, head: Head, parts: list[Part], usage: Usage) -> BaseModel:
        choices = [
            ChatChoice(
                index=part.index,
                message=Answer(content=part.text),
                logprobs=part.logprobs,
                finish_reason=part.finish_reason,
                blt=part.blt,
            )
            for part in parts
        ]
        return ChatCompletion(**head, choices=choices, usage=usage)

    def first(self, head: Head, index: int) -> str | None:
        return self._chunk(
            head, ChunkChoice(index=index, delta=Delta(role="assistant", content=""))
        )

    def chunk(self, head: Head, part: Part) -> str:
        choice = ChunkChoice(
            index=part.index,
            delta=Delta(content=part.text or None),
            logprobs=part.logprobs,
            finish_reason=part.finish_reason,
            blt=part.blt,
        )
        return self._chunk(head, choice)

    def last(self, head: Head, usage: Usage) -> str:
        return ChatChunk(**head, choices=[], usage=usage).model_dump_json()

    def _chunk(self, head: Head, choice: ChunkChoice) -> str:
        nothing = {name for name, value in choice.delta if value is None}
        left_out = {"delta": nothing, **({"blt": True} if choice.blt is None else {})}
        without: Any = {"usage": True, "choices": {"__all__": left_out}}
        return ChatChunk(**head, choices=[choice]).model_dump_json(exclude=without)


def _token(byte: int, nats: float) -> dict[str, Any]:
    return {"token": token(byte), "logprob": nats, "bytes": None if byte == END else [byte]}
