"""No logger."""

from __future__ import annotations

from typing import Literal

from subfl_flower.loggers.settings import LoggerSettings


class NoLoggerSettings(LoggerSettings):
    """No logger; the run directory is the only record."""

    name: Literal["none"] = "none"

    def build(self) -> None:
        """Build nothing."""
        return None
