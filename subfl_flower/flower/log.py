"""Flower's log, into which a run's server and nodes write: lines for people, or one JSON object a line.

`SUBFL_LOG=json` in a process's environment asks for JSON. Each object has ``time`` (RFC 3339, UTC), ``level``,
``event``, ``message``, and the facts that are known: ``run``, ``round``, ``node``, ``client`` and further figures.
``event`` is a short word for what this project reports in JSON alone, and else the sentence of the line with
placeholders (``a node is refused: %s``), so that it is the same whatever the values are.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from logging import INFO
from typing import Any

from flwr.supercore import log
from flwr.supercore.logger import FLOWER_LOGGER, ConsoleHandler

from subfl_flower.errors import SubflError

__all__ = ["FORMAT", "event", "in_json", "log", "remember", "use_asked_format"]

FORMAT = "SUBFL_LOG"
"""The environment variable that chooses the form of lines: ``text`` (the default) or ``json``."""

_FORMATS = ("text", "json")
_FACTS = "facts"
_known: dict[str, Any] = {}


def in_json() -> bool:
    """True where lines are JSON objects."""
    return _chosen() == "json"


def _chosen() -> str:
    chosen = os.environ.get(FORMAT) or _FORMATS[0]
    if chosen not in _FORMATS:
        raise SubflError(f"{FORMAT}={chosen}: must be {' or '.join(_FORMATS)}")
    return chosen


def use_asked_format() -> None:
    """Have Flower's console log of this process write the form that the environment asks for.

    Raises:
        SubflError: it asks for another form than there are.
    """
    if in_json():
        formatter = JsonFormatter()
        for handler in FLOWER_LOGGER.handlers:
            if isinstance(handler, ConsoleHandler):
                handler.format = formatter.format  # type: ignore[method-assign]  # its class ignores formatters
                handler.addFilter(_says_something)  # Flower sets its lines apart by empty ones


def _says_something(record: logging.LogRecord) -> bool:
    return bool(record.getMessage().strip())


def remember(**facts: Any) -> None:
    """Add facts to all later lines of this process; None takes one away."""
    _known.update(facts)


def event(name: str, message: str, level: int = INFO, **facts: Any) -> None:
    """Write a line where lines are JSON objects, and nothing where they are for people.

    Args:
        name: a short word for what has happened.
        message: a sentence.
        level: of `logging`.
        facts: further entries of the object; None is left out.
    """
    if in_json():
        log(level, "%s", message, extra={_FACTS: {"event": name, **facts}})


class JsonFormatter(logging.Formatter):
    """A record as one JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "event": " ".join(str(record.msg).split()),
            "message": " ".join(record.getMessage().split()),
            **_known,
            **getattr(record, _FACTS, {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in entry.items() if value is not None}, default=str)
