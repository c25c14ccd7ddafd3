"""Lines of a study's results, and what all of one name must have in common: their settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from blt.errors import require
from blt.files.configs import to_dict

Line = dict[str, Any]
"""What stands in a line of JSON."""


def settings_of(config: Any, free: Collection[str]) -> dict[str, Any]:
    """Plain data of a dataclass but for the keys that change no line."""
    return {key: value for key, value in to_dict(config).items() if key not in free}


def check_same(where: str, had: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse lines that were made otherwise; keys that these do not have yet are not asked.

    Raises:
        UserError: names ``where`` and the key.
    """
    for key, value in wanted.items():
        same = had.get(key, value) == value
        require(same, f"{where}: had another {key}; give it another name")
