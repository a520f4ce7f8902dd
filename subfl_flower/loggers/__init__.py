"""Loggers: callbacks that carry a run's figures to TensorBoard, MLflow or Weights & Biases as it goes.

The run directory records every run anyway; a logger is for those who watch many. Its package is imported when
it is asked for, and its absence is reported before the run starts.
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
"""Loggers by name, and any other by its class."""

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
