"""Requests and answers as pydantic models: what is checked, and what the OpenAPI schema shows."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from blt import vocab
from blt.generate.caches.rings import MAX_ROWS
from blt.patching import RULES
from blt.serve.neutral import COMPLETIONS, STREAMS, Values, describe, drop

Base64 = Annotated[str, Field(description="bytes in base64", pattern=r"^[A-Za-z0-9+/]*={0,2}$")]
OFFERED = [rule for rule in RULES.values() if rule.needs in (None, "entropy model")]
if TYPE_CHECKING:
    Rule = str
else:
    Rule = Literal[("model", *(rule.name for rule in OFFERED))]


HALF = "half a surrogate pair (of an emoji that was cut in two?)"


class Strict(BaseModel):
    """Unknown names, numbers in quotes, NaN and infinity are errors; of many the first is told."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _first_unknown(cls, data: Any) -> Any:
        """One is enough to refuse a request; hundreds of thousands would take seconds to list."""
        if not isinstance(data, dict):
            return data
        others = {name for name in data if name not in cls.model_fields}
        if len(others) < 2:
            return data
        first = next(name for name in data if name in others)
        return {n: value for n, value in data.items() if n == first or n not in others}


# Lists whose first error is told alone, for the same reason.
Ids = Annotated[list[int], Field(fail_fast=True)]
Texts = Annotated[list[str], Field(fail_fast=True)]
Prompts = str | Texts | Ids | Annotated[list[Ids], Field(fail_fast=True)]


def refusal(param: str, message: str) -> PydanticCustomError:
    """What a validator of a whole model raises about one parameter."""
    return PydanticCustomError("value_error", "{message}", {"message": message, "param": param})


def decode(text: str, param: str) -> bytes:
    """The bytes that a base64 text stands for.

    Raises:
        PydanticCustomError: it is none.
    """
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise refusal(param, f"not base64: {error}") from None


def spelled(text: str, param: str) -> bytes:
    """The bytes of a text.

    Raises:
        PydanticCustomError: half a surrogate pair, which JSON may have and UTF-8 has not.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise refusal(param, f"{HALF} at character {error.start}") from None


SPECIALS = {vocab.BOS: "<bos>", vocab.EOS: "<eos>"}  # what a prompt of ids may begin with


def bytes_of(ids: list[int], where: str, param: str = "prompt") -> bytes:
    """The bytes of a prompt of ids; a BOS or EOS in front only says that a text begins.

    Raises:
        PydanticCustomError: another id that is no byte; names its place.
    """
    first = 1 if ids and ids[0] in SPECIALS else 0
    for index, token_id in enumerate(ids[first:], first):
        if not vocab.OFFSET <= token_id < vocab.VOCAB_SIZE:
            message = (
                f"{where}.{index}: id {token_id} is no byte; a byte's is the byte + "
                f"{vocab.OFFSET}, and only the first may be BOS ({vocab.BOS}) or EOS ({vocab.EOS})"
            )
            raise refusal(param, message)
    return bytes(token_id - vocab.OFFSET for token_id in ids[first:])


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
        return spelled(self.text or "", "text")


class TokenizeRequest(Strict):
    """As vLLM's; evaluation harnesses ask for ids before they send them."""

    model: str | None = None
    prompt: str
    add_special_tokens: bool = Field(default=False, description="BOS in front")

    @model_validator(mode="after")
    def _spelled(self) -> TokenizeRequest:
        self.data()
        return self

    def data(self) -> bytes:
        return spelled(self.prompt, "prompt")


class TokenizeResponse(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeRequest(Strict):
    model: str | None = None
    tokens: Ids


class DetokenizeResponse(BaseModel):
    prompt: str


class TokenizerInfo(BaseModel):
    tokenizer_class: str = "bytes"
    vocab_size: int = vocab.VOCAB_SIZE
    bos_token: str = SPECIALS[vocab.BOS]
    eos_token: str = SPECIALS[vocab.EOS]
    pad_token: None = None


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
    rules: list[RuleIn] = Field(default=[RuleIn()], min_length=1, max_length=16, fail_fast=True)


class StreamOptions(Strict):
    model_config = ConfigDict(json_schema_extra=lambda schema: describe(schema, STREAMS))
    include_usage: bool = False

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: Any) -> Any:
        return drop(data, STREAMS, cls.model_fields)


