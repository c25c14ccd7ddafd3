"""Continuous batching: requests join and leave at any byte, each at its own phase of a patch."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakValueDictionary, ref

import torch
from torch import Tensor

from blt import vocab
from blt.errors import UserError, require, require_whole
from blt.generate.admission import Admission, ClosedError, RefusedError
from blt.generate.caches.rings import MAX_ROWS
from blt.generate.captured.writer import CapturedWriter, refusal
from blt.generate.compiled import compiled_forward
from blt.generate.driven import DrivenWriter
from blt.generate.incremental import CachedModel, State, working_memory
from blt.generate.incremental_blt import CachedBLT, cached
from blt.generate.reading import Reader
from blt.generate.request import Handle, Request
from blt.generate.sampling import Sampling
from blt.generate.weights import Precision, cache_dtype, packed
from blt.machine.hardware import cache_memory
from blt.machine.precision import reading_dtype
from blt.model.blt import ByteLatentTransformer
from blt.model.compiling import is_compiled
from blt.model.language import ByteModel, CausalLM
from blt.model.transformer import CausalTransformer

__all__ = ["ClosedError", "Engine", "RefusedError"]

log = logging.getLogger("blt")


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
        lm: a BLT or byte transformer. Some of its weights are packed once, others shared: do not
            change it while the engine is in use; make another one after that.
        max_batch: texts that are written at the same time.
        max_queue: requests that may wait.
        memory_budget: bytes for caches; each request reserves what it can need at most. None: 0.8
            of what a GPU has free beside the weights; on a CPU 4 GiB, or half of its memory.
        precision: of weights: float32, bfloat16, or int8 (CPU). None: bfloat16 on a GPU that has
            it, else that of the model.
        draft_bytes: self-speculation (BLT-S, arXiv 2605.08044): so many bytes are guessed with
            the last patch's output and then verified together; 0 turns it off.
        native: steps in C++ (CPU); None: where they can be compiled.
        captured: steps that the host only launches, as CUDA graphs (:mod:`blt.generate.captured`);
            None: on a GPU. The bytes are the same, but for rounding. After ``lm.compile()``
            prompts are read by a compiled forward, for which the first one waits.

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
        memory_budget: int | None = None,
        precision: Precision | None = None,
        draft_bytes: int = 0,
        native: bool | None = None,
        captured: bool | None = None,
    ) -> None:
        whole = _byte_model(lm)
        require_whole("max_batch", max_batch, 1)
        require_whole("max_queue", max_queue, 1)
        if memory_budget is not None:
            require_whole("memory_budget", memory_budget, 0)
        _check_drafts(draft_bytes, isinstance(whole, ByteLatentTransformer))
        self.max_batch, self.max_queue = max_batch, max_queue
        self.draft_bytes = draft_bytes
        self._reads_as = ref(whole)
        precision = precision or _precision(whole)
        captured = _captures(whole, captured)
        model = packed(whole, precision, False if captured else native)
        self.model: CachedModel = cached(model, max_batch + captured, cache_dtype(model, precision))
        if is_compiled(whole):
            self.model.compiled = compiled_forward(model)
        self._narrow = precision == "bfloat16" and _on_gpu(model)
        own = cache_memory(self.model.device) if memory_budget is None else memory_budget
        self.memory_budget = own
        kept = self.model.dtype
        self._memory_of = lambda bytes_read: (
            type(self.model).memory(model, bytes_read, kept) + self._writer.besides(bytes_read)
        )
        self._working_of = lambda prompt_bytes: working_memory(whole, prompt_bytes)
        self._writer: DrivenWriter | CapturedWriter = (
            CapturedWriter(self.model) if captured else DrivenWriter(self.model)
        )
        self._admission = Admission(max_batch, max_queue, own, self._writer.memory)
        self._reader = Reader(self.model)
        self._lock = threading.Lock()  # of the queue
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._failure = ""  # why nothing is written any more
        # By id, as requests have no hash; weak, as whoever waits for one holds it.
        self._accepted: WeakValueDictionary[int, Request] = WeakValueDictionary()
        self.on_step: Callable[[], None] = lambda: None

    # --- for users -------------------------------------------------------------------------------

    def submit(
        self,
        prompt: vocab.Text | Tensor = b"",
        sampling: Sampling | None = None,
        *,
        state: State | None = None,
        draft_bytes: int | None = None,
        alternatives: int = 0,
        **options: Any,
    ) -> Handle:
        """Queue a request.

        Args:
            prompt: text or bytes to continue; a document starts with BOS, put in front. Or ids [T]
                int64, BOS first, taken as they are.
            sampling: how; or its fields as keyword arguments.
            state: continue what the same model has read before, from :meth:`read` or ``lm.read``,
                and then ``prompt``.
            draft_bytes: self-speculation for this text; None: as the engine does.
            alternatives: note so many of the likeliest bytes at each byte, for ``handle.piece``.

        Raises:
            RefusedError: ``max_queue`` requests are waiting.
            ClosedError: it has been closed, or has failed.
            UserError: an impossible parameter, or a request that can need more memory than there
                is; the message says how much.
        """
        require(sampling is None or not options, "give a Sampling or its fields, not both")
        self._check_state(state)
        sampling = sampling or Sampling.of(options)
        draft_bytes = self.draft_bytes if draft_bytes is None else draft_bytes
        _check_drafts(draft_bytes, isinstance(self.model, CachedBLT))
        require_whole("alternatives", alternatives, 0)
        ids = _ids(prompt, state) if isinstance(prompt, Tensor) else None
        data = vocab.decode(prompt) if isinstance(prompt, Tensor) else vocab.to_bytes(prompt)
        request = Request(data, sampling, state, draft_bytes, alternatives, ids=ids)
        size = len(data) if ids is None else len(ids) - 1
        length = size + sampling.max_bytes + (len(state) if state else 0)
        request.memory = self._memory_of(length)
        request.working = self._working_of(size + 1)
        self._admission.check(request, length - sampling.max_bytes)
        with self._changed:
            if self._stopping:
                raise ClosedError(self._closed())
            self._admission.add(request)
            self._accepted[id(request)] = request
            self._changed.notify_all()
        return Handle(request, self._progress)

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._admission.waiting)

    @property
    def _running(self) -> list[Request]:
        """Requests that are being written, one per row of the model."""
        return self._writer.running

    @property
    def running(self) -> int:
        """Requests whose prompts are being read, or that are being written."""
        return len(self._running) + len(self._reader.requests)

    def _unfinished(self) -> list[Request]:
        """Requests that somebody may wait for, wherever they are between the queue and a row."""
        return [r for r in self._accepted.values() if r.finish_reason is None]

    def _closed(self) -> str:
        """Why no more requests are taken."""
        return f"{self._failure}; make another" if self._failure else "the engine has been closed"

    @property
    def alive(self) -> bool:
        """Is its thread at work? It ends when the engine is closed, or fails."""
        return self._thread is not None and self._thread.is_alive()

    def read(self, prompt: vocab.Text) -> State:
        """Read a text once, to be continued by any number of requests."""
        require(self._thread is None, "read shared texts before the engine starts its thread")
        require(self.running < self.max_batch, "all rows are in use; read shared texts first")
        row, ids = len(self.model.texts), vocab.encode(prompt).tolist()
        try:
            with self._own_precision():
                self.model.read([ids])
            return replace(self.model.save(row), reader=self._reads_as)
        finally:
            del self.model.texts[row:]  # whatever has been read of it

    def _check_state(self, state: object) -> None:
        """What another model remembers of a text would be read as if it were this one's."""
        if state is None:
            return
        if not isinstance(state, State):
            raise UserError(f"state must come from lm.read(text), got {type(state).__name__}")
        require(
            state.reader == self._reads_as,
            "the state is of another model: read its text with this one",
        )

    def step(self) -> bool:
        """Read a piece of the prompts of who fits, and write at least one byte for each whose
        prompt has been read; False if nothing is left.

        An exception, Ctrl-C among them, ends all requests with an error, and the engine writes
        nothing more.
        """
        if self._failure:
            return False
        try:
            with self._own_precision():
                return self._step()
        except BaseException as error:  # what was half done would be gone on with
            self._give_up(error)
            raise

    def _step(self) -> bool:
        self._leave()
        self._admit()
        self._leave()  # a first byte may have been the last
        if self._running:
            begun = time.perf_counter()
            self._writer.round()
            self._reader.written(time.perf_counter() - begun)
            self._leave()
        return bool(self._running or self._reader.requests or self.waiting)

    def _own_precision(self) -> contextlib.AbstractContextManager[object]:
        """That of the weights as they are packed, whatever autocast says.

        On a GPU attention's products take it too: in float32 there would be no flash attention.
        """
        device = self.model.device.type
        if self._narrow:
            # Weights are narrow already: there is nothing to cast that would be worth a cache.
            return torch.autocast(device, torch.bfloat16, cache_enabled=False)
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
        return f"Engine({self.running} reading or writing, {self.waiting} waiting)"

    # --- the thread ------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            while self._turn():
                pass
        except BaseException as error:
            self._give_up(error)
            self.on_step()
            raise

    def _turn(self) -> bool:
        """A step, and word of it; False once the engine is closed and nothing is left."""
        busy = self.step()
        self.on_step()
        with self._changed:
            self._changed.notify_all()  # to who waits for bytes
            if not busy and not self.waiting:
                if self._stopping:
                    return False
                self._changed.wait()
        return True

    def _give_up(self, error: BaseException) -> None:
        """Tell everybody who waits that nothing will come any more."""
        with self._changed:
            self._stopping = True
            self._failure = f"the engine has failed: {error!r}"
            for request in self._unfinished():
                request.finish("error", self._failure)
            self._changed.notify_all()

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
                if request.finish_reason == "error":
                    self.model.clear(row)
                self._writer.leave(row)
                self.model.swap(row, last)
                self._reader.drop_before(last)

    def _admit(self) -> None:
        """Read some of the prompts of who fits, and let those write whose prompt has been read."""
        with self._lock:
            joining = self._admission.next([*self._running, *self._reader.requests])
        for request in joining:
            self._reader.add(request)
        before = len(self._running)
        read = self._reader.read(before)
        for row, request in enumerate(read, before):
            request.prompt_patches = self._patches_read(row)
        if read:
            self._writer.join(read)

    def _patches_read(self, row: int) -> int:
        """Patches that start in what a text has read; BOS, one of its own, is not counted."""
        text = self.model.texts[row]
        if text.patches is None or text.boundaries is None:
            return len(text.ids) - 1
        return text.patches.length - 1 + (not text.boundaries.opens)


