"""``blt serve``: a model over HTTP; its options are the fields of :mod:`blt.serve.settings`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

from tyro.conf import arg

from blt.errors import UserError, how_to_install
from blt.serve.settings import Limits, Settings


@dataclass(frozen=True)
class _Limits(Limits):
    __doc__ = Limits.__doc__

    def __post_init__(self) -> None:
        """Check nothing yet: tyro would explain a mistake in its own words."""


@dataclass(frozen=True)
class _Settings(Settings):
    __doc__ = Settings.__doc__
    limits: Annotated[_Limits, arg(name="limits", prefix_name=False)] = field(
        default_factory=_Limits
    )

    def __post_init__(self) -> None:
        """Check nothing yet."""


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    settings: Annotated[_Settings, arg(name="server")],
) -> None:
    """Serve a model over HTTP, to OpenAI's clients and to browsers.

    Args:
        host: Address to listen on; 0.0.0.0 for the whole network (give --keys then).
        port: 0 takes a free one.
    """
    try:
        from blt.serve.run import serve as run
    except ImportError as error:
        raise UserError(f"{error}; blt serve needs: {how_to_install('serve')}") from None

    run(_checked(settings), host, port)


def _checked(given: _Settings) -> Settings:
    try:
        return Settings(**{**vars(given), "limits": Limits(**vars(given.limits))})
    except UserError as error:
        raise UserError(_with_option(str(error))) from None


def _with_option(message: str) -> str:
    """The same message with the name of an option for that of a field, with which it begins."""
    name = message.split(":")[0].split()[0]
    hints: dict[str, Any] = {}
    for kind in (Settings, Limits):
        hints |= get_type_hints(kind, include_extras=True)
    marks = getattr(hints.get(name), "__metadata__", ())
    called = next((mark.name for mark in marks if getattr(mark, "name", None)), name)
    return f"--{called.replace('_', '-')}{message.removeprefix(name)}"
