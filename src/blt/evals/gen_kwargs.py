"""lm-evaluation-harness' arguments of a generation, each in our terms or refused by name."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blt.errors import UserError, nearest, require

BYTES_PER_TOKEN = 4  # tasks limit what is written in tokens; a usual one has about so many bytes
MOST_TOKENS = 256  # where a task says nothing
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
SAMPLING = ("top_k", "top_p", "min_p", "repetition_penalty")  # called the same here
# Taken where they change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_return_sequences": (1,),
    "n": (1,),
    "length_penalty": (1,),
    "no_repeat_ngram_size": (0,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "early_stopping": (False,),
    "use_cache": (True, False),
    "skip_special_tokens": (True, False),
}
KNOWN = ("until", "do_sample", "temperature", "seed", *LIMITS, *SAMPLING, *NEUTRAL)


def options(asked: Mapping[str, Any], *, samples: bool = True) -> dict[str, Any]:
    """Fields of :class:`blt.generate.Sampling` for a task's ``generation_kwargs``, but the seed.

    Args:
        samples: does the model know more than temperature?

    Raises:
        UserError: an argument that is not known, or a value that is impossible; names it.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    for name, value in given.items():
        require(name in KNOWN, f"generation_kwargs: {name!r} is not known; {nearest(name, KNOWN)}")
        if name in NEUTRAL and value not in NEUTRAL[name]:
            allowed = " or ".join(map(str, NEUTRAL[name]))
            raise UserError(f"generation_kwargs: {name}={value!r} cannot be done, only {allowed}")
    found: dict[str, Any] = {
        "max_bytes": BYTES_PER_TOKEN * int(_number(given, *LIMITS, otherwise=MOST_TOKENS)),
        "temperature": _temperature(given),
        "stop": tuple(_stops(given.get("until", ()))),
    }
    for name in SAMPLING:
        if name in given and not (name == "top_k" and given[name] in (0, -1)):
            require(samples, f"generation_kwargs: {name} cannot be done by a token model")
            found[name] = int(_number(given, name)) if name == "top_k" else _number(given, name)
    return found


def seeds(requests: Sequence[Any], base: int) -> Iterator[int]:
    """A seed for each request, by what it asks and how often it was asked before.

    The same in any order and batch of requests; ``seed`` of a request stands in for ``base``.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    for request in requests:
        context, asked = request.args
        own = asked.get("seed")
        first = base if own is None else int(_number(asked, "seed"))
        what = (str(first), str(getattr(request, "task_name", "")), context)
        where = (*what, str(getattr(request, "doc_id", "")))
        number = seen[where]
        seen[where] += 1
        digest = hashlib.sha256("\0".join((*where, str(number))).encode("utf-8", "surrogatepass"))
        yield int.from_bytes(digest.digest()[:6], "big")


def _temperature(given: Mapping[str, Any]) -> float:
    samples = given.get("do_sample")
    require(
        samples in (None, True, False),
        f"generation_kwargs: do_sample must be true or false, got {samples!r}",
    )
    temperature = _number(given, "temperature", otherwise=1.0 if samples else 0.0)
    require(
        samples is None or samples is False or temperature > 0,
        "generation_kwargs: do_sample needs a temperature above 0",
    )
    return 0.0 if samples is False else temperature


def _number(given: Mapping[str, Any], *names: str, otherwise: float | None = None) -> float:
    """The first of ``names`` that is there."""
    for name in names:
        if given.get(name) is not None:
            try:
                return float(given[name])
            except (TypeError, ValueError):
                raise UserError(
                    f"generation_kwargs: {name} must be a number, got {given[name]!r}"
                ) from None
    assert otherwise is not None
    return otherwise


def _stops(until: Any) -> Iterator[str]:
    for stop in [until] if isinstance(until, str) else until:
        require(isinstance(stop, str), f"generation_kwargs: until must hold strings, got {stop!r}")
        if stop:
            yield stop
