"""What every logger's settings have in common, and what a logger is called with."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from subfl_flower.doors import DoorSettings

if TYPE_CHECKING:
    from subfl_flower.runs.directory import RunDirectory


class Logger(Protocol):
    """Callbacks of the server's training loop; a logger changes nothing in the run.

    A class of your own may derive from this one and then leave out what it does not need.
    """

    def start(self, config: Mapping[str, Any], directory: RunDirectory) -> None:
        """Before round 1, with the resolved configuration."""

    def log_round(self, record: Mapping[str, Any]) -> None:
        """After each round, with its record as in `metrics.jsonl`."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """At the end, however the run ended, with `summary.json`'s content; no-op unless started."""


class LoggerSettings(DoorSettings):
    """Settings of a logger.

    A class of your own implements `build`. Nodes are not told of loggers: a run's logger works on the server alone.
    """

    @abstractmethod
    def build(self) -> Logger | None:
        """A logger for one run, called before the run starts; None for none.

        Raises:
            SubflError: it cannot work here, for instance because a package is not installed.
        """
