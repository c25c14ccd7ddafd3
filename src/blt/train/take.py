"""A model takes over the weights of another one, whose tables, tokens or rule are not the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from blt.lm import TokenLM
from blt.model.embedding import NgramTables
from blt.tokens.tokenizer import ByteTokenizer

ENTROPY_MODEL = "entropy_model."  # it was chosen before
NGRAM = "ngram"  # parameters of hash tables end so
ROWS = ("embedding", "head.weight")  # of tokens, one each
REPEATED = "each row is there {times} times, so what the model says is the same"
MEAN = "each row is the mean of {times} that fall together"
ZERO = "begins at zero"
NEW = "begins with random weights"


@torch.no_grad()
def take_weights(old: nn.Module, new: nn.Module) -> dict[str, str]:
    """Copy all that has the same name and shape in both; hash tables and an entropy model are left.

    Returns:
        what begins with random weights, by the module's name.
    """
    there, notes = old.state_dict(), dict[str, str]()
    for name, tensor in new.state_dict().items():
        if name.startswith(ENTROPY_MODEL) or name.endswith(f".{NGRAM}"):
            continue
        found = there.get(name)
        if found is not None and found.shape == tensor.shape:
            if tensor.dtype != torch.bool:  # a table of a rule, which was chosen before
                tensor.copy_(found)
        elif name not in ROWS and tensor.dtype != torch.bool:
            notes[name.partition(".")[0]] = NEW
    return notes


@torch.no_grad()
def take_tables(old: nn.Module, new: nn.Module) -> dict[str, str]:
    """Give hash tables what can be known of their rows.

    An n-gram of hash h lies in row h mod V. With a multiple of V rows, each finds its own again if
    the table is repeated; with a divisor of V, rows that fall together become their mean; with
    other numbers, and for n-grams of other sizes, nothing is known: tables begin at zero.

    Returns:
        what was done, by the key of the recipe's section.
    """
    was, now = _tables(old), _tables(new)
    if now is None:
        return {}
    now.ngram.zero_()
    if was is None or was.ngram.shape[-1] != now.ngram.shape[-1]:
        return {"hash_ngram_sizes": ZERO} if now.sizes else {}
    notes, place = dict[str, str](), _by_table(now)
    for key, rows in _by_table(was).items():
        if key in place:
            place[key].copy_(_resized(rows, now.rows))
    added = [str(size) for size in now.sizes if size not in was.sizes]
    if added:
        notes["hash_ngram_sizes"] = f"the table of {', '.join(added)} {ZERO}"
    if was.rows != now.rows:
        notes["hash_rows"] = _how(was.rows, now.rows)
    return notes


@torch.no_grad()
def take_tokens(old: TokenLM, new: TokenLM) -> dict[str, str]:
    """Give every token what the old model knows of its bytes.

    A token that both have keeps its rows; another one gets the mean of those of the tokens that
    its bytes were. Ids that stand for nothing begin at zero.

    Returns:
        what was done, by the key of the recipe.
    """
    known = {data: index for index, data in enumerate(old.tokenizer.written()) if data}
    written = new.tokenizer.written()
    for name in ROWS:
        source, target = old.state_dict()[name], new.state_dict()[name]
        target.zero_()
        for index, data in enumerate(written):
            if data:
                target[index] = source[_ids(data, known, old.tokenizer)].mean(0)
        target[new.bos], target[new.eos] = source[old.bos], source[old.eos]
    kept = sum(data in known for data in written)
    notes = {"tokenizer": f"{kept} tokens are in both, the others begin as the mean of their parts"}
    if _same_numbers(old.tokenizer, new.tokenizer) or new.config.hash_of == "bytes":
        return notes
    tables = _tables(old)
    if tables is not None:  # n-grams of other numbers fall into other rows
        tables.ngram.zero_()
        notes["hash_rows"] = ZERO
    return notes


def _ids(data: bytes, known: dict[bytes, int], tokenizer: ByteTokenizer) -> list[int]:
    return [known[data]] if data in known else tokenizer.encode(data)


def _same_numbers(old: ByteTokenizer, new: ByteTokenizer) -> bool:
    return old.written() == new.written()


def _tables(model: Any) -> NgramTables | None:
    """The hash tables of any model, its entropy model's left out."""
    encoder = getattr(model, "encoder", None)
    found = getattr(model, "tables", None) if encoder is None else encoder.embedding
    return found if isinstance(found, NgramTables) else None


def _by_table(tables: NgramTables) -> dict[tuple[int, int], Tensor]:
    """The rows [V, d] of each function and size, as views."""
    if not tables.sizes:
        return {}
    parts: Sequence[Tensor] = tables.ngram.detach().split(tables.rows)
    keys = [(f, size) for f in range(tables.functions) for size in tables.sizes]
    return dict(zip(keys, parts, strict=True))


def _resized(rows: Tensor, count: int) -> Tensor:
    """Rows [V, d] of a table → [count, d]."""
    size = len(rows)
    if count % size == 0:
        return rows.repeat(count // size, 1)
    if size % count == 0:
        return rows.view(size // count, count, -1).mean(0)
    return rows.new_zeros(count, rows.shape[-1])


def _how(old: int, new: int) -> str:
    if new % old == 0:
        return REPEATED.format(times=new // old)
    return MEAN.format(times=old // new) if old % new == 0 else ZERO
