"""Writing text belongs here: requests, sampling, caches, drafts, steps in C++; no HTTP, no file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from blt import vocab
from blt.errors import require_whole
from blt.generate.engine import ClosedError, Engine, RefusedError
from blt.generate.incremental import State
from blt.generate.request import Generation, Handle
from blt.generate.sampling import Sampling
from blt.generate.weights import Precision
from blt.model.language import CausalLM

__all__ = [
    "ClosedError",
    "Engine",
    "Generation",
    "Handle",
    "RefusedError",
    "Sampling",
    "State",
    "generate",
    "read",
]


def generate(
    lm: CausalLM,
    prompts: vocab.Text | Tensor | Sequence[vocab.Text | Tensor] = b"",
    *,
    state: State | None = None,
    max_batch: int = 16,
    memory_budget: int | None = None,
    precision: Precision | None = None,
    draft_bytes: int = 0,
    **options: Any,
) -> Generation | list[Generation]:
    """Continue one prompt or many.

    Args:
        lm: a BLT or byte transformer.
        prompts: text or bytes, or a list of them; BOS is put in front of each. Or ids [T] int64 of
            a prompt, BOS first, taken as they are.
        state: continue what ``lm.read`` has read, and then the prompt.
        max_batch: how many to write at the same time.
        memory_budget: bytes for caches; None: as :class:`blt.generate.Engine` has it.
        precision: of weights: float32, bfloat16 or int8; None: bfloat16 on a GPU that has it, else
            that of the model.
        draft_bytes: self-speculation by so many bytes; 0: none.
        options: fields of :class:`blt.generate.Sampling`: max_bytes, temperature, top_k, top_p,
            min_p, repetition_penalty, stop, valid_utf8, ignore_eos, seed. Prompt i of a list has
            seed + i. Left out: 256 bytes, greedy. An answer here is bytes, which may be any;
            valid_utf8 keeps it to whole characters, as text is wherever a person reads it (the
            command line, the server).

    Returns:
        one result for one prompt, a list for a list: ``data``, ``text``, ``logprobs``,
        ``finish_reason``.

    Raises:
        UserError: an impossible parameter, or more memory needed than ``memory_budget``.
        RuntimeError: the model's output is not finite.
    """
    one = isinstance(prompts, vocab.Text | Tensor) or not isinstance(prompts, Iterable)
    texts: list[Any] = [prompts] if one else list(prompts)
    require_whole("max_batch", max_batch, 1)
    sampling = Sampling.of(options)
    engine = Engine(
        lm,
        max_batch=min(max_batch, max(1, len(texts))),
        max_queue=max(1, len(texts)),
        memory_budget=memory_budget,
        precision=precision,
        draft_bytes=draft_bytes,
    )
    handles = [
        engine.submit(text, replace(sampling, seed=sampling.seed + index), state=state)
        for index, text in enumerate(texts)
    ]
    engine.run()
    results = [handle.result() for handle in handles]
    for result in results:
        if result.error is not None:
            raise RuntimeError(result.error)
    return results[0] if one else results


def read(lm: CausalLM, prompt: vocab.Text) -> State:
    """Read a text once; see :meth:`blt.generate.Engine.read`."""
    return Engine(lm, max_batch=1).read(prompt)
