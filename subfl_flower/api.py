"""Base classes for your classes, which a configuration can name.

A data set, a partition, a task and a logger are settings classes: pydantic models whose fields are their settings. A
method is a client's class and a strategy's class. A model is any ``torch.nn.Module``. The docstring of each base lists
the methods that a class implements, may override, and inherits.

`make_client` and `make_strategy` give single clients and strategies to programs that use Flower's loop.
"""

from __future__ import annotations

from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.subgraphs.description import Description
from subfl_flower.clients.subgraphs.local_weights import LocalWeights
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph, Graph
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.source import Protocol
from subfl_flower.errors import SubflError
from subfl_flower.loggers.settings import Logger, LoggerSettings
from subfl_flower.node.client import CohortClient
from subfl_flower.node.state import ContextStore, MemoryStore
from subfl_flower.recommendation.tasks.ranking import Ranking
from subfl_flower.recommendation.tasks.rating_prediction import RatingPrediction
from subfl_flower.seeding import client_generator, shared_generator
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.standalone import make_client, make_strategy
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Remembered, Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_matrix, average_weights, mix
from subfl_flower.subgraphs.models.stacked_gnn import propagate
from subfl_flower.subgraphs.similarity.functional import cosine_similarity
from subfl_flower.tasks.metric import Metric
from subfl_flower.tasks.settings import Examples, GraphTask, TaskSettings
from subfl_flower.wire.batch import Answers, Batch, Question, Result
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import Contract, MethodSettings, RunContext
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.ragged import Ragged, RaggedSpec

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
