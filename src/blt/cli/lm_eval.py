"""``blt lm-eval``: lm-evaluation-harness, with its own options."""

from __future__ import annotations

from tyro.conf import Positional


def lm_eval(arguments: Positional[tuple[str, ...]] = (), /) -> int:
    """Run lm-evaluation-harness with --model blt; the arguments are those of its lm_eval.

    Args:
        arguments: blt lm-eval run --help shows them.
    """
    from blt.evals.harness import main as run_harness

    return run_harness(arguments)
