"""What is wanted of one H100 or H200, beside what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Results = dict[str, dict[str, Any]]  # by the name of the job
Measure = Callable[[Results], float | None]  # None: it was not measured


def best(job: str, key: str = "bytes_per_second", besides: str = "not compiled") -> Measure:
    """The highest number of the jobs whose names begin so and contain nothing of ``besides``."""

    def measure(results: Results) -> float | None:
        numbers = [
            found[key]
            for name, found in results.items()
            if name.startswith(job) and besides not in name and _is_number(found.get(key))
        ]
        return max(numbers, default=None)

    return measure


def ratio(over: Measure, under: Measure) -> Measure:
    def measure(results: Results) -> float | None:
        a, b = over(results), under(results)
        return a / b if a is not None and b else None

    return measure


@dataclass(frozen=True)
class Target:
    """A number to reach, or, where ``at_most``, to stay below."""

    what: str
    measure: Measure
    goal: float
    kind: str = "times"  # how it is written: as of :data:`benchmarks.gpu_jobs.tables.WRITTEN`
    at_most: bool = False

    def verdict(self, results: Results) -> tuple[float | None, str]:
        """What was measured, and what that means."""
        found = self.measure(results)
        if found is None:
            return None, "not measured"
        met = found <= self.goal if self.at_most else found >= self.goal
        if met:
            return found, "met"
        return found, f"missed: {found / self.goal:.1%} of it"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


FULL, EIGHT = "training 1b 32768", "training 1b 32768 patches of 8"
TARGETS = (
    Target("logits, CPU against device, float32", best("parity", "float32_error"), 1e-4,
           "number", at_most=True),
    Target("logits, CPU against device, bf16", best("parity", "bf16_error"), 2e-2,
           "number", at_most=True),
    Target("1B training, patches of 4.5, share of the peak",
           best("training 1b", "mfu", besides="patches of 8"), 0.45, "share"),
    Target("1B training, patches of 4.5, bytes per second",
           best("training 1b", besides="patches of 8"), 160e3, "speed"),
    Target("1B training, patches of 8, bytes per second", best(EIGHT), 225e3, "speed"),
    Target("1B training, patches of 8, over a transformer over tokens",
           ratio(best(EIGHT), best("training tokens")), 1.0),
    Target("1B training over transformers",
           ratio(best("training 1b", besides="patches of 8"), best("transformers training 1b")),
           5.0),
    Target("400M training, share of the peak", best("training 400m", "mfu"), 0.40, "share"),
    Target("small training, bytes per second", best("training small"), 2.5e6, "speed"),
    Target("small training over transformers",
           ratio(best("training small"), best("transformers training small")), 10.0),
    Target("blt train over bare steps", best("loop", "share_of_bare"), 0.90, "share"),
    Target("entropies of the 100M model, bytes per second", best("entropies"), 1.5e6, "speed"),
    Target("1B decoding, batch 1, bytes per second", best("decoding 1b batch 1 entropy"), 1100.0,
           "speed"),
    Target("1B decoding, batch 1, later", best("decoding 1b batch 1 entropy"), 2000.0, "speed"),
    Target("1B decoding, batch 64 over batch 1",
           ratio(best("decoding 1b batch 64 entropy"), best("decoding 1b batch 1 entropy")), 20.0),
    Target("self-speculation over none", best("self-speculation", "speedup"), 1.5),
)  # fmt: skip
