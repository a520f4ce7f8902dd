"""Loggers: callbacks that carry a run's figures to TensorBoard, MLflow or Weights & Biases as it goes.

The run directory records every run anyway; a logger is for those who watch many. Its package is imported when
it is asked for, and its absence is reported before the run starts.
"""

import time
import warnings
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from subfl_flower.errors import SubflError
from subfl_flower.runtime.run_directory import RunDirectory


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NoLoggerSettings(_Settings):
    """Nothing besides the run directory."""

    name: Literal["none"] = "none"


class TensorBoardSettings(_Settings):
    """Events in the run directory."""

    name: Literal["tensorboard"]


class MlflowSettings(_Settings):
    """Where MLflow keeps the run: `tracking_uri` (None: MLflow's own choice) and the experiment's name."""

    name: Literal["mlflow"]
    tracking_uri: str | None = None
    experiment: str = Field(default="subfl", min_length=1)


class WandbSettings(_Settings):
    """The project at Weights & Biases, and whether to send at once."""

    name: Literal["wandb"]
    project: str = Field(default="subfl", min_length=1)
    mode: Literal["online", "offline", "disabled"] = "offline"


LoggerSettings = Annotated[
    NoLoggerSettings | TensorBoardSettings | MlflowSettings | WandbSettings, Field(discriminator="name")
]


class Logger(Protocol):
    """Called by the server's training loop; a logger changes nothing in the run."""

    def start(self, config: Mapping[str, Any], directory: RunDirectory) -> None:
        """Before round 1, with the resolved configuration."""

    def log_round(self, record: Mapping[str, Any]) -> None:
        """After each round, with its record as in `metrics.jsonl`."""

    def finish(self, summary: Mapping[str, Any]) -> None:
        """At the end, however the run ended, with `summary.json`'s content; no-op unless started."""


class TensorBoardLogger:
    """Scalars by round in `<run directory>/tensorboard`; the figures of the summary under `summary/`."""

    def __init__(self, settings: TensorBoardSettings) -> None:
        _require("tensorboard", extra="tensorboard")
        self._make_writer = import_module("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = None
        self._last_round = 0

    def start(self, config: Mapping[str, Any], directory: RunDirectory) -> None:
        """Open the event file and note the configuration, as a table of dotted keys."""
        self._writer = self._make_writer(log_dir=str(directory.tensorboard_folder))
        settings = "\n".join(f"| {key} | {value} |" for key, value in _dotted(config).items())
        self._writer.add_text("config", f"| setting | value |\n|---|---|\n{settings}")

    def log_round(self, record: Mapping[str, Any]) -> None:
        """Write the round's means; they are on disk when this returns."""
        self._last_round = int(record["round"])
        self._add(scalars(record))

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


class MlflowLogger:
    """Metrics by round and dotted parameters in one MLflow run, through an own client: no global state."""

    def __init__(self, settings: MlflowSettings) -> None:
        self._mlflow = _require("mlflow", extra="mlflow")
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
            settings = [make(key, str(value)) for key, value in _dotted(config).items()]
            for first in range(0, len(settings), 100):  # the most that one request may hold
                self._client.log_batch(self._run_id, params=settings[first : first + 100])
        except self._refusal as error:
            where = self._settings.tracking_uri or "its default tracking URI"
            raise SubflError(f"logger=mlflow: MLflow at {where} refused the run: {error}") from error

    def log_round(self, record: Mapping[str, Any]) -> None:
        """Log the round's means in one request; a server that fails costs a warning, never the run."""
        self._last_round = int(record["round"])
        self._log(scalars(record))

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


class WandbLogger:
    """Metrics by round at Weights & Biases; its files lie in the run directory."""

    def __init__(self, settings: WandbSettings) -> None:
        self._wandb = _require("wandb", extra="wandb")
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

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Set the summary's figures and end the run; any status but `completed` counts as a failure there."""
        if self._run is None:
            return
        self._run.summary.update(scalars(summary))
        self._run.finish(exit_code=0 if summary.get("status") == "completed" else 1)


def build_loggers(settings: Mapping[str, Any] | BaseModel) -> list[Logger]:
    """The loggers that `settings` (the `logger` section of the configuration) asks for; none for `none`.

    Raises:
        SubflError: a setting is unknown or out of range, or the package is not installed.
    """
    try:
        parsed: Any = TypeAdapter(LoggerSettings).validate_python(settings)
    except ValidationError as error:
        first = error.errors()[0]
        names = {"none", "tensorboard", "mlflow", "wandb"}
        key = ".".join(["logger", *(str(part) for part in first["loc"] if part not in names)])
        raise SubflError(f"{key}: {first['msg']}") from None
    if isinstance(parsed, TensorBoardSettings):
        return [TensorBoardLogger(parsed)]
    if isinstance(parsed, MlflowSettings):
        return [MlflowLogger(parsed)]
    if isinstance(parsed, WandbSettings):
        return [WandbLogger(parsed)]
    return []


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a round record or a summary by their name, nested ones as `seconds/client`.

    Left out: the round's number, which is the step; what is per client; what is unknown (None).
    """
    found: dict[str, float] = {}
    for key, value in record.items():
        if key in ("round", "clients", "per_client", "failures"):
            continue
        nested = value.items() if isinstance(value, Mapping) else [("", value)]
        for part, number in nested:
            if isinstance(number, int | float) and not isinstance(number, bool):
                found[f"{key}/{part}" if part else key] = float(number)
    return found


def _require(package: str, extra: str) -> Any:
    """Import `package`; a folder of that name (wandb makes one where it runs) does not count as installed."""
    try:
        module = import_module(package)
    except ImportError:
        module = None
    if module is None or getattr(module, "__file__", None) is None:
        raise SubflError(f"logger={package} needs a package that is not installed: pip install 'subfl-flower[{extra}]'")
    return module


def _dotted(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        flat |= _dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
