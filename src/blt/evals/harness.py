"""The models of this project in EleutherAI's lm-evaluation-harness: ``blt lm-eval --model blt``.

The harness finds models of other projects only where their module has been imported, so
``blt lm-eval`` imports this one and hands its arguments over. In Python, importing it is enough for
``lm_eval.simple_evaluate(model="blt", model_args={"pretrained": FOLDER}, tasks=[...])``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch

from blt import vocab
from blt.checkpoint.pretrained import PRETRAINED
from blt.errors import needed, require
from blt.evals.gen_kwargs import options, seeds
from blt.evals.models import load
from blt.generate import Engine, Sampling
from blt.lm import BLT, ByteLM, LanguageModel
from blt.machine.precision import autocast, choose_device, reading_dtype
from blt.texts.pieces import segments

# The registry takes in the harness's own models only while it is empty, so they come first.
needed("lm_eval.models", "eval", "lm-evaluation-harness is not installed")
from lm_eval.api.model import LM  # noqa: E402
from lm_eval.api.registry import register_model  # noqa: E402

DTYPES = ("auto", "float32", "bfloat16")
UNSAID = (None, "cuda", "cuda:0")  # what the harness passes where nobody names a device


@register_model("blt")
class Harness(LM):
    """A model in the terms of the harness: requests in, log-probabilities in nats or text out.

    Args:
        pretrained: any folder that ``blt eval`` takes; left out, the BLT inside the package.
        peft: folder of an adapter (LoRA) for it, as the harness calls this for its own models.
        context_bytes: texts whose perplexity is asked for are scored in pieces of so many bytes,
            each from BOS, as ``blt eval`` does.
        dtype: of matrix products when scoring: float32, bfloat16, or auto: bfloat16 on a GPU that
            has it, float32 on a CPU.
        max_batch: texts that are written at the same time.
        device: auto, cpu, or one of several GPUs, such as cuda:1. The first GPU, which the harness
            asks for if nobody else does, is as auto.
        batch_size: what the harness always passes; scoring packs requests, whatever it is.
        max_batch_size: likewise.

    Raises:
        UserError: no model there, an impossible value, or no such device.
    """

    def __init__(
        self,
        pretrained: str = PRETRAINED,
        peft: str | None = None,
        context_bytes: int = 2048,
        dtype: str = "auto",
        max_batch: int = 16,
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        require(dtype in DTYPES, f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
        require(context_bytes > 0, f"context_bytes must be positive, got {context_bytes}")
        place = choose_device("auto" if device in UNSAID else device, "--device")
        self.lm: LanguageModel = load(pretrained, peft).to(place)
        self._device = self.lm.device
        self.context_bytes, self.max_batch = context_bytes, max_batch
        self.dtype = reading_dtype(place, dtype)  # type: ignore[arg-type]

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        """Nats of each request's continuation after its context, and would greedy generation write
        it?

        Contexts that requests share are read once.
        """
        pairs = [
            (vocab.to_bytes(context), vocab.to_bytes(continuation))
            for context, continuation in (request.args for request in requests)
        ]
        with autocast(self.lm.device, self.dtype):
            return [(found.log_p, found.greedy) for found in self.lm.score(pairs)]

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """Log-probability of all bytes of each text, the first one given BOS."""
        texts = [segments([vocab.to_bytes(r.args[0])], self.context_bytes) for r in requests]
        with autocast(self.lm.device, self.dtype):
            scores = iter(self.lm.log_likelihoods([(b"", piece) for t in texts for piece in t]))
        return [sum((next(scores) for _ in pieces), 0.0) for pieces in texts]

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        """Text after each context, up to its stop strings, which are left out."""
        own = seeds(requests, torch.initial_seed())  # which the harness sets
        if not isinstance(self.lm, BLT | ByteLM):
            found = [
                self.lm.generate(
                    request.args[0], seed=seed, **options(request.args[1], samples=False)
                )
                for request, seed in zip(requests, own, strict=True)
            ]
            return [one.text for one in found]
        engine = Engine(self.lm, max_batch=self.max_batch, max_queue=max(1, len(requests)))
        handles = [
            engine.submit(request.args[0], Sampling(seed=seed, **options(request.args[1])))
            for request, seed in zip(requests, own, strict=True)
        ]
        engine.run()
        results = [handle.result() for handle in handles]
        for result in results:
            if result.error is not None:
                raise RuntimeError(result.error)
        return [result.text for result in results]


def main(arguments: Sequence[str]) -> int:
    """The harness's own command line, with ``--model blt`` known to it."""
    cli_evaluate = needed("lm_eval.__main__", "eval").cli_evaluate
    before, sys.argv = sys.argv, ["blt lm-eval", *arguments]
    try:
        cli_evaluate()
    finally:
        sys.argv = before
    return 0
