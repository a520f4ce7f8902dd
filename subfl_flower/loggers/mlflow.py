"""MLflow."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from subfl_flower.errors import SubflError
from subfl_flower.loggers.figures import dotted, required_package, scalars
from subfl_flower.loggers.settings import LoggerSettings

if TYPE_CHECKING:
    from subfl_flower.loggers.outcome import Outcome
    from subfl_flower.runs.directory import RunDirectory


class MlflowSettings(LoggerSettings):
    """Location of the run in MLflow: `tracking_uri` (None: MLflow's default) and the experiment's name."""

    name: Literal["mlflow"]
    tracking_uri: str | None = None
    experiment: str = Field(default="subfl", min_length=1)

    def build(self) -> MlflowLogger:
        """A logger for one run."""
        return MlflowLogger(self)


class MlflowLogger:
    """Metrics by round and dotted parameters in one MLflow run, through a separate client, without global state."""

    def __init__(self, settings: MlflowSettings) -> None:
        self._mlflow = required_package("mlflow", extra="loggers")
        self._refusal: type[Exception] = self._mlflow.exceptions.MlflowException
        self._settings = settings
        self._client: Any = None
        self._run_id = ""
        self._last_round = 0

    def start(self, config: Mapping[str, Any], directory: RunDirectory) -> None:
        """Create the run, in its experiment, and log the configuration.

        Raises:
            SubflError: MLflow refuses, for instance because the tracking server does not answer.
        """
        name = self._settings.experiment
        try:
            self._client = self._mlflow.MlflowClient(tracking_uri=self._settings.tracking_uri)
            experiment = self._client.get_experiment_by_name(name)
            number = experiment.experiment_id if experiment else self._client.create_experiment(name)
            self._run_id = self._client.create_run(number, run_name=directory.path.name).info.run_id
            make = self._mlflow.entities.Param
            settings = [make(key, str(value)) for key, value in dotted(config).items()]
            for first in range(0, len(settings), 100):  # limit of one request
                self._client.log_batch(self._run_id, params=settings[first : first + 100])
        except self._refusal as error:
            where = self._settings.tracking_uri or "its default tracking URI"
            raise SubflError(f"logger=mlflow: MLflow at {where} refused the run: {error}") from error

    def log_round(self, record: Mapping[str, Any]) -> None:
        """Log the round's means in one request; a server that fails costs a warning, never the run."""
        self._last_round = int(record["round"])
        self._log(scalars(record))

    def attach(self, outcome: Outcome) -> None:
        """Log the clients as `clients.json`, and figures and models as artefacts; a failure costs a warning."""
        columns = {name: list(values) for name, values in outcome.clients.items()}
        try:
            self._client.log_table(self._run_id, columns, "clients.json")
            for path in outcome.figures.values():
                self._client.log_artifact(self._run_id, str(path), "figures")
            if outcome.models is not None:
                self._client.log_artifacts(self._run_id, str(outcome.models), "models")
        except (self._refusal, OSError) as error:
            warnings.warn(f"logger=mlflow: tables, figures and models were not logged: {error}", stacklevel=2)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Log the summary's figures and set the run's status."""
        if not self._run_id:
            return
        self._log({f"summary/{key}": value for key, value in scalars(summary).items()})
        status = {"completed": "FINISHED", "interrupted": "KILLED"}.get(str(summary.get("status")), "FAILED")
        try:
            self._client.set_terminated(self._run_id, status=status)
        except self._refusal as error:
            warnings.warn(f"logger=mlflow: the run's status was not set: {error}", stacklevel=2)

    def _log(self, values: Mapping[str, float]) -> None:
        make, now, step = self._mlflow.entities.Metric, int(1000 * time.time()), self._last_round
        named = {key.replace("@", "_at_"): value for key, value in values.items()}  # MLflow's names have no @
        try:
            self._client.log_batch(self._run_id, [make(key, value, now, step) for key, value in named.items()])
        except self._refusal as error:
            warnings.warn(f"logger=mlflow: round {step} was not logged: {error}", stacklevel=3)
