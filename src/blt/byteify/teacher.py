"""What a token model says about a text: its embeddings of tokens, and its probabilities of bytes.

Within a text as the source's own tokenizer cuts it, the token model says how likely each token is
to come next. Where r bytes of a token are known, the probability of a value of the next byte is
that of all tokens that begin with these r bytes and go on with that value, over that of all tokens
that begin with these r bytes and go on at all.

Two things make this an approximation of the token model's distribution over bytes: what comes
before is taken as cut in one way, where other ways to cut it have some probability too; and that
the token goes on is taken as known, where it might have ended, and the byte belong to the next one.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from blt import vocab
from blt.byteify.cuts import Tokens, tokens_of
from blt.checkpoint.folders import Checkpoint
from blt.errors import require
from blt.evals.models import Reader
from blt.model.packing import PackedBatch, pack
from blt.tokens.tokenizer import ByteTokenizer

LEAST = 1e-9  # probability of all tokens that fit, below which rounding decides between bytes
CHUNK = 2**24  # probabilities held at once, in float64
KEPT = ("embedding", "norm.weight", "head.weight")  # of the source, in float32
OF_CHUNK = 4 + 8 + 8  # bytes of each of its numbers: as they are, added up, with a zero in front


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
    """What a teacher says comes next in a batch of documents, N ids together."""

    probabilities: Tensor  # [N, 256] of the next byte; zeros where it says nothing

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


@dataclass(frozen=True)
class Lesson:
    """A batch of documents as the source cuts it: P patches, a token for each."""

    packed: PackedBatch
    cut: list[Tokens]  # of each document
    embeddings: Tensor  # [P, d] of the patches' tokens


class Teacher:
    """What is left of a token model whose layers a BLT has: tokenizer, embeddings, norm and head.

    Args:
        reader: its tokenizer, which must be a byte-level BPE, and its BOS and EOS.
        source: its weights.
        device: to teach on.

    Raises:
        UserError: a tokenizer with more tokens than the model.
    """

    def __init__(self, reader: Reader, source: Checkpoint, device: torch.device) -> None:
        assert isinstance(reader.tokenizer, ByteTokenizer)
        self.tokenizer, self.bos, self.eos = reader.tokenizer, reader.bos, reader.eos
        self.embedding, self.norm, self.head = (
            source.tensors.read(name).float().to(device) for name in KEPT
        )
        self.eps = source.config.norm_eps
        self.bytes = TokenBytes(self.tokenizer.tokens())
        count, size = len(self.bytes.order), len(self.embedding)
        require(
            count <= size,
            f"{source.where}: the tokenizer has {count} tokens, the model only {size}",
        )

    @staticmethod
    def memory(source: Checkpoint) -> int:
        """Bytes that stay on the device."""
        return sum(4 * math.prod(source.tensors.specs[name].shape) for name in KEPT)

    @staticmethod
    def saying_memory(source: Checkpoint, tokens: int, itemsize: int) -> int:
        """Bytes that it takes for a moment to say what comes after so many tokens."""
        vocabulary, dim = source.tensors.specs["head.weight"].shape
        numbers = tokens * vocabulary
        head = vocabulary * dim * itemsize if itemsize < 4 else 0  # as the product reads it
        return head + itemsize * numbers + OF_CHUNK * min(CHUNK, numbers)

    @property
    def head_flops(self) -> float:
        """Of saying what comes after one token."""
        return 2.0 * self.head.numel()

    def lesson(self, documents: Sequence[Tensor]) -> Lesson:
        """Documents, each byte ids [T] with BOS first, cut where their tokens end."""
        cut = [tokens_of(self.tokenizer, ids) for ids in documents]
        packed = pack(documents, [one.decisions for one in cut], self.embedding.device)
        tokens: list[int] = []
        for one, patches in zip(cut, packed.patches.lengths, strict=True):
            tokens += [self.bos, *one.tokens, self.eos][:patches]
        ids = torch.tensor(tokens, dtype=torch.int64, device="cpu").to(self.embedding.device)
        return Lesson(packed, cut, self.embedding[ids])

    @torch.no_grad()
    def says(self, lesson: Lesson, hidden: Tensor) -> Taught:
        """What comes after each id of the documents of a lesson.

        Nothing is said about what follows the last byte of a document.

        Args:
            hidden: what the layers make of the embeddings  # [P, d]
        """
        normed = F.rms_norm(hidden.float(), self.norm.shape, self.norm, self.eps)
        rows: list[int] = []  # the patch that speaks about a byte
        places: list[int] = []  # the id that the byte comes after
        runs: list[Tensor] = []
        bounds = zip(lesson.packed.patches.offsets, lesson.packed.documents.offsets, strict=True)
        for one, (patch, place) in zip(lesson.cut, bounds, strict=False):
            for number, (token, first) in enumerate(zip(one.tokens, one.firsts, strict=True)):
                piece = self.tokenizer.decode([token])
                rows += [patch + number] * len(piece)
                places += range(place + first - 1, place + first - 1 + len(piece))
                runs += (self.bytes.runs(piece[:known]) for known in range(len(piece)))
        count, device = len(lesson.packed.ids), hidden.device
        probabilities = torch.zeros(count, 256, dtype=torch.float32, device=device)
        if runs:
            logits = F.linear(normed, self.head)
            at, of = (torch.tensor(x, dtype=torch.int64, device="cpu") for x in (places, rows))
            known = (of, torch.stack(runs), self.bytes.order)
            found = byte_probabilities(logits, *(x.to(device) for x in known))
            probabilities[at.to(device)] = found
        return Taught(probabilities)
