"""API keys: read from a file, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from blt.errors import require


class Keys:
    """The keys that are accepted; none at all: everybody is."""

    def __init__(self, keys: list[str]) -> None:
        self._digests = [_digest(key.encode()) for key in keys]

    @classmethod
    def read(cls, path: str) -> Keys:
        """A file with one key per line; empty lines and lines with # at their start say nothing.

        Raises:
            UserError: a file without a key.
            OSError: no such file.
        """
        if not path:
            return cls([])
        lines = (line.strip() for line in Path(path).read_text().splitlines())
        keys = [line for line in lines if line and not line.startswith("#")]
        require(bool(keys), f"{path}: no API key in it; write one per line")
        return cls(keys)

    @property
    def wanted(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: bytes) -> bool:
        """Is this value of the Authorization header "Bearer" and one of the keys?"""
        scheme, _, key = authorization.partition(b" ")
        given, found = _digest(key.strip()), False
        for digest in self._digests:  # all of them, whichever it is
            found |= hmac.compare_digest(digest, given)
        return found and scheme.lower() == b"bearer"


def _digest(key: bytes) -> bytes:
    """Of equal length for all keys, so that a comparison does not tell how long they are."""
    return hashlib.sha256(key).digest()
