"""The choice among tasks: built-in ones by name, and any other by its class."""

from typing import Annotated

from subfl_flower.doors import Door
from subfl_flower.recommendation.tasks.ranking import Ranking
from subfl_flower.recommendation.tasks.rating_prediction import RatingPrediction
from subfl_flower.subgraphs.tasks.link_prediction import LinkPrediction
from subfl_flower.subgraphs.tasks.node_classification import NodeClassification
from subfl_flower.tasks.settings import Examples, GraphTask, TaskSettings, UserTask

GRAPH_TASKS = Door("task", (GraphTask,), (NodeClassification, LinkPrediction))
"""Tasks on graphs by name, and any other by its class."""

TASKS = Door("task", (TaskSettings,), (NodeClassification, LinkPrediction, RatingPrediction, Ranking))
"""Tasks by name, and any other by its class."""

AnyGraphTask = Annotated[GraphTask, GRAPH_TASKS]
"""The settings of any task on graphs."""

Task = Annotated[TaskSettings, TASKS]
"""The settings of any task."""

__all__ = [
    "GRAPH_TASKS",
    "TASKS",
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
