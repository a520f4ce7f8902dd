"""Everything that a class of your own is made from, to be named by ``_target_`` in a configuration.

A data set, a partition, a task and a logger are settings classes: pydantic models whose fields are their settings. Each
base says in its docstring what a class implements, what it may override, and what it inherits.
"""

from __future__ import annotations

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph, Graph
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.protocol import Protocol
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.errors import SubflError
from subfl_flower.loggers.settings import Logger, LoggerSettings
from subfl_flower.seeding import client_generator, shared_generator
from subfl_flower.tasks.ranking import Ranking
from subfl_flower.tasks.rating_prediction import RatingPrediction
from subfl_flower.tasks.settings import Examples, GraphTask, TaskSettings

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "ClientGraph",
    "DatasetSettings",
    "Examples",
    "Graph",
    "GraphTask",
    "Logger",
    "LoggerSettings",
    "PartitionSettings",
    "Protocol",
    "Ranking",
    "RatingDatasetSettings",
    "RatingPrediction",
    "RawGraph",
    "RawRatings",
    "SubflError",
    "TaskSettings",
    "client_generator",
    "shared_generator",
]
