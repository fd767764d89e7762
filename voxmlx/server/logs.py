"""Logs as one JSON object a line. Audio and text never go in unless somebody asks for text."""

from __future__ import annotations

import json
import logging
import time
from typing import Any


class JsonFormatter(logging.Formatter):
    """Formats a record with the fields that :func:`event` gave it."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        values: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["trace"] = self.formatException(record.exc_info)
        return json.dumps(values, default=str)


class PlainFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a trace where there is one."""
        fields = getattr(record, "fields", {})
        parts = [f"{time.strftime('%H:%M:%S')} {record.levelname.lower():7} {record.getMessage()}"]
        # Quoted as JSON, so that nothing a client sends can start a line of its own.
        parts += [f"{name}={json.dumps(value, default=str)}" for name, value in fields.items()]
        if record.exc_info:
            parts.append("\n" + self.formatException(record.exc_info))
        return " ".join(parts)


def event(logger: logging.Logger, name: str, level: int = logging.INFO, **fields: Any) -> None:
    """Log something that happened."""
    logger.log(level, name, extra={"fields": fields})
