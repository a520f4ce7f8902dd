"""What is learnt: one file a task."""

from typing import Annotated

from pydantic import Field

from subfl_flower.tasks.link_prediction import LinkPrediction
from subfl_flower.tasks.node_classification import NodeClassification
from subfl_flower.tasks.ranking import Ranking
from subfl_flower.tasks.rating_prediction import RatingPrediction
from subfl_flower.tasks.settings import Examples, GraphTask, TaskSettings, UserTask

AnyGraphTask = Annotated[NodeClassification | LinkPrediction, Field(discriminator="name")]
"""The settings of any task on graphs, told apart by `name`."""

Task = Annotated[NodeClassification | LinkPrediction | RatingPrediction | Ranking, Field(discriminator="name")]
"""The settings of any task, told apart by `name`."""

__all__ = [
    "AnyGraphTask",
    "Examples",
    "GraphTask",
    "LinkPrediction",
    "NodeClassification",
    "Ranking",
    "RatingPrediction",
    "Task",
    "TaskSettings",
    "UserTask",
]
