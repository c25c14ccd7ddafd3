"""Byte probabilities of a token model, and what a byte model loses beside them.

Within a text as the source's own tokenizer cuts it, the token model says how likely each token is
to come next. Where r bytes of a token are known, the probability of a value of the next byte is
that of all tokens that begin with these r bytes and go on with that value, over that of all tokens
that begin with these r bytes and go on at all.

Two things make this an approximation of the token model's distribution over bytes: what comes
before is taken as cut in one way, where other ways to cut it have some probability too; and that
the token goes on is taken as known, where it might have ended, and the byte belong to the next one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from blt import vocab
from blt.errors import UserError, require
from blt.evals.models import load
from blt.files.hub import local_folder
from blt.lm import TokenModel
from blt.model.config import SPECIAL, TokenTransformerConfig
from blt.model.flops import token_transformer_flops
from blt.model.packing import Spans
from blt.tokens.tokenizer import ByteTokenizer

LEAST = 1e-9  # probability of all tokens that fit, below which rounding decides between bytes
CHUNK = 2**24  # probabilities held at once, in float64


class TokenBytes:
    """The tokens of a vocabulary, in the order of their bytes: those that begin alike are a run.

    Args:
        tokens: bytes of each; empty for those that stand for none.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        by_bytes = sorted(range(len(tokens)), key=tokens.__getitem__)
        self.order = torch.tensor(by_bytes, dtype=torch.int64, device="cpu")  # [V]
        self._sorted = [tokens[index] for index in by_bytes]
        self._longest = max(map(len, tokens))
        self._runs: dict[bytes, Tensor] = {}

    def runs(self, prefix: bytes) -> Tensor:
        """Where tokens that go on after ``prefix`` with byte 0, 1, ... 255 begin, and end [257]."""
        if prefix not in self._runs:
            values = (bytes([value]) for value in range(256))
            found = [bisect_left(self._sorted, prefix + value) for value in values]
            found.append(bisect_right(self._sorted, prefix + b"\xff" * (self._longest + 1)))
            self._runs[prefix] = torch.tensor(found, dtype=torch.int64, device="cpu")
        return self._runs[prefix]


