"""Base class of the settings of loggers, and the protocol of a logger."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from subfl_flower.doors import DoorSettings

if TYPE_CHECKING:
    from subfl_flower.loggers.outcome import Outcome
    from subfl_flower.runs.directory import RunDirectory


class Logger(Protocol):
    """Callbacks of the server's training loop; a logger changes nothing in the run.

    Your class may derive from this one and implement only the callbacks that it needs.
    """

    def start(self, config: Mapping[str, Any], directory: RunDirectory) -> None:
        """Called before round 1, with the resolved configuration."""

    def log_round(self, record: Mapping[str, Any]) -> None:
        """Called after each round, with its record as in `metrics.jsonl`."""

    def attach(self, outcome: Outcome) -> None:
        """Called before `finish`, once a round was finished, with the run's tables, figures and models."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Called at the end of any run, also a failed one, with the content of `summary.json`; no-op unless started."""


class LoggerSettings(DoorSettings):
    """Settings of a logger.

    Your class implements `build`. A run's logger works on the server alone; nodes do not receive its settings.
    """

    @abstractmethod
    def build(self) -> Logger | None:
        """A logger for one run, called before the run starts; None for none.

        Raises:
            SubflError: it cannot work here, for instance because a package is not installed.
        """
