"""TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from subfl_flower.loggers.figures import dotted, required_package, scalars
from subfl_flower.loggers.settings import LoggerSettings

if TYPE_CHECKING:
    from subfl_flower.loggers.outcome import Outcome
    from subfl_flower.runs.directory import RunDirectory


class TensorBoardSettings(LoggerSettings):
    """Events in the run directory."""

    name: Literal["tensorboard"]

    def build(self) -> TensorBoardLogger:
        """A logger for one run."""
        return TensorBoardLogger(self)


class TensorBoardLogger:
    """Scalars by round in `<run directory>/tensorboard`; the figures of the summary under `summary/`."""

    def __init__(self, settings: TensorBoardSettings) -> None:
        required_package("tensorboard", extra="loggers")
        self._make_writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = None
        self._last_round = 0

    def start(self, config: Mapping[str, Any], directory: RunDirectory) -> None:
        """Open the event file and note the configuration, as a table of dotted keys."""
        self._writer = self._make_writer(log_dir=str(directory.tensorboard_folder))
        settings = "\n".join(f"| {key} | {value} |" for key, value in dotted(config).items())
        self._writer.add_text("config", f"| setting | value |\n|---|---|\n{settings}")

    def log_round(self, record: Mapping[str, Any]) -> None:
        """Write the round's means; they are on disk when this returns."""
        self._last_round = int(record["round"])
        self._add(scalars(record))

    def attach(self, outcome: Outcome) -> None:
        """Write the clients as a table, the figures as images, and the path of the models, which stay there."""
        heads = list(outcome.clients)
        lines = [heads, ["---"] * len(heads), *outcome.lines]
        table = "\n".join(
            "| " + " | ".join("–" if cell is None else str(cell) for cell in line) + " |" for line in lines
        )
        self._writer.add_text("clients", table, self._last_round)
        read = import_module("matplotlib.image").imread
        for name, path in outcome.figures.items():
            self._writer.add_image(f"figures/{name}", read(path), self._last_round, dataformats="HWC")
        if outcome.models is not None:
            self._writer.add_text("models", f"`{outcome.models}`", self._last_round)
        self._writer.flush()

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Write the summary's figures and close the event file."""
        if self._writer is None:
            return
        self._add({f"summary/{key}": value for key, value in scalars(summary).items()})
        self._writer.close()

    def _add(self, values: Mapping[str, float]) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, self._last_round)
        self._writer.flush()
