"""No logger."""

from __future__ import annotations

from typing import Literal

from subfl_flower.loggers.settings import LoggerSettings


class NoLoggerSettings(LoggerSettings):
    """Nothing besides the run directory."""

    name: Literal["none"] = "none"

    def build(self) -> None:
        """Build nothing."""
        return None
