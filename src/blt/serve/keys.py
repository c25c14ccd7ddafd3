"""API keys: read from a file, again when it changes, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import time
from pathlib import Path

from blt.errors import UserError, require
from blt.serve.logs import log, warn

LOOK_SECONDS = 1.0  # between looks at the file
Version = tuple[int, ...]  # of the file: what changes when somebody writes or replaces it


class Keys:
    """The keys that are accepted; no file: everybody is."""

    def __init__(self, path: str, digests: list[bytes], version: Version) -> None:
        self._path, self._digests, self._version = path, digests, version
        self._look_at = time.monotonic() + LOOK_SECONDS

    @classmethod
    def read(cls, path: str) -> Keys:
        """A file with one key per line; empty lines and lines with # at their start say nothing.

        Raises:
            UserError: a file without a key, not in UTF-8, or one that others may write.
            OSError: no such file.
        """
        version = _version(path) if path else ()  # before reading: a later change is seen
        return cls(path, _digests(path) if path else [], version)

    @property
    def wanted(self) -> bool:
        return bool(self._path)

    def accept(self, authorization: bytes) -> bool:
        """Is this value of the Authorization header "Bearer" and one of the keys?"""
        self._look()
        scheme, _, key = authorization.partition(b" ")
        given, found = _digest(key.strip()), False
        for digest in self._digests:  # all of them, whichever it is
            found |= hmac.compare_digest(digest, given)
        return found and scheme.lower() == b"bearer"

    def _look(self) -> None:
        """Take the keys of a new file; from one that is no good, none: the old ones hold."""
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + LOOK_SECONDS
        try:
            version = _version(self._path)
        except OSError:
            version = ()
        if version == self._version:
            return
        self._version = version  # so that what is wrong is said once
        try:
            self._digests = _digests(self._path)
        except (UserError, OSError) as error:
            warn("the key file has changed and is not taken; the old keys hold", why=str(error))
        else:
            log("keys", count=len(self._digests))


def others_can_read(path: str) -> bool:
    """May every user of this machine read the file?"""
    return os.name == "posix" and bool(os.stat(path).st_mode & stat.S_IROTH)


def _version(path: str) -> Version:
    found = os.stat(path)
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode


def _digests(path: str) -> list[bytes]:
    shared = os.name == "posix" and os.stat(path).st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    require(not shared, f"{path}: others than its owner may write API keys into it; chmod go-w")
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 (byte {error.start}); write one API key per line"
        raise UserError(message) from None
    lines = (line.strip() for line in text.splitlines())
    keys = [line for line in lines if line and not line.startswith("#")]
    require(bool(keys), f"{path}: no API key in it; write one per line")
    return [_digest(key.encode()) for key in keys]


def _digest(key: bytes) -> bytes:
    """A digest of equal length for all keys, so that comparing does not tell how long they are."""
    return hashlib.sha256(key).digest()
