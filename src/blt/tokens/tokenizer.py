"""Byte-pair encoding of any bytes, by the tokenizers library: for the baseline."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from typing import Any, Protocol

from blt.errors import UserError, needed

LEAST_VOCAB = 256  # every byte is a token
ESCAPED = re.compile("([\udc80-\udcff]+)")  # what surrogateescape makes of other bytes
LONGEST_CHARACTER = 4  # bytes


class Tokenizer(Protocol):
    """What a model over tokens needs."""

    def encode(self, data: bytes) -> list[int]:
        """Token ids of any bytes."""

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that were encoded."""

    @property
    def known(self) -> list[int]:
        """Ids that stand for a token: a model may have more."""


class ByteTokenizer:
    """Byte-level BPE (GPT-2's) whose tokens give back every byte string.

    What is not UTF-8 is encoded byte by byte, since the library reads text.

    Args:
        json: a tokenizer.json of a byte-level BPE.

    Raises:
        UserError: not a tokenizer.json, or one without a token for every byte.
    """

    def __init__(self, json: str) -> None:
        try:
            self._tokenizer = tokenizers_library().Tokenizer.from_str(json)
        except UserError:
            raise
        except Exception as error:  # the library raises bare Exception
            raise UserError(f"not a tokenizer.json ({error})") from None
        self.json = json
        ids = [self._tokenizer.token_to_id(character) for character in byte_characters()]
        if None in ids:
            raise UserError("the tokenizer has no token for some bytes: it is no byte-level BPE")
        self._byte_ids: list[int] = ids
        added = self._tokenizer.get_added_tokens_decoder()  # are written as they are
        self._added: dict[int, bytes] = {i: token.content.encode() for i, token in added.items()}
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        for probe in ("An E\u0301t\u00e9,  \n\tx ", "x" * 5000):  # accents, capitals, spaces
            if self.decode(self.encode(probe.encode())) != probe.encode():
                raise UserError("the tokenizer changes text; use one without a normalizer")

    @classmethod
    def train(cls, texts: Iterable[bytes], vocab_size: int) -> ByteTokenizer:
        """Learn merges from texts.

        Args:
            vocab_size: tokens, 256 for the bytes included; fewer where texts have no more merges.
        """
        if vocab_size < LEAST_VOCAB:
            raise UserError(f"vocab_size must be at least {LEAST_VOCAB}, got {vocab_size}")
        library = tokenizers_library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=vocab_size, initial_alphabet=byte_characters(), show_progress=False
        )
        readable = (text.decode("utf-8", "ignore") for text in texts)
        tokenizer.train_from_iterator(readable, trainer)
        return cls(tokenizer.to_str())

    def encode(self, data: bytes) -> list[int]:
        """Token ids of any bytes."""
        ids: list[int] = []
        for part in readable_runs(data):
            if isinstance(part, str):
                ids += self._tokenizer.encode(part, add_special_tokens=False).ids
            else:
                ids += (self._byte_ids[byte] for byte in part)
        return ids

    def decode(self, ids: Sequence[int]) -> bytes:
        """The bytes that were encoded."""
        return b"".join(self._added.get(i) or self._bytes_of(i) for i in ids)

    def tokens(self) -> list[bytes]:
        """The bytes of each token, by its id; empty where an id stands for none."""
        ids: dict[str, int] = self._tokenizer.get_vocab(with_added_tokens=True)
        added = self._tokenizer.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special}
        found = [b""] * (max(ids.values()) + 1)
        for text, i in ids.items():
            if i in self._added and i not in special:
                found[i] = self._added[i]
            elif i not in special and _values().keys() >= set(text):
                found[i] = self._bytes_of(i)
        return found

    def written(self) -> list[bytes]:
        """The bytes that each token stands for in a text, by its id: special ones as they are
        written there."""
        found = self.tokens()
        for i, data in self._added.items():
            found[i] = data
        return found

    @cached_property
    def sizes(self) -> list[int]:
        """Bytes of each token in a text, by its id."""
        return list(map(len, self.written()))

    @cached_property
    def known(self) -> list[int]:
        return sorted(self._tokenizer.get_vocab(with_added_tokens=True).values())

    def _bytes_of(self, token_id: int) -> bytes:
        values = _values()
        return bytes(values[character] for character in self._tokenizer.id_to_token(token_id))


def readable_runs(data: bytes) -> Iterator[str | bytes]:
    """Text, and between it what is no UTF-8: each byte that begins nothing, each character cut."""
    text = data.decode("utf-8", "surrogateescape")  # which text has none of
    for index, run in enumerate(ESCAPED.split(text)):
        if index % 2:
            yield from _pieces_of(run.encode("utf-8", "surrogateescape"))
        elif run:
            yield run


def _pieces_of(wrong: bytes) -> Iterator[bytes]:
    """What is no UTF-8, as Python's decoder finds it, piece by piece."""
    at = 0
    while at < len(wrong):
        try:
            wrong[at : at + LONGEST_CHARACTER].decode()
        except UnicodeDecodeError as error:
            yield wrong[at : at + error.end]
            at += error.end


@cache
def byte_characters() -> list[str]:
    """The character that stands for each byte in tokens: itself, or one above 255 (GPT-2)."""
    shown = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(b) if b in shown else chr(256 + hidden.index(b)) for b in range(256)]


@cache
def _values() -> dict[str, int]:
    return {character: byte for byte, character in enumerate(byte_characters())}


def tokenizers_library() -> Any:
    """The tokenizers library.

    Raises:
        UserError: it is not installed; says how to get it.
    """
    return needed("tokenizers", "study", "tokens need the tokenizers library")
