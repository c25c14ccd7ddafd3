"""One JSON object per line on standard error, without any text of prompts or completions."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

logger = logging.getLogger("blt.serve")
LEVELS = {"blt.serve": logging.INFO, "uvicorn": logging.WARNING, "asyncio": logging.WARNING}


class JSONLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "values", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True)


def log(event: str, **values: Any) -> None:
    """Something that happened, and values that belong to it."""
    logger.info(event, extra={"values": values})


def warn(event: str, **values: Any) -> None:
    """Something that whoever runs the server should know of, and the way out."""
    logger.warning(event, extra={"values": values})


def to_stderr() -> None:
    """Send the server's log there, and what uvicorn and the event loop complain about."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONLines())
    for name, level in LEVELS.items():
        target = logging.getLogger(name)
        target.handlers, target.propagate = [handler], False
        target.setLevel(level)