def _captures(model: ByteModel, asked: bool | None) -> bool:
    """Are captured steps taken? Where they were asked for they must be possible."""
    why_not = refusal(model)
    if asked or (asked is None and _on_gpu(model)):
        if why_not is None:
            return True
        require(not asked, f"captured steps are not possible: {why_not}")
        log.warning("bytes are written with the host's help, slowly: %s", why_not)
    return False


def _on_gpu(model: ByteModel) -> bool:
    return model.device.type == "cuda"


def _ids(prompt: Tensor, state: State | None) -> list[int]:
    """A prompt's ids, checked.

    Raises:
        UserError: no BOS first, or a state before it, which has one.
        ValueError: no ids of bytes.
    """
    ids: list[int] = vocab.check_ids(prompt).tolist()
    require(ids[:1] == [vocab.BOS], f"a prompt of ids must begin with BOS ({vocab.BOS})")
    require(state is None, "a prompt of ids begins a document: it cannot go on with a state")
    return ids


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
        raise UserError(f"an engine writes byte by byte; a {lm.kind} model has lm.generate alone")
    return model


def _precision(lm: ByteModel) -> Precision:
    narrow = next(lm.parameters()).dtype is torch.bfloat16
    return "bfloat16" if narrow or reading_dtype(lm.device) == torch.bfloat16 else "float32"
