"""The texts that a server is asked for, and what the engine alone makes of them."""

from __future__ import annotations

import base64
import random
import time
from dataclasses import dataclass
from typing import Any

from blt import lm
from blt.generate import Engine, Sampling

COUNT = 96
WORDS = "the old man was in his house and said that we should import a list from it"
LEAST_SECONDS = 15.0


@dataclass(frozen=True)
class Texts:
    """Prompts, and how each is continued."""

    prompts: list[str]
    samplings: list[dict[str, Any]]

    @classmethod
    def of(cls, prompt_bytes: int, max_bytes: int) -> Texts:
        """Sizes of a prompt, from half of ``prompt_bytes`` to all, and of what is asked for."""
        chance, prompts, samplings = random.Random(0), [], []
        for seed in range(COUNT):
            size = chance.randint(prompt_bytes // 2, prompt_bytes)
            words = " ".join(chance.choices(WORDS.split(), k=size // 2 + 1))
            prompts.append(words[:size])
            length = chance.randint(max(1, max_bytes // 4), max_bytes)
            samplings.append({"max_tokens": length, "temperature": 0.8, "seed": seed})
        return cls(prompts, samplings)

    def sampling(self, index: int) -> Sampling:
        """The options of text ``index``, as the engine takes them."""
        chosen = self.samplings[index]
        return Sampling(
            max_bytes=chosen["max_tokens"],
            temperature=chosen["temperature"],
            seed=chosen["seed"],
            valid_utf8=True,
            ignore_eos=True,
        )


def engine_alone(load: dict[str, Any]) -> dict[str, Any]:
    """All texts once, and then bytes per second with a queue that is never empty."""
    texts = Texts.of(load["prompt_bytes"], load["max_bytes"])
    engine = Engine(lm.load(load["model"]), max_batch=load["batch"])

    def submit(count: int) -> Any:
        return engine.submit(texts.prompts[count % COUNT], texts.sampling(count % COUNT))

    handles = [submit(index) for index in range(COUNT)]
    engine.run()
    written = [base64.b64encode(handle.result().data).decode() for handle in handles]

    done, count = 0, load["clients"]
    live = [submit(index) for index in range(count)]
    begun = time.perf_counter()
    while time.perf_counter() - begun < LEAST_SECONDS:
        engine.step()
        for handle in [handle for handle in live if handle.finished]:
            done += handle.available
            live[live.index(handle)] = submit(count)
            count += 1
    seconds = time.perf_counter() - begun
    done += sum(handle.available for handle in live)
    return {"texts": written, "bytes_per_second": done / seconds}