class WritingRequest(Strict):
    """What completions and chats have in common. Lengths are in bytes."""

    neutral: ClassVar[Values] = {}  # what others send along, see blt.serve.neutral
    model: str | None = None
    max_tokens: int | None = None
    n: int | None = Field(default=1, ge=1, le=128)
    temperature: float | None = Field(default=1.0, ge=0, le=100)
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: str | Texts | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, description="taken, and not looked at")
    # Beyond OpenAI's:
    top_k: int | None = Field(default=None, ge=-1, description="0 and -1: off")
    min_p: float = Field(default=0.0, ge=0, le=1)
    repetition_penalty: float = Field(default=1.0, ge=0.01, le=100)
    valid_utf8: bool = Field(
        default=True, description="only whole characters of UTF-8; false: any bytes"
    )
    ignore_eos: bool = False
    draft_bytes: int | None = Field(default=None, ge=0, lt=MAX_ROWS, description="self-speculation")
    patches: bool = Field(default=False, description="adds `blt` to each choice and chunk")

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, data: Any) -> Any:
        return drop(data, cls.neutral, cls.model_fields)

    @model_validator(mode="after")
    def _possible(self) -> WritingRequest:
        if self.stream_options is not None and not self.stream:
            raise refusal("stream_options", "needs stream")
        stops = self.stops()
        if len(stops) > 16 or any(not 0 < len(stop) <= 256 for stop in stops):
            raise refusal("stop", "at most 16 strings of 1 to 256 bytes")
        return self

    @property
    def most_bytes(self) -> int:
        """Bytes to write at most."""
        raise NotImplementedError

    @property
    def most_bytes_source(self) -> str:
        """The parameter that says so."""
        return "max_tokens"

    def stops(self) -> tuple[bytes, ...]:
        stops = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(spelled(stop, "stop") for stop in stops)


class CompletionRequest(WritingRequest):
    """OpenAI's, and what bytes and patches add to it. Lengths are in bytes."""

    model_config = ConfigDict(json_schema_extra=lambda schema: describe(schema, COMPLETIONS))
    neutral: ClassVar[Values] = COMPLETIONS
    prompt: Prompts | None = Field(
        default=None, description="text, or ids: a byte's is the byte + 4"
    )
    prompt_bytes: Base64 | Annotated[list[Base64], Field(fail_fast=True)] | None = None
    max_tokens: int | None = Field(default=256, ge=0, description="bytes to write at most")
    best_of: int | None = Field(default=None, ge=1, description="only as many as n")
    echo: bool | None = False
    logprobs: int | None = Field(default=None, ge=0, le=20)

    @model_validator(mode="after")
    def _consistent(self) -> CompletionRequest:
        if self.prompt is not None and self.prompt_bytes is not None:
            raise refusal("prompt", "give prompt or prompt_bytes, not both")
        if self.best_of not in (None, self.n or 1):
            raise refusal("best_of", "must equal n: nothing is ranked here")
        if not self.prompts():
            raise refusal(self.source, "an empty list; give one prompt at least")
        return self

    @property
    def most_bytes(self) -> int:
        return 256 if self.max_tokens is None else self.max_tokens

    @property
    def source(self) -> str:
        """The parameter that holds the prompts."""
        return "prompt" if self.prompt_bytes is None else "prompt_bytes"

    def within(self, most: int) -> CompletionRequest:
        """The same; where it says nothing of its length, at most so many bytes."""
        if self.max_tokens is not None and "max_tokens" in self.model_fields_set:
            return self
        return self.model_copy(update={"max_tokens": min(self.most_bytes, most)})

    def prompts(self) -> list[bytes]:
        if isinstance(self.prompt_bytes, str):
            return [decode(self.prompt_bytes, "prompt_bytes")]
        if self.prompt_bytes is not None:
            return [decode(prompt, "prompt_bytes") for prompt in self.prompt_bytes]
        return [
            spelled(prompt, where) if isinstance(prompt, str) else bytes_of(prompt, where)
            for where, prompt in self._listed()
        ]

    def specials(self) -> list[str | None]:
        """Name of the special id that each prompt begins with, if it is one of ids."""
        if self.prompt_bytes is not None:
            return [None] * len(self.prompts())
        return [
            SPECIALS.get(prompt[0]) if prompt and not isinstance(prompt, str) else None
            for _, prompt in self._listed()
        ]

    def _listed(self) -> list[tuple[str, Any]]:
        """Where each prompt stands, and what it is: a string or ids."""
        prompt = self.prompt
        if prompt is None or isinstance(prompt, str):
            return [("prompt", prompt or "")]
        if prompt and isinstance(prompt[0], int):
            return [("prompt", prompt)]
        return [(f"prompt.{index}", one) for index, one in enumerate(prompt)]


# --- answers -------------------------------------------------------------------------------------


class RuleCard(BaseModel):
    """A rule that a request may ask for, besides the model's own."""

    rule: str
    about: str
    parameters: list[str]


class ModelCard(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "blt"
    kind: Literal["blt", "byte"]
    rule: str
    threshold: float | None
    parameters: dict[str, float] = Field(description="that its rule uses")
    max_prompt_bytes: int
    max_bytes: int
    draft_bytes: int
    chat: bool = Field(description="has it a chat template?")
    rules: list[RuleCard]


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
