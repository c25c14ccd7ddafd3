"""``/v1/embeddings``: OpenAI's, of texts or of any bytes."""

from __future__ import annotations

import base64
from functools import partial
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from blt.scoring import embedding
from blt.serve.errors import APIError
from blt.serve.neutral import Values, describe, drop
from blt.serve.schemas import Base64, Prompts, Strict, bytes_of, decode, refusal, spelled
from blt.serve.service import Service
from blt.texts.pieces import groups

MOST = 2048  # texts of one request, as OpenAI has it
EMBEDDINGS: Values = {"user": str, "input_type": (), "truncate": (), "truncate_prompt_tokens": ()}


class EmbeddingRequest(Strict):
    """OpenAI's, and ``input_bytes``."""

    model_config = ConfigDict(json_schema_extra=lambda schema: describe(schema, EMBEDDINGS))
    model: str | None = None
    input: Prompts | None = Field(
        default=None, description="text, or ids: a byte's is the byte + 4"
    )
    input_bytes: Base64 | Annotated[list[Base64], Field(fail_fast=True)] | None = None
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(default=None, ge=1, description="only as many as there are")

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: Any) -> Any:
        return drop(data, EMBEDDINGS, cls.model_fields)

    @model_validator(mode="after")
    def _consistent(self) -> EmbeddingRequest:
        if (self.input is None) == (self.input_bytes is None):
            raise refusal("input", "give input, or input_bytes in base64, and not both")
        if not 0 < len(self.texts()) <= MOST:
            raise refusal(self.source, f"{len(self.texts())} texts; give 1 to {MOST}")
        return self

    @property
    def source(self) -> str:
        """The parameter that holds the texts."""
        return "input" if self.input_bytes is None else "input_bytes"

    def texts(self) -> list[bytes]:
        if self.input_bytes is not None:
            given = self.input_bytes
            return [
                decode(one, "input_bytes") for one in ([given] if isinstance(given, str) else given)
            ]
        if isinstance(self.input, str):
            return [spelled(self.input, "input")]
        listed: list[Any] = self.input or []
        if listed and isinstance(listed[0], int):
            return [bytes_of(listed, "input", "input")]
        return [
            spelled(one, f"input.{index}")
            if isinstance(one, str)
            else bytes_of(one, f"input.{index}", "input")
            for index, one in enumerate(listed)
        ]


class Embedding(BaseModel):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(description="of length 1; or float32, in base64")


class EmbeddingUsage(BaseModel):
    """In bytes."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


async def embed(service: Service, body: EmbeddingRequest) -> EmbeddingList:
    """Vectors of all texts; between groups of them others have their turn.

    Raises:
        APIError: 422, other ``dimensions`` than there are; 429, too many are waiting.
    """
    lm, texts = service.lm, body.texts()
    there = embedding.width(lm, embedding.own_level(lm))
    if body.dimensions not in (None, there):
        message = f"dimensions {body.dimensions}: this model's vectors have {there}"
        raise APIError(422, message, param="dimensions")
    found: list[Embedding] = []
    for group in groups([1 + len(text) for text in texts], embedding.TOGETHER):
        together = [texts[index] for index in group]
        rows = await service.analyse(partial(service.analysis.embed, together))
        for index, row in zip(group, rows, strict=True):
            vector = row.tolist() if body.encoding_format != "base64" else _base64(row)
            found.append(Embedding(index=index, embedding=vector))
    read = sum(map(len, texts))
    usage = EmbeddingUsage(prompt_tokens=read, total_tokens=read)
    return EmbeddingList(data=found, model=service.name, usage=usage)


def _base64(row: Any) -> str:
    """float32 [D] in little-endian bytes, as OpenAI's client reads it."""
    return base64.b64encode(row.astype("<f4").tobytes()).decode()
