"""lm-evaluation-harness' arguments of a generation, each in our terms or refused by name."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blt.errors import UserError, nearest, require

BYTES_PER_TOKEN = 4  # tasks limit what is written in tokens; a usual one has about so many bytes
MOST_TOKENS = 256  # where a task says nothing
LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
STOPS = ("until", "stop")
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
KNOWN = (*STOPS, "do_sample", "temperature", "seed", *LIMITS, *SAMPLING, *NEUTRAL)


def options(asked: Mapping[str, Any], *, samples: bool = True) -> dict[str, Any]:
    """Fields of :class:`blt.generate.Sampling` for a task's ``generation_kwargs``, but the seed.

    Args:
        samples: does the model know more than temperature?

    Raises:
        UserError: an argument that is not known, or a value that is impossible; names it.
    """
    given = {str(name): value for name, value in asked.items() if value is not None}
    for name, value in given.items():
        require(name in KNOWN, f"generation_kwargs: {name!r} is not known; {nearest(name, KNOWN)}")
        if name in NEUTRAL and value not in NEUTRAL[name]:
            allowed = " or ".join(map(str, NEUTRAL[name]))
            raise UserError(f"generation_kwargs: {name}={value!r} cannot be done, only {allowed}")
    found: dict[str, Any] = {
        "max_bytes": BYTES_PER_TOKEN * _limit(given),
        "temperature": _temperature(given),
        "stop": tuple(_stops(_one_of(given, STOPS, ()))),
    }
    for name in SAMPLING:
        if name in given and not (name == "top_k" and given[name] in (0, -1)):
            require(samples, f"generation_kwargs: {name} cannot be done by a token model")
            found[name] = (_whole if name == "top_k" else _number)(name, given[name])
    return found


def seeds(requests: Sequence[Any], base: int) -> Iterator[int]:
    """A seed for each request, by what it asks and how often it was asked before.

    The same in any order and batch of requests; ``seed`` of a request stands in for ``base``.
    """
    seen: Counter[tuple[str, ...]] = Counter()
    for request in requests:
        context, asked = request.args
        own = asked.get("seed")
        first = base if own is None else _whole("seed", own)
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
    temperature = _number("temperature", given.get("temperature", 1.0 if samples else 0.0))
    require(
        samples is None or samples is False or temperature > 0,
        "generation_kwargs: do_sample needs a temperature above 0",
    )
    return 0.0 if samples is False else temperature


def _limit(given: Mapping[str, Any]) -> int:
    name = next((name for name in LIMITS if name in given), LIMITS[0])
    limit = _whole(name, _one_of(given, LIMITS, MOST_TOKENS))
    require(limit >= 0, f"generation_kwargs: {name} must be at least 0, got {limit}")
    return limit


def _one_of(given: Mapping[str, Any], names: Sequence[str], otherwise: Any) -> Any:
    """What goes by several names; one that is given twice must be the same."""
    found = {name: given[name] for name in names if name in given}
    values = list(found.values()) or [otherwise]
    both = ", ".join(f"{name}={value!r}" for name, value in found.items())
    same = all(value == values[0] for value in values[1:])
    require(same, f"generation_kwargs: {both} mean the same; use the name the task uses")
    return values[0]


def _number(name: str, value: Any) -> float:
    """A number, also as a string, which the harness's command line makes of some."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    require(math.isfinite(number), f"generation_kwargs: {name} must be a number, got {value!r}")
    return number


def _whole(name: str, value: Any) -> int:
    number = _number(name, value)
    require(number.is_integer(), f"generation_kwargs: {name} must be a whole number, got {value!r}")
    return int(number)


def _stops(until: Any) -> Iterator[str]:
    stops = [until] if isinstance(until, str) else until
    require(
        isinstance(stops, list | tuple),
        f"generation_kwargs: until must be a string or a list of them, got {until!r}",
    )
    for stop in stops:
        require(isinstance(stop, str), f"generation_kwargs: until must hold strings, got {stop!r}")
        if stop:
            yield stop
