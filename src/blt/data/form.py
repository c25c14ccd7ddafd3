"""What the rows of a source mean: which keys hold a text, a conversation, or a question and its
answer; and which of it is learned.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, Literal

from blt.chat import ChatTemplate
from blt.errors import UserError, nearest, require
from blt.files.configs import from_dict
from blt.texts.marked import marked
from blt.vocab import to_bytes

Learn = Literal["all", "completions"]
TEXT = "text"  # the key, where none is named
ANY = "any"  # as text: every file, whatever is in it
HUB = "hf:"
KEYS_SHOWN, LONGEST_KEY = 8, 40  # of an object without text


@dataclass(frozen=True)
class SourceConfig:
    """A source, and how it is read: of ``text``, ``messages``, and ``prompt`` with ``completion``
    one at most is named."""

    path: str  # file, folder, glob, hf:NAME, prepared folder
    text: str | None = None  # key of a document; "any": all files as they are, binary ones too
    messages: str | None = None  # key of a conversation
    prompt: str | None = None  # key of what is answered
    completion: str | None = None  # key of the answer
    config: str | None = None  # of a dataset of the hub
    split: str | None = None  # of a dataset of the hub
    weight: float | None = None  # share of the source, as data.weights

    def __post_init__(self) -> None:
        where = f"source {self.path!r}"
        require(self.path != "", "a source of text has no path; name a file, folder or glob")
        both = (self.prompt is None) == (self.completion is None)
        require(both, f"{where}: prompt and completion need each other")
        ways = [name for name in ("text", "messages", "prompt") if getattr(self, name) is not None]
        require(len(ways) < 2, f"{where}: has {' and '.join(ways)}; a row is read in one way")
        on_hub = self.path.startswith(HUB)
        for name in ("config", "split"):
            fits = getattr(self, name) is None or on_hub
            require(fits, f"{where}: {name} is of datasets, such as hf:NAME")
        require(self.text != ANY or not on_hub, f"{where}: text = 'any' is of files and folders")
        keys = not self.path.startswith("builtin:") or not ways
        require(keys, f"{where}: has no keys; leave out {' '.join(ways)}")
        for name in (*ways, *["completion"] * (self.completion is not None)):
            require(getattr(self, name) != "", f"{where}: {name} names no key")
        weight = self.weight is None or self.weight > 0
        require(weight, f"{where}: weight must be positive, got {self.weight}")

    @property
    def names_keys(self) -> bool:
        """Does it say how rows are read?"""
        return any(key is not None for key in (self.text, self.messages, self.prompt))


AnySource = str | SourceConfig


def source_of(given: Any, where: str) -> AnySource:
    """A source as recipes and commands write it: a name, or a table.

    Raises:
        UserError: a key that there is not, or a wrong value; ``where`` opens the message.
    """
    return from_dict(SourceConfig, given, where) if isinstance(given, dict) else str(given)


def parsed_source(text: str) -> AnySource:
    """A source as the command line has it: a name, or a table of TOML in braces.

    Raises:
        UserError: not TOML, or as of :func:`source_of`.
    """
    if not text.startswith("{"):
        return text
    try:
        return source_of(tomllib.loads(f"source = {text}")["source"], text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{text}: not valid TOML ({error})") from None


def path_of(source: AnySource) -> str:
    return source if isinstance(source, str) else source.path


class MissingKeyError(ValueError):
    """A row without a key that is needed."""


@dataclass(frozen=True)
class Form:
    """How rows become documents.

    Attributes:
        source: as the user gave it.
        learn: all of each document, or of conversations what the assistant says, and of questions
            the answers.
        template: how a conversation is laid out; None: as ours are.
    """

    source: AnySource = ""
    learn: Learn = "completions"
    template: ChatTemplate | None = None

    @property
    def named(self) -> bool:
        """Has the user named keys? Then what has none of them is no text."""
        return isinstance(self.source, SourceConfig) and self.source.names_keys

    @property
    def takes_all(self) -> bool:
        """Is every file a document, whatever is in it?"""
        return isinstance(self.source, SourceConfig) and self.source.text == ANY

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """That a row must have."""
        if isinstance(self.source, str) or not self.named:
            return (TEXT,)
        source = self.source
        return tuple(
            key
            for key in (source.text, source.messages, source.prompt, source.completion)
            if key is not None
        )

    @property
    def example(self) -> str:
        """A row, as it should be."""
        value = "[...]" if self._converses else '"..."'
        return "{" + ", ".join(f'"{key}": {value}' for key in self.keys) + "}"

    def fits(self, row: Any) -> bool:
        """Does a row have the keys?"""
        return isinstance(row, dict) and all(key in row for key in self.keys)

    def document(self, row: Any) -> bytes:
        """That of a row; empty: it has none.

        Raises:
            MissingKeyError: names the key, and those that are there.
            ValueError: says what is broken.
        """
        if not isinstance(row, dict):
            raise ValueError(f"expected a JSON object, got {type(row).__name__}")
        for key in self.keys:
            if key not in row:
                raise MissingKeyError(
                    f"no {key!r} among its keys, which are {listed(row)}{self.hint(key, row)}"
                )
        every = self.learn == "all"
        if self._converses:
            return marked(self._template.render(row[self.keys[0]]), every)
        texts = [_text_of(key, row[key]) for key in self.keys]
        if len(texts) == 1 or not any(texts):
            return texts[0]
        return marked(list(zip(texts, (False, True), strict=True)), every)

    @property
    def _converses(self) -> bool:
        return isinstance(self.source, SourceConfig) and self.source.messages is not None

    @cached_property
    def _template(self) -> ChatTemplate:
        return self.template or ChatTemplate.default()

    def hint(self, key: str, row: Any) -> str:
        """What may have been meant by a key that a row does not have; the end of a message."""
        if not isinstance(row, dict):
            return ""
        if self.named:
            meant = nearest(key, list(row))
            return f"; {meant}" if meant.startswith("did") else ""
        if "messages" in row:
            return '; a recipe reads conversations with {path = "...", messages = "messages"}'
        return ""


def listed(names: Collection[str]) -> str:
    """Some of the keys that are there."""
    shown = [name[:LONGEST_KEY] for name in islice(names, KEYS_SHOWN)]
    return ", ".join([*shown, *["…"] * (len(names) > KEYS_SHOWN)]) or "none"


def converses(sources: Sequence[AnySource]) -> bool:
    """Is one of them read as conversations?"""
    return any(isinstance(one, SourceConfig) and one.messages is not None for one in sources)


def weights_of(sources: Sequence[AnySource]) -> tuple[float, ...]:
    """The shares that tables give; none, where none does.

    Raises:
        UserError: some sources have one and others do not.
    """
    found = [source.weight for source in sources if isinstance(source, SourceConfig)]
    given = [weight for weight in found if weight is not None]
    every = len(given) in (0, len(sources))
    require(every, "data.sources: give each source a weight, or none of them")
    return tuple(given)


def without_weight(source: AnySource) -> AnySource:
    """A source as it is read: one that says no more than its path is that path."""
    if isinstance(source, str):
        return source
    plain = replace(source, weight=None)
    return source.path if plain == SourceConfig(source.path) else plain


def _text_of(key: str, text: Any) -> bytes:
    if not isinstance(text, str | bytes):
        raise ValueError(f"{key!r} must be a string, got {type(text).__name__}")
    return to_bytes(text)
