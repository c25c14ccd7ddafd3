"""Which ids an n-gram is made of: those before a row, as its hash sees them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blt.vocab import BOS, BPE, EOS, OFFSET

TO_LOWER = ord("a") - ord("A")


def without_case(ids: Tensor) -> Tensor:
    """Byte ids with A-Z as a-z."""
    capital = (ids >= ord("A") + OFFSET) & (ids <= ord("Z") + OFFSET)
    return torch.where(capital, ids + TO_LOWER, ids)


def folded(token_id: int, fold: Sequence[str]) -> int:
    """A byte's id as hashes see it."""
    capital = "case" in fold and ord("A") <= token_id - OFFSET <= ord("Z")
    return token_id + TO_LOWER if capital else token_id


def previous_rows(positions: Tensor) -> Tensor:
    """The row before each in its document; N where there is none  # [N].

    Args:
        positions: [N] index from each document's start, of whole documents.
    """
    rows = torch.arange(len(positions), dtype=torch.int64, device=positions.device)
    return torch.where(positions > 0, rows - 1, len(rows))


class Trail:
    """Ways back through documents, from any row.

    Args:
        ids: [N]
        previous: [N] the row before each in its document; N where there is none.
        left_out: [N] bool rows that no n-gram counts; never the first of a document.
        outside: the id of what is before a document.
    """

    def __init__(
        self, ids: Tensor, previous: Tensor, left_out: Tensor | None = None, outside: int = 0
    ) -> None:
        none = len(ids)
        self.ids = torch.cat((ids, ids.new_full((1,), outside)))  # [N + 1]
        self.previous = torch.cat((previous, previous.new_full((1,), none)))
        self.newest: Tensor | None = None  # [N + 1] the last row that counts, up to each
        if left_out is not None:
            rows = torch.arange(none + 1, dtype=torch.int64, device=ids.device)
            newest = torch.where(torch.cat((left_out, left_out.new_zeros(1))), self.previous, rows)
            for _ in range(none.bit_length()):  # each time twice as far back
                newest = newest[newest]
            self.newest = newest

    def back(self, rows: Tensor, reach: int) -> list[Tensor]:
        """``back[j][t]`` is the j-th id before row ``rows[t]`` of those that count  # [n] each."""
        back = []
        for _ in range(reach):
            if self.newest is not None:
                rows = self.newest[rows]
            back.append(self.ids[rows])
            rows = self.previous[rows]
        return back


def suffixes(written: Sequence[bytes], num_ids: int, reach: int, fold: Sequence[str]) -> Tensor:
    """The last bytes of each token as ids that hashes see, newest first, then zeros.

    Two more follow the tokens, BOS and EOS; and a last row, of zeros, is what is before a document.
    An id that stands for no bytes counts as one byte that no text has.

    Args:
        written: the bytes of each token.
        num_ids: V ids of the model, BOS and EOS among them.
        reach: bytes of the longest n-gram.

    Returns:
        [V + 1, max(2, reach)] int16
    """
    width = max(2, reach)  # one byte, or more than one?
    table = torch.zeros(num_ids + 1, width, dtype=torch.int16, device="cpu")
    table[:-1, 0] = BPE
    table[num_ids - 2, 0], table[num_ids - 1, 0] = BOS, EOS
    for token, data in enumerate(written):
        ids: list[int] = []
        for byte in reversed(data):
            seen = folded(byte + OFFSET, fold)
            if "repeats" not in fold or seen != (ids[-1] if ids else None):
                ids.append(seen)
            if len(ids) == width:
                break
        if ids:
            table[token, : len(ids)] = torch.tensor(ids, dtype=torch.int16, device="cpu")
            table[token, len(ids) :] = 0
    return table


def bytes_back(tokens: Sequence[Tensor], suffixes: Tensor, reach: int, repeats: bool) -> Tensor:
    """The last bytes of text that end with each token, newest first  # [n, reach] int64.

    Args:
        tokens: ids of a token and of the ``reach - 1`` before it, newest first  # [n] each.
        suffixes: from :func:`suffixes`.
        repeats: a byte equal to the one before it is left out.
    """
    rows, width = len(tokens[0]), suffixes.shape[1]
    found = tokens[0].new_zeros(rows, reach + 1 + width)
    columns = torch.arange(width, dtype=torch.int64, device=found.device)
    at = tokens[0].new_zeros(rows, 1)  # bytes that are there
    oldest = at - 1  # of these
    for token in tokens:
        new = suffixes[token].long()  # [n, width]
        length = (new > 0).sum(1, keepdim=True)
        if repeats:  # the one that ends here and the one that begins there count once
            at = at - (new[:, :1] == oldest).long()
            oldest = new.gather(1, (length - 1).clamp_min(0)).where(length > 0, -1)
        found.scatter_(1, at + columns, new)  # what is written too far, the next token mends
        at = (at + length).clamp_max(reach + 1)
    return found[:, :reach]


def as_bytes(tokens: Tensor, num_ids: int) -> Tensor:
    """Ids of tokens numbered as those of bytes are: BOS and EOS, and then the tokens."""
    special = num_ids - 2
    return torch.where(tokens < special, tokens + OFFSET, tokens - special + BOS)
