"""Everything that a class of your own is made from, to be named in a configuration.

A data set, a partition, a task and a logger are settings classes: pydantic models whose fields are their settings. A
method is a client's class and a strategy's class. A model is any ``torch.nn.Module``. Each base says in its docstring
what a class implements, what it may override, and what it inherits.

`make_client` and `make_strategy` give single clients and strategies to programs that bring Flower's own loop.
"""

from __future__ import annotations

from clients.description import Description
from clients.local_weights import LocalWeights
from clients.recommender import RecommenderClient
from clients.subgraph import SubgraphClient
from strategies.mixing import MixingStrategy, average_matrix, average_weights, mix
from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph, Graph
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.protocol import Protocol
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.errors import SubflError
from subfl_flower.loggers.settings import Logger, LoggerSettings
from subfl_flower.models.stacked_gnn import propagate
from subfl_flower.runtime.batch import Answers, Batch, Question, Result
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.contract import Contract, MethodSettings, RunContext
from subfl_flower.runtime.exchange import Exchange
from subfl_flower.runtime.messages import ArraySpec, Choice
from subfl_flower.runtime.ragged import Ragged, RaggedSpec
from subfl_flower.runtime.standalone import make_client, make_strategy
from subfl_flower.runtime.state import ContextStore, MemoryStore
from subfl_flower.runtime.strategy import CohortStrategy
from subfl_flower.runtime.updates import Remembered, Updates
from subfl_flower.seeding import client_generator, shared_generator
from subfl_flower.similarity.functional import cosine_similarity
from subfl_flower.tasks.metric import Metric
from subfl_flower.tasks.ranking import Ranking
from subfl_flower.tasks.rating_prediction import RatingPrediction
from subfl_flower.tasks.settings import Examples, GraphTask, TaskSettings

__all__ = [
    "TEST",
    "TRAIN",
    "VALIDATION",
    "Answers",
    "ArraySpec",
    "Batch",
    "Choice",
    "ClientGraph",
    "CohortClient",
    "CohortStrategy",
    "ContextStore",
    "Contract",
    "DatasetSettings",
    "Description",
    "Examples",
    "Exchange",
    "Graph",
    "GraphTask",
    "LocalWeights",
    "Logger",
    "LoggerSettings",
    "MemoryStore",
    "MethodSettings",
    "Metric",
    "MixingStrategy",
    "PartitionSettings",
    "Protocol",
    "Question",
    "Ragged",
    "RaggedSpec",
    "Ranking",
    "RatingDatasetSettings",
    "RatingPrediction",
    "RawGraph",
    "RawRatings",
    "RecommenderClient",
    "Remembered",
    "Result",
    "RunContext",
    "SubflError",
    "SubgraphClient",
    "TaskSettings",
    "Updates",
    "average_matrix",
    "average_weights",
    "client_generator",
    "cosine_similarity",
    "make_client",
    "make_strategy",
    "mix",
    "propagate",
    "shared_generator",
]
