"""Continuous batching: requests join and leave at any byte, each at its own phase of a patch."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.filesize import decimal

from blt import vocab
from blt.errors import UserError, require, require_whole
from blt.generate.cache import MAX_ROWS
from blt.generate.drafting import Draft, draft
from blt.generate.incremental import CachedModel, State, working_memory
from blt.generate.incremental_blt import CachedBLT, cached
from blt.generate.reading import Reader
from blt.generate.request import Handle, Request
from blt.generate.sampling import Sampling, distributions, draw, likeliest, verify
from blt.generate.weights import Precision, cache_dtype, packed
from blt.model.blt import ByteLatentTransformer
from blt.model.language import ByteModel, CausalLM
from blt.model.transformer import CausalTransformer

MEMORY_BUDGET = 4 * 2**30  # bytes for caches


class RefusedError(UserError):
    """The queue is full: try again later."""


@dataclass(frozen=True)
class Scores:
    """What a model says about the next ids of texts, and what all of them need to know of it."""

    logits: np.ndarray  # [B, n, 260]
    finite: np.ndarray  # [B, n] all of them?
    totals: np.ndarray  # [B, n] log of the sum of their exponentials

    @classmethod
    def of(cls, logits: torch.Tensor) -> Scores:
        return cls(
            logits.cpu().numpy(),
            torch.isfinite(logits).all(-1).cpu().numpy(),
            torch.logsumexp(logits, -1).cpu().numpy(),
        )

    def __getitem__(self, row: int) -> Scores:
        return Scores(self.logits[row], self.finite[row], self.totals[row])


class Engine:
    """Generates for many requests at once.

    Without a thread, whoever reads a handle does the work. As a context manager the engine works
    in a thread of its own, and any thread may submit, read and cancel; the block ends when all
    requests have ended, or, after an exception in it, cancels them::

        with Engine(lm) as engine:
            handle = engine.submit("Once upon a time", max_bytes=100)
            for piece in handle.text():
                print(piece, end="", flush=True)

    Args:
        lm: a BLT or byte transformer; its weights are packed once, later changes are not seen.
        max_batch: texts that are written at the same time.
        max_queue: requests that may wait.
        memory_budget: bytes for caches; each request reserves what it can need at most.
        precision: of weights: float32, bfloat16, or int8 (CPU). None: that of the model.
        draft_bytes: self-speculation (BLT-S, arXiv 2605.08044): so many bytes are guessed with
            the last patch's output and then verified together; 0 turns it off.
        native: steps in C++ (CPU); None: where they can be compiled.

    Attributes:
        on_step: called in the engine's thread after each step; must return at once.

    Raises:
        UserError: an impossible value, or a model that cannot be written with byte by byte.
    """

    def __init__(
        self,
        lm: CausalLM,
        *,
        max_batch: int = 16,
        max_queue: int = 1024,
        memory_budget: int = MEMORY_BUDGET,
        precision: Precision | None = None,
        draft_bytes: int = 0,
        native: bool | None = None,
    ) -> None:
        whole = _byte_model(lm)
        require_whole("max_batch", max_batch, 1)
        require_whole("max_queue", max_queue, 1)
        require_whole("memory_budget", memory_budget, 0)
        _check_drafts(draft_bytes, isinstance(whole, ByteLatentTransformer))
        self.max_batch, self.max_queue = max_batch, max_queue
        self.memory_budget, self.draft_bytes = memory_budget, draft_bytes
        precision = precision or _precision(whole)
        model = packed(whole, precision, native)
        self.model: CachedModel = cached(model, max_batch, cache_dtype(model, precision))
        self._memory_of = lambda bytes_read: type(self.model).memory(model, bytes_read)
        self._working_of = lambda prompt_bytes: working_memory(whole, prompt_bytes)
        self._queue: deque[Request] = deque()
        self._running: list[Request] = []  # one per row of the model
        self._reader = Reader(self.model)
        self._lock = threading.Lock()  # of the queue
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.on_step: Callable[[], None] = lambda: None

    # --- for users -------------------------------------------------------------------------------

    def submit(
        self,
        prompt: vocab.Text = b"",
        sampling: Sampling | None = None,
        *,
        state: State | None = None,
        draft_bytes: int | None = None,
        alternatives: int = 0,
        **options: Any,
    ) -> Handle:
        """Queue a request.

        Args:
            prompt: text or bytes to continue; a document starts with BOS, put in front.
            sampling: how; or its fields as keyword arguments.
            state: continue what was read before, from :meth:`read`, and then ``prompt``.
            draft_bytes: self-speculation for this text; None: as the engine does.
            alternatives: note so many of the likeliest bytes at each byte, for ``handle.piece``.

        Raises:
            RefusedError: ``max_queue`` requests are waiting.
            UserError: an impossible parameter, or a request that can need more memory than there
                is; the message says how much.
        """
        require(sampling is None or not options, "give a Sampling or its fields, not both")
        require(
            state is None or isinstance(state, State),
            f"state must come from lm.read(text), got {type(state).__name__}",
        )
        sampling = sampling or Sampling.of(options)
        draft_bytes = self.draft_bytes if draft_bytes is None else draft_bytes
        _check_drafts(draft_bytes, isinstance(self.model, CachedBLT))
        require_whole("alternatives", alternatives, 0)
        request = Request(vocab.to_bytes(prompt), sampling, state, draft_bytes, alternatives)
        length = len(request.prompt) + sampling.max_bytes + (len(state) if state else 0)
        request.memory = self._memory_of(length)
        request.working = self._working_of(len(request.prompt) + 1)
        needed = request.memory + request.working
        if needed > self.memory_budget:
            raise UserError(
                f"a prompt of {length - sampling.max_bytes} bytes and max_bytes "
                f"{sampling.max_bytes} can need {decimal(needed)} of caches, more than "
                f"the budget of {decimal(self.memory_budget)}; shorten it, or raise memory_budget"
            )
        with self._changed:
            require(not self._stopping, "the engine has been closed")
            if len(self._queue) >= self.max_queue:
                self._forget_cancelled()
            if len(self._queue) >= self.max_queue:
                raise RefusedError(
                    f"{self.max_queue} requests are waiting already; try again later"
                )
            self._queue.append(request)
            self._changed.notify_all()
        return Handle(request, self._progress)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    @property
    def running(self) -> int:
        """Requests whose prompts are being read, or that are being written."""
        return len(self._running) + len(self._reader.requests)

    def _unfinished(self) -> list[Request]:
        return [*self._queue, *self._running, *self._reader.requests]

    @property
    def alive(self) -> bool:
        """Is its thread at work? It ends when the engine is closed, or fails."""
        return self._thread is not None and self._thread.is_alive()

    def read(self, prompt: vocab.Text) -> State:
        """Read a text once, to be continued by any number of requests."""
        require(self._thread is None, "read shared texts before the engine starts its thread")
        require(self.running < self.max_batch, "all rows are in use; read shared texts first")
        row = len(self.model.texts)
        with self._own_precision():
            self.model.read([vocab.encode(prompt).tolist()])
        state = self.model.save(row)
        self.model.drop(row)
        return state

    def step(self) -> bool:
        """Read a piece of the prompts of who fits, and write at least one byte for each whose
        prompt has been read; False if nothing is left."""
        with self._own_precision():
            return self._step()

    def _step(self) -> bool:
        self._leave()
        self._admit()
        self._leave()  # a first byte may have been the last
        if self._running:
            begun = time.perf_counter()
            self._round()
            self._reader.written(time.perf_counter() - begun)
            self._leave()
        return bool(self._running or self._reader.requests or self._queue)

    def _own_precision(self) -> contextlib.AbstractContextManager[object]:
        """Whatever autocast says: weights have been packed in the precision that was asked for."""
        device = self.model.device.type
        if not torch.is_autocast_enabled(device):
            return contextlib.nullcontext()
        return torch.autocast(device, enabled=False)

    def run(self) -> None:
        """Work until nothing is left."""
        while self.step():
            pass

    def __enter__(self) -> Engine:
        self._thread = threading.Thread(target=self._work, name="blt-engine", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        self.close(cancel=failure is not None)

    def close(self, cancel: bool = False) -> None:
        """Take no more requests, and end the thread when those that were taken have ended.

        Args:
            cancel: end them at the next byte; what they have written stays readable.
        """
        with self._changed:
            self._stopping = True
            for request in self._unfinished():
                request.cancelled |= cancel
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()
        else:
            self.run()

    def __repr__(self) -> str:
        return f"Engine({self.running} reading or writing, {len(self._queue)} waiting)"

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            try:
                busy = self.step()
            except Exception as error:
                self._give_up(error)
                raise
            self.on_step()
            with self._changed:
                self._changed.notify_all()  # to who waits for bytes
                if not busy and not self._queue:
                    if self._stopping:
                        return
                    self._changed.wait()

    def _give_up(self, error: Exception) -> None:
        """Tell everybody who waits that nothing will come any more."""
        with self._changed:
            self._stopping = True
            for request in self._unfinished():
                if request.finish_reason is None:
                    request.finish("error", f"the engine has failed: {error}")
            self._changed.notify_all()
        self.on_step()

    def _progress(self) -> None:
        """Called by who wants more bytes than there are."""
        if self._thread is None:
            self.step()
        else:
            with self._changed:
                self._changed.wait(timeout=0.05)

    # --- joining and leaving ---------------------------------------------------------------------

    def _leave(self) -> None:
        """Free the rows of requests that have ended, from the last row on."""
        self._reader.forget_cancelled()
        for row in range(len(self._running) - 1, -1, -1):
            request = self._running[row]
            if request.ended():
                last = len(self._running) - 1
                self.model.swap(row, last)
                self._running[row] = self._running[last]
                self._running.pop()
                self._reader.drop_before(last)

    def _admit(self) -> None:
        """Read some of the prompts of who fits, and let those write whose prompt has been read."""
        for request in self._next_requests():
            self._reader.add(request)
        before = len(self._running)
        self._running += self._reader.read(before)
        if len(self._running) == before:
            return
        scores = Scores.of(self.model.logits[before : len(self._running), None])
        firsts = self._distributions(scores, before)
        for row in range(before, len(self._running)):
            self._running[row].prompt_patches = self._patches_read(row)
            at = row - before
            self._choose(row, scores[at], firsts[at], Draft(), [self._opens(row)])

    def _forget_cancelled(self) -> None:
        """Give up the places of cancelled requests in the queue; the lock is held."""
        if not any(request.cancelled for request in self._queue):
            return
        for request in self._queue:
            request.ended()
        self._queue = deque(r for r in self._queue if not r.cancelled)

    def _next_requests(self) -> list[Request]:
        """Waiting requests that there are rows and memory for, first come, first served."""
        joining: list[Request] = []
        admitted = [*self._running, *self._reader.requests]
        used = sum(request.memory for request in admitted)
        working = max((request.working for request in admitted), default=0)
        with self._lock:
            self._forget_cancelled()
            while self._queue and len(admitted) + len(joining) < self.max_batch:
                request = self._queue[0]
                if request.finish_reason is None:
                    used += request.memory
                    working = max(working, request.working)
                    if used + working > self.memory_budget:
                        break
                    joining.append(request)
                self._queue.popleft()
        return joining

    # --- writing ---------------------------------------------------------------------------------

    def _round(self) -> None:
        """Read the bytes chosen last, with drafts of those after them, and choose the next."""
        drafts, new_ids = draft(self.model, self._running)
        scores = Scores.of(self.model.extend(new_ids))
        firsts, kept = self._distributions(scores), []
        for row, drafted in enumerate(drafts):
            opens = self._opens_after(row, len(new_ids[row]))
            kept.append(self._choose(row, scores[row], firsts[row], drafted, opens))
        self.model.commit(kept)

    def _distributions(self, scores: Scores, before: int = 0) -> np.ndarray:
        """What the first id is drawn from, for requests from row ``before`` on  # [B, 260]."""
        choosers = [request.chooser for request in self._running[before:]]
        return distributions(choosers, scores.logits[:, 0])

    def _choose(
        self,
        row: int,
        scores: Scores,
        first: np.ndarray,
        drafted: Draft,
        opens: Sequence[bool],
    ) -> int:
        """Choose ids for one request, as long as they are as drafted.

        Args:
            row: of the request.
            scores: [n, 260] after the id chosen last and after each drafted one.
            first: what the first id is drawn from, [260].
            drafted: at most n - 1 ids.
            opens: [n] does the id that is chosen start a patch?

        Returns:
            how many of the n ids that were read stay.
        """
        request = self._running[row]
        for j, logits in enumerate(scores.logits):
            if not scores.finite[j]:
                request.finish("error", "the model's output is not finite")
                return j + 1
            p = request.chooser.probabilities(logits) if j else first
            total, kept = float(scores.totals[j]), None
            if j < len(drafted.ids):
                token = verify(p, drafted.drawn_from[j], drafted.ids[j], request.generator)
                kept = token == drafted.ids[j]
                request.drafted += 1
                request.accepted += kept
            else:
                token = draw(p, request.generator)
            top = likeliest(logits, total, request.alternatives) if request.alternatives else []
            request.push(token, float(logits[token] - total), opens[j], kept, top)
            if request.finish_reason is not None or not kept:
                return j + 1
        return len(scores.logits)

    def _opens(self, row: int) -> bool:
        boundaries = self.model.texts[row].boundaries
        return boundaries is None or boundaries.opens

    def _patches_read(self, row: int) -> int:
        """Patches that start in what a text has read; BOS, one of its own, is not counted."""
        text = self.model.texts[row]
        if text.patches is None or text.boundaries is None:
            return len(text.ids) - 1
        return text.patches.length - 1 + (not text.boundaries.opens)

    def _opens_after(self, row: int, n: int) -> list[bool]:
        if isinstance(self.model, CachedBLT):
            return self.model.opens_after(row)
        return [True] * n


def _check_drafts(draft_bytes: int, patches: bool) -> None:
    require_whole("draft_bytes", draft_bytes, 0)
    require(
        draft_bytes < MAX_ROWS, f"draft_bytes must be at most {MAX_ROWS - 1}, got {draft_bytes}"
    )
    require(
        draft_bytes == 0 or patches,
        "draft_bytes needs a BLT: a byte model without patches has nothing to guess with",
    )


def _byte_model(lm: CausalLM) -> ByteModel:
    """A model that can be written with byte by byte; refuses others."""
    model: Any = lm
    if not isinstance(model, ByteLatentTransformer | CausalTransformer) or lm.kind == "token":
        raise UserError(f"a {lm.kind} model cannot write yet, only score")
    return model


def _precision(lm: ByteModel) -> Precision:
    return "bfloat16" if next(lm.parameters()).dtype is torch.bfloat16 else "float32"
