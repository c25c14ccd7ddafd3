"""Requests and answers as pydantic models: what is checked, and what the OpenAPI schema shows."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from blt.generate.cache import MAX_ROWS

Base64 = Annotated[str, Field(description="bytes in base64", pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
Rule = Literal[
    "model", "entropy", "entropy-monotonic", "entropy-combined", "space", "static", "byte"
]
NEUTRAL = {  # parameters of OpenAI's that are accepted only where they change nothing
    "frequency_penalty": "0",
    "presence_penalty": "0",
    "logit_bias": "an empty object",
    "suffix": "null",
}


class Strict(BaseModel):
    """Unknown names, numbers in quotes, NaN and infinity are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def refusal(param: str, message: str) -> PydanticCustomError:
    """What a validator of a whole model raises about one parameter."""
    return PydanticCustomError("value_error", "{message}", {"message": message, "param": param})


def decode(text: str, param: str) -> bytes:
    """Of base64.

    Raises:
        PydanticCustomError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise refusal(param, f"not base64: {error}") from None


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


class TextIn(Strict):
    """One text, as ``text`` or, any bytes, as ``bytes``."""

    text: str | None = None
    bytes: Base64 | None = None

    @model_validator(mode="after")
    def _one(self) -> TextIn:
        if (self.text is None) == (self.bytes is None):
            raise refusal("text", "give text, or bytes in base64, and not both")
        self.data()
        return self

    @property
    def source(self) -> str:
        """The parameter that holds the text."""
        return "text" if self.bytes is None else "bytes"

    def data(self) -> Any:  # bytes; the name is taken by a field
        if self.bytes is not None:
            return decode(self.bytes, "bytes")
        return (self.text or "").encode()


class ScoreRequest(TextIn):
    model: str | None = None


class RuleIn(Strict):
    rule: Rule = "model"
    threshold: float | None = Field(default=None, ge=-100, le=100, description="nats")
    threshold_add: float | None = Field(default=None, ge=-100, le=100, description="nats")
    stride: int | None = Field(default=None, ge=1, le=2**20, description="bytes")
    max_patch_length: int | None = Field(default=None, ge=1, le=2**20, description="bytes")


class PatchesRequest(TextIn):
    model: str | None = None
    rules: list[RuleIn] = Field(default=[RuleIn()], min_length=1, max_length=16)


class StreamOptions(Strict):
    include_usage: bool = False


class CompletionRequest(Strict):
    """OpenAI's, and what bytes and patches add to it. Lengths are in bytes."""

    model: str | None = None
    prompt: str | list[str] | None = None
    prompt_bytes: Base64 | list[Base64] | None = None
    max_tokens: int | None = Field(default=256, ge=0, description="bytes to write at most")
    n: int | None = Field(default=1, ge=1, le=128)
    best_of: int | None = Field(default=None, ge=1, description="only as many as n")
    temperature: float | None = Field(default=1.0, ge=0, le=100)
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | list[str] | None = None
    echo: bool | None = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="taken, and not looked at")
    frequency_penalty: float | None = Field(default=None, ge=0, le=0, description="only 0")
    presence_penalty: float | None = Field(default=None, ge=0, le=0, description="only 0")
    logit_bias: dict[str, float] | None = Field(
        default=None, max_length=0, description="only empty"
    )
    suffix: None = Field(default=None, description="only null")
    # Beyond OpenAI's:
    top_k: int | None = Field(default=None, ge=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    valid_utf8: bool = False
    ignore_eos: bool = False
    draft_bytes: int | None = Field(default=None, ge=0, lt=MAX_ROWS, description="self-speculation")
    patches: bool = Field(default=False, description="adds `blt` to each choice and chunk")

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if self.prompt is not None and self.prompt_bytes is not None:
            raise refusal("prompt", "give prompt or prompt_bytes, not both")
        if self.best_of not in (None, self.n or 1):
            raise refusal("best_of", "must equal n: nothing is ranked here")
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", "needs stream")
        stops = self.stops()
        if len(stops) > 16 or any(not 0 < len(stop) <= 256 for stop in stops):
            raise refusal("stop", "at most 16 strings of 1 to 256 bytes")
        if not self.prompts():
            raise refusal(self.source, "an empty list; give one prompt at least")
        return self

    @property
    def source(self) -> str:
        """The parameter that holds the prompts."""
        return "prompt" if self.prompt_bytes is None else "prompt_bytes"

    def prompts(self) -> list[bytes]:
        if isinstance(self.prompt_bytes, str):
            return [decode(self.prompt_bytes, "prompt_bytes")]
        if self.prompt_bytes is not None:
            return [decode(prompt, "prompt_bytes") for prompt in self.prompt_bytes]
        prompts = self.prompt if isinstance(self.prompt, list) else [self.prompt or ""]
        return [prompt.encode() for prompt in prompts]

    def stops(self) -> tuple[bytes, ...]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop.encode() for stop in stops)


# --- answers -------------------------------------------------------------------------------------


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "blt"
    kind: Literal["blt", "byte"]
    rule: str
    threshold: float | None
    target: float | None = None
    max_prompt_bytes: int
    max_bytes: int
    draft_bytes: int


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelCard]


class PatchesOut(BaseModel):
    """One rule's; parameters that it does not use are left out."""

    model_config = ConfigDict(extra="allow")
    rule: str
    starts: list[int] = Field(description="offsets of the bytes that start a patch")
    mean_size: float = Field(description="bytes per patch")


class PatchesResponse(BaseModel):
    bytes: int
    entropies: list[float] = Field(description="nats, of the prediction of each byte")
    surprise: list[float] = Field(description="bits of each byte under the entropy model")
    patches: list[PatchesOut]


class ScoreResponse(BaseModel):
    bytes: int
    bits: list[float] = Field(description="of each byte under the model")
    bits_per_byte: float
    patches: int


class Usage(BaseModel):
    """In bytes, and in patches."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_patches: int
    completion_patches: int


class Logprobs(BaseModel):
    """OpenAI's; a token is a byte: its ASCII character, or ``bytes:\\xNN``."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]] | None
    text_offset: list[int] = Field(description="of each byte's character in the text")


class BytesOut(BaseModel):
    """What a choice or chunk is made of, byte by byte."""

    bytes: Base64
    starts: list[bool] = Field(description="does it start a patch?")
    logprobs: list[float] = Field(description="nats")
    top: list[list[tuple[int, float]]] = Field(description="likeliest bytes and their nats")
    drafted: list[Literal["accepted", "rejected-replacement"] | None] | None = None


class Choice(BaseModel):
    index: int
    text: str
    logprobs: Logprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    blt: BytesOut | None = None


class Completion(BaseModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
