"""Loggers: callbacks that send a run's figures to TensorBoard, MLflow or Weights & Biases during the run.

The run directory records every run anyway; a logger helps to watch many runs. A logger's package is imported when the
configuration names it. A missing package is reported before the run starts.
"""

from __future__ import annotations

from typing import Annotated

from subfl_flower.doors import Door
from subfl_flower.loggers.figures import scalars
from subfl_flower.loggers.mlflow import MlflowSettings
from subfl_flower.loggers.none import NoLoggerSettings
from subfl_flower.loggers.settings import Logger, LoggerSettings
from subfl_flower.loggers.tensorboard import TensorBoardSettings
from subfl_flower.loggers.wandb import WandbSettings

LOGGERS = Door("logger", (LoggerSettings,), (NoLoggerSettings, TensorBoardSettings, MlflowSettings, WandbSettings))
"""Loggers by name, and other loggers by their class."""

AnyLogger = Annotated[LoggerSettings, LOGGERS]
"""The settings of any logger."""

__all__ = [
    "LOGGERS",
    "AnyLogger",
    "Logger",
    "LoggerSettings",
    "MlflowSettings",
    "NoLoggerSettings",
    "TensorBoardSettings",
    "WandbSettings",
    "build_loggers",
    "scalars",
]


def build_loggers(settings: LoggerSettings) -> list[Logger]:
    """The loggers that the `logger` section of a configuration asks for.

    Raises:
        SubflError: a package is not installed.
    """
    logger = settings.build()
    return [] if logger is None else [logger]
