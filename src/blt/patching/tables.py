"""What the rules ``lookup`` and ``bpe`` read: a table over the last bytes, token offsets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from blt import vocab
from blt.errors import UserError, needed
from blt.files import durable
from blt.files.tensors import save_whole
from blt.vocab import VOCAB_SIZE

MAX_ORDER = 3  # of a lookup table: 260 ** 4 entries would take 4.6 GB
TABLE = "table"  # name of the tensor, [260 ** n] bool


def lookup_key(ids: Tensor, order: int) -> Tensor:
    """The last ``order`` ids read as a number in base 260  # [T] int64.

    Ids before the document count as 0.
    """
    key = torch.zeros_like(ids)
    for back in range(order - 1, -1, -1):
        shifted = torch.cat((ids.new_zeros(min(back, len(ids))), ids[: len(ids) - back]))
        key = key * VOCAB_SIZE + shifted[: len(ids)]
    return key


def order_of(table: Tensor) -> int:
    """How many of the last bytes a table looks at: n of 260 ** n entries."""
    sizes = {VOCAB_SIZE**order: order for order in range(1, MAX_ORDER + 1)}
    return sizes[len(table)]


def lookup_entropies(documents: Sequence[tuple[Tensor, Tensor]], order: int) -> Tensor:
    """Mean entropy after each n-gram, in nats  # [260**order] float32, on the CPU.

    An n-gram that does not occur has the mean of its last n-1 bytes; a byte that does not, 0.

    Args:
        documents: pairs of ids [T] and entropies [T] (nats).
        order: n, in bytes.
    """
    mean = torch.zeros(1, dtype=torch.float32, device="cpu")
    for n in range(1, order + 1):
        total, count = (
            torch.zeros(VOCAB_SIZE**n, dtype=torch.float32, device="cpu") for _ in range(2)
        )
        for ids, entropies in documents:
            key = lookup_key(ids.cpu(), n)
            total.index_add_(0, key, entropies.float().cpu())
            count.index_add_(0, key, torch.ones(len(key), dtype=torch.float32, device="cpu"))
        mean = torch.where(count > 0, total / count.clamp_min(1), mean.repeat(VOCAB_SIZE))
    return mean


def read_lookup_table(path: Path | None) -> Tensor:
    """The table of the rule ``lookup``  # [260 ** n] bool.

    Raises:
        UserError: no file given, missing or damaged file, or a table of another size.
    """
    if path is None:
        raise UserError(
            "rule 'lookup' needs --table FILE; make one with: blt patch --file TEXT "
            "--make-table FILE --order 2"
        )
    if not path.is_file():
        raise UserError(f"{path}: no such file; make one with blt patch --make-table")
    try:
        table = load_file(path).get(TABLE)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a safetensors file ({error})") from None
    sizes = [VOCAB_SIZE**order for order in range(1, MAX_ORDER + 1)]
    if table is None or table.dtype != torch.bool or table.dim() != 1 or len(table) not in sizes:
        found = "nothing" if table is None else f"{table.dtype} {list(table.shape)}"
        raise UserError(
            f"{path}: expected a tensor {TABLE!r} of 260, 260**2 or 260**3 booleans, found {found}"
        )
    return table


def write_lookup_table(path: Path, table: Tensor, size: int) -> str:
    """Write a table learned from ``size`` bytes, whole or not at all; returns a line about it."""
    with durable.beside(path) as new:
        save_whole({TABLE: table}, new)
    grams = f"{int(table.sum())} of {len(table)} {order_of(table)}-grams"
    return f"{path}: patches start after {grams}, learned from {size} bytes"


def token_offsets(path: Path | None) -> Callable[[bytes], list[int]]:
    """A function from bytes to the byte offsets at which tokens start.

    Raises:
        UserError: no file given, missing or damaged file, or the tokenizers library is missing.
    """
    if path is None:
        raise UserError("rule 'bpe' needs --tokenizer FILE, a tokenizer.json")
    library = needed("tokenizers", "study", "rule 'bpe' needs the tokenizers library")
    if not path.is_file():
        raise UserError(f"{path}: no such file; give a tokenizer.json")
    try:
        tokenizer = library.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path}: not a tokenizer.json ({error})") from None
    return lambda data: _byte_offsets(tokenizer, data)


def _byte_offsets(tokenizer: Any, data: bytes) -> list[int]:
    """Token starts; a token that starts inside a character counts from the character's start.

    The library reads text and answers in characters, so each invalid byte stands in as U+FFFD.
    """
    text = data.decode("utf-8", "surrogateescape")
    sizes = [len(vocab.to_bytes(character)) for character in text]
    at = list(accumulate(sizes, initial=0))
    readable = "".join("\ufffd" if "\udc80" <= c <= "\udcff" else c for c in text)
    encoding = tokenizer.encode(readable, add_special_tokens=False)
    return sorted({at[start] for start, end in encoding.offsets if end > start})
