"""Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from subfl_flower.errors import SubflError
from subfl_flower.loggers.figures import required_package, scalars
from subfl_flower.loggers.settings import LoggerSettings

if TYPE_CHECKING:
    from subfl_flower.loggers.outcome import Outcome
    from subfl_flower.runs.directory import RunDirectory


class WandbSettings(LoggerSettings):
    """The project at Weights & Biases, and whether to send at once."""

    name: Literal["wandb"]
    project: str = Field(default="subfl", min_length=1)
    mode: Literal["online", "offline", "disabled"] = "offline"

    def build(self) -> WandbLogger:
        """A logger for one run."""
        return WandbLogger(self)


class WandbLogger:
    """Metrics by round at Weights & Biases; its files lie in the run directory."""

    def __init__(self, settings: WandbSettings) -> None:
        self._wandb = required_package("wandb", extra="loggers")
        self._settings = settings
        self._run: Any = None

    def start(self, config: Mapping[str, Any], directory: RunDirectory) -> None:
        """Start the run, with the configuration.

        Raises:
            SubflError: Weights & Biases refuses, for instance because nobody is logged in.
        """
        try:
            self._run = self._wandb.init(
                project=self._settings.project,
                mode=self._settings.mode,
                name=directory.path.name,
                dir=str(directory.path),
                config=dict(config),
                settings=self._wandb.Settings(console="off"),  # leaves the progress bar alone
            )
        except self._wandb.Error as error:
            raise SubflError(f"logger=wandb: Weights & Biases refused the run: {error}") from error

    def log_round(self, record: Mapping[str, Any]) -> None:
        """Log the round's means."""
        self._run.log(scalars(record), step=int(record["round"]))

    def attach(self, outcome: Outcome) -> None:
        """Log the clients as a table, the figures as images, and the models as an artefact."""
        table = self._wandb.Table(columns=list(outcome.clients), data=[list(line) for line in outcome.lines])
        images = {f"figures/{name}": self._wandb.Image(str(path)) for name, path in outcome.figures.items()}
        self._run.log({"clients": table, **images})
        if outcome.models is not None:
            models = self._wandb.Artifact(f"models-{self._run.id}", type="model")
            models.add_dir(str(outcome.models))
            self._run.log_artifact(models)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Set the summary's figures and end the run; any status but `completed` counts as a failure there."""
        if self._run is None:
            return
        self._run.summary.update(scalars(summary))
        self._run.finish(exit_code=0 if summary.get("status") == "completed" else 1)