def byte_probabilities(logits: Tensor, rows: Tensor, runs: Tensor, order: Tensor) -> Tensor:
    """Sum the probabilities of tokens over those that go on alike.

    Args:
        logits: of tokens, after every token  # [M, V]
        rows: which of them speaks about each byte, ascending  # [N]
        runs: of the bytes known of the token, as of :meth:`TokenBytes.runs`  # [N, 257]
        order: of tokens, by their bytes  # [<= V]

    Returns:
        float32 [N, 256]; zeros where hardly any token fits.
    """
    out = torch.zeros(len(rows), 256, dtype=torch.float32, device=logits.device)
    size = max(1, CHUNK // len(order))
    for first in range(0, len(logits), size):
        p = logits[first : first + size].float().softmax(-1)[:, order]
        sums = F.pad(p.double().cumsum(-1), (1, 0))  # differences of tiny parts stay exact
        low, high = torch.searchsorted(rows, rows.new_tensor([first, first + size])).tolist()
        ends = sums[rows[low:high, None] - first, runs[low:high]]  # [n, 257]
        total = ends[:, -1:] - ends[:, :1]
        out[low:high] = torch.where(total > LEAST, ends.diff() / total, 0.0).float()
    return out


@dataclass(frozen=True)
class Taught:
    """What a teacher says about a batch of documents, N ids together."""

    probabilities: Tensor  # [N, 256] of the next byte; zeros where it says nothing
    flops: float  # of reading the batch

    def excess(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy with the teacher's probabilities less that with the bytes that came.

        Args:
            logits: of the byte model  # [N, 260]
            targets: byte ids  # [N]

        Returns:
            nats, summed over the positions that the teacher speaks about and that a byte follows.
        """
        known = (self.probabilities.sum(-1) > 0) & (targets >= vocab.OFFSET)
        log_p = logits[known].float().log_softmax(-1)
        soft = -(self.probabilities[known] * log_p[:, vocab.OFFSET :]).sum()
        return soft + log_p.gather(1, targets[known, None]).sum()


class Teacher:
    """A frozen token model that says how likely each next byte is.

    Args:
        lm: its tokenizer is a byte-level BPE.
        shape: of its layers, to count FLOPs.
        context_bytes: of a document, for the same.
    """

    def __init__(
        self, lm: TokenModel, shape: TokenTransformerConfig, context_bytes: int = 2048
    ) -> None:
        assert isinstance(lm.tokenizer, ByteTokenizer)
        self.lm, self.shape, self.context_bytes = lm, shape, context_bytes
        self.tokens = TokenBytes(lm.tokenizer.tokens())

    @torch.no_grad()
    def read(self, documents: Sequence[Tensor]) -> Taught:
        """What comes after each id of documents, each byte ids [T] with BOS first.

        Nothing is said about what follows the last byte of a document.
        """
        cut = [self._cut(vocab.decode(ids)) for ids in documents]
        ids_before = Spans.from_lengths([len(ids) for ids in documents]).offsets
        tokens_before = Spans.from_lengths([len(tokens) for tokens, _, _ in cut]).offsets
        runs = [run for _, _, runs in cut for run in runs]
        device = self.lm.device
        probabilities = torch.zeros(ids_before[-1], 256, dtype=torch.float32, device=device)
        if runs:
            logits = self.lm.packed_logits([tokens.to(device) for tokens, _, _ in cut])
            rows = [
                inside + first for (_, inside, _), first in zip(cut, tokens_before, strict=False)
            ]
            at = [
                torch.arange(len(inside), dtype=torch.int64, device=inside.device) + first
                for (_, inside, _), first in zip(cut, ids_before, strict=False)
            ]
            known = (torch.cat(rows), torch.stack(runs), self.tokens.order)
            found = byte_probabilities(logits, *(x.to(device) for x in known))
            probabilities[torch.cat(at).to(device)] = found
        return Taught(probabilities, self._flops(tokens_before[-1] - len(cut), len(runs)))

    def _cut(self, text: bytes) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Its tokens, BOS first [1 + M]; of each byte, the token that it lies in [B], and where
        the tokens are that begin like that up to there."""
        tokens = self.lm.ids_of(text)
        inside: list[int] = []
        runs: list[Tensor] = []
        for number, token in enumerate(tokens[1:].tolist()):
            piece = self.lm.tokenizer.decode([token])
            inside += [number] * len(piece)
            runs += (self.tokens.runs(piece[:known]) for known in range(len(piece)))
        return tokens, torch.tensor(inside, dtype=torch.int64), runs

    def _flops(self, tokens: int, num_bytes: int) -> float:
        size = max(1.0, num_bytes / max(1, tokens))
        return token_transformer_flops(self.shape, size, self.context_bytes) * num_bytes


def load_teacher(
    source: str, shape: TokenTransformerConfig, context_bytes: int, device: torch.device
) -> Teacher:
    """The token model in a folder, or on the hub; arguments as of :class:`Teacher`.

    Raises:
        UserError: a tokenizer that is no byte-level BPE, whose tokens are not known as bytes.
    """
    lm = load(local_folder(source))
    if not isinstance(lm, TokenModel) or not isinstance(lm.tokenizer, ByteTokenizer):
        raise UserError(
            f"{source}: byteify.distill needs a tokenizer.json of a byte-level BPE; set it to 0"
        )
    count, size = len(lm.tokenizer.tokens()), shape.vocab_size + SPECIAL
    require(count <= size, f"{source}: the tokenizer has {count} tokens, the model only {size}")
    lm.requires_grad_(False).eval().to(device)
    return Teacher(lm, shape, context_bytes)
