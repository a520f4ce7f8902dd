"""Base of every task: the part of a client's graph that is seen in training, the loss, the metric."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal, Protocol

import numpy as np
import torch
from pydantic import ConfigDict
from torch import Tensor

from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.doors import DoorSettings
from subfl_flower.tasks.metric import SHARE, Metric


class Examples(Protocol):
    """Examples that C clients learn from and are measured on, stacked; node k of client c is row k of its outputs."""

    def losses(self, outputs: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Each client's mean training loss [C].

        Args:
            outputs: of the model, [C, width, outputs].
            generators: one a client, for the task's samples in this step.
        """

    def evaluate(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The metric on validation and on test examples, [C] each; NaN where a client has none."""

    def figures(self, outputs: Tensor) -> dict[str, Tensor]:
        """The task's `client_figures` by name, [C] each; NaN where a client has no such examples."""


class PooledExamples(Examples, Protocol):
    """Examples whose test outputs can be measured together with those of other clients."""

    def test_outputs(self, outputs: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each client's outputs for its T test examples, float32 [T, any], and their truth, int64 [T]."""


class TaskSettings(DoorSettings):
    """Settings of a task.

    A class of your own implements `metric`. Its class attributes declare the task's needs and the meaning of its
    figures, and it may override `over_clients`. A task on ratings is a subclass of `RatingPrediction` or `Ranking`, a
    task on graphs one of `GraphTask`.

    Attributes:
        kind: the kind of data for the task.
        pooled: figures of all clients' examples together; any other figure is the mean over clients.
        higher_is_better: True where the larger of two values of the metric is the better one.
        needs_labels: True where a graph must have labels.
        needs_ratings: True where users must have given ratings that differ; else users and items suffice.
        client_figures: names of the figures that each client reports besides the metric, such as ``test.macro_f1``. The
            round's record has them by client. As for the metric, the last known value of an absent client counts. They
            are shares, from 0 to 1.
        metric_range: smallest and largest value of the metric.
    """

    model_config = ConfigDict(allow_inf_nan=False)

    kind: ClassVar[Literal["graph", "ratings"]] = "graph"
    pooled: ClassVar[Collection[str]] = ()
    higher_is_better: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = False
    needs_ratings: ClassVar[bool] = False
    client_figures: ClassVar[tuple[str, ...]] = ()
    metric_range: ClassVar[tuple[float, float]] = (-1e100, 1e100)

    @property
    @abstractmethod
    def metric(self) -> str:
        """Name of the validation and test metric: a fraction, or an error in units of the data."""

    @property
    def metrics(self) -> dict[str, Metric]:
        """The declaration of every figure by which a client's model is measured."""
        roles = ("validation", "test", "validation_as_received", "test_as_received")
        return {
            **dict.fromkeys(roles, Metric(*self.metric_range, by_client=True, averaged=True)),
            **dict.fromkeys(self.client_figures, replace(SHARE, by_client=True, averaged=True)),
        }

    @property
    def candidates(self) -> dict[str, int] | None:
        """Rule that draws the candidates among which held-out items are ranked; None where there are none."""
        return None

    def learnt_by(self, model_tasks: Sequence[str]) -> bool:
        """Look for the task among those of a model; True where the model can learn it.

        Args:
            model_tasks: names of the tasks that the model states.
        """
        return self.name in model_tasks

    def over_clients(self, metrics: Mapping[str, np.ndarray], name: str) -> float | None:
        """One figure of some clients from each one's: the mean of those that have it; None where none has.

        Args:
            metrics: of the same clients, in the same order, each [clients], NaN where a client has none.
            name: of the figure; for an unknown name None is returned.
        """
        values = metrics.get(name)
        return None if values is None or np.isnan(values).all() else float(np.nanmean(values))


class UserTask(TaskSettings):
    """A task on users' ratings."""

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"

    @abstractmethod
    def baseline(self, ratings: Ratings) -> dict[str, dict[str, float | None]]:
        """Baseline figures that a model must beat, under the baseline's name.

        Args:
            ratings: of all users.
        """

    def require_split(self, split: str) -> None:
        """Accept any split of the ratings; a task whose figures need one refuses the others.

        split: the way in which training, validation and test ratings were split.
            split: how training, validation and test ratings were told apart.

        Raises:
            SubflError: the figures would have another meaning.
        """


class GraphTask(TaskSettings):
    """Settings of a task on clients' subgraphs.

    A class of your own implements `metric`, `num_outputs`, `visible`, `num_examples` and `examples`. Its class
    attributes and `over_clients` are those of `TaskSettings`. Every network that gives outputs for nodes learns it.
    With `samples`, `max_neighbours` and `minibatches` it trains on sampled neighbourhoods.

    Attributes:
        classifies_nodes: True where a node's outputs are its logits, one a class.
        scores_pairs: True where the outputs score pairs of nodes (`link_prediction.pair_scores`).
        measures_pooled: True where the task has `measured`, and its examples are `PooledExamples`.
    """

    classifies_nodes: ClassVar[bool] = False
    scores_pairs: ClassVar[bool] = False
    measures_pooled: ClassVar[bool] = False

    def measured(self, outputs: np.ndarray, truth: np.ndarray) -> float:
        """The metric on test examples of any clients together; NaN where it is undefined.

        Args:
            outputs: as `PooledExamples.test_outputs` gives them, of several clients one after the other.
            truth: of the same examples.
        """
        raise NotImplementedError(f"{type(self).__name__} does not measure the examples of several clients together")

    @property
    def samples(self) -> bool:
        """True where a training step sees a sampled part of a client's graph, of `minibatches`."""
        return False

    @property
    def max_neighbours(self) -> int | None:
        """Largest number of a node's neighbours in a sampled part; None: all."""
        return None

    def minibatches(self, graph: ClientGraph, rng: np.random.Generator) -> Sequence[np.ndarray]:
        """The nodes whose outputs each step of an epoch uses, int64 local ids; empty unless the task `samples`."""
        return ()

    def learnt_by(self, model_tasks: Sequence[str]) -> bool:
        """Look among a model's tasks for this one, or for the one that covers any outputs for nodes."""
        return self.name in model_tasks or "node_classification" in model_tasks

    def require_measurable(self, graphs: Iterable[ClientGraph]) -> None:
        """Refuse data on which no client has the metric: by default nothing is looked at.

        Args:
            graphs: all clients' graphs, each read when it is asked for.

        Raises:
            SubflError: the metric is defined for none of them.
        """
        return

    @abstractmethod
    def num_outputs(self, num_classes: int) -> int:
        """Width of the model's output for a data set of `num_classes` classes."""

    @abstractmethod
    def visible(self, graph: ClientGraph) -> ClientGraph:
        """The part of a client's graph that its model may see; ``train`` marks the nodes that a loss may use."""

    @abstractmethod
    def num_examples(self, graph: ClientGraph) -> int:
        """Number of a client's training examples.

        Raises:
            SubflError: it has none.
        """

    @abstractmethod
    def examples(self, graphs: Sequence[ClientGraph], device: torch.device) -> Examples:
        """The stacked examples of some clients, of their whole graphs."""
