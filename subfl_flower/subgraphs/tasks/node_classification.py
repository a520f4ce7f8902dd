"""Node classification: cross-entropy on the training nodes, accuracy (or another measure) on the others.

Where one class is common, accuracy alone says little. The further figures weight classes equally, and give the accuracy
of a model that has only learnt which class is the most common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.tasks.class_measures import (
    MEASURES,
    LabelledNodes,
    Predictions,
    balanced_accuracy,
    macro_f1,
)
from subfl_flower.tasks.metric import SHARE, Metric
from subfl_flower.tasks.settings import GraphTask


class NodeClassification(GraphTask):
    """Classification of nodes; a node's role (train, validation, test) is part of the prepared partition.

    Attributes:
        chosen: the metric, under the key ``metric``: the measure of validation and test that the best round is chosen
            by. With another one than accuracy, accuracy is a further figure.
        figures: further measures of test nodes to report, such as ``roc_auc`` as ``test.roc_auc``.
        batch_size: training nodes of a step, whose neighbourhood is sampled; null: each step uses the whole graph.
        neighbours: largest number of a node's neighbours in a sampled step; null: all.
    """

    needs_labels: ClassVar[bool] = True
    classifies_nodes: ClassVar[bool] = True
    measures_pooled: ClassVar[bool] = True
    client_figures: ClassVar[tuple[str, ...]] = (
        "test.macro_f1",
        "test.balanced_accuracy",
        "test.majority",
        "test.one_class",
    )
    metric_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    name: Literal["node_classification"]
    chosen: Literal["accuracy", "macro_f1", "balanced_accuracy", "roc_auc", "average_precision"] = Field(
        default="accuracy", alias="metric"
    )
    figures: tuple[Literal["roc_auc", "average_precision", "calibration_error"], ...] = ()
    batch_size: int | None = Field(default=None, ge=1)
    neighbours: int | None = Field(default=20, ge=1)

    @property
    def metric(self) -> str:
        """The measure that was chosen, by default ``accuracy``."""
        return self.chosen

    @property
    def further(self) -> tuple[str, ...]:
        """Measures of test nodes besides the metric and `client_figures`."""
        asked = self.figures if self.chosen == "accuracy" else ("accuracy", *self.figures)
        return tuple(name for name in dict.fromkeys(asked) if name != self.chosen)

    @property
    def metrics(self) -> dict[str, Metric]:
        """The metric, `client_figures` and the further measures."""
        further = Metric(SHARE.low, SHARE.high, by_client=True, averaged=True)
        return {**super().metrics, **{f"test.{name}": further for name in self.further}}

    def num_outputs(self, num_classes: int) -> int:
        """One logit a class."""
        return num_classes

    def visible(self, graph: ClientGraph) -> ClientGraph:
        """The whole graph: features and edges of validation and test nodes are known, their labels are not used."""
        return graph

    def num_examples(self, graph: ClientGraph) -> int:
        """Number of training nodes."""
        if not graph.num_train:
            raise SubflError(f"client {graph.client_id} has no training node")
        return graph.num_train

    def require_measurable(self, graphs: Iterable[ClientGraph]) -> None:
        """Refuse a metric that needs two classes where no client has validation nodes of two classes."""
        if self.chosen not in ("roc_auc", "average_precision"):
            return
        for graph in graphs:
            if graph.labels is not None and len(np.unique(graph.labels[graph.roles == VALIDATION])) > 1:
                return
        raise SubflError(
            f"task.metric={self.chosen} needs validation nodes of two classes, and no client has them; use fewer "
            "clients, another partition, or task.metric=accuracy"
        )

    def measured(self, outputs: np.ndarray, truth: np.ndarray) -> float:
        """The metric on some nodes' logits [T, classes] and labels [T]."""
        nodes = LabelledNodes(truth, np.zeros(len(truth), dtype=np.int64), 1, outputs.shape[1])
        return float(MEASURES[self.metric](Predictions(nodes, torch.tensor(outputs)))[0])

    @property
    def samples(self) -> bool:
        """True with a `batch_size`."""
        return self.batch_size is not None

    @property
    def max_neighbours(self) -> int | None:
        """`neighbours`."""
        return self.neighbours

    def minibatches(self, graph: ClientGraph, rng: np.random.Generator) -> list[np.ndarray]:
        """The training nodes in random order, `batch_size` a step; the last step of an epoch may have fewer."""
        if self.batch_size is None:
            return []
        order = rng.permutation(np.flatnonzero(graph.roles == TRAIN))
        return [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]

    def examples(self, graphs: Sequence[ClientGraph], device: torch.device) -> NodeExamples:
        """Labels and roles."""
        return NodeExamples(graphs, device, self.metric, self.further)


class NodeExamples:
    """Labels of C clients' nodes, each client padded to the largest.

    Args:
        graphs: of the clients.
        device: where outputs are.
        metric: the measure of validation and test nodes.
        further: measures of test nodes to report besides the usual ones.

    Attributes:
        labels: [C, width], 0 at padding.
        members: one [C, width] a role (train, validation, test): 1.0 at the role's nodes, else 0.
    """

    def __init__(
        self,
        graphs: Sequence[ClientGraph],
        device: torch.device,
        metric: str = "accuracy",
        further: Sequence[str] = (),
    ) -> None:
        self._metric, self._further = metric, further
        width = max(graph.num_nodes for graph in graphs)
        self._num_classes = max(graph.num_classes for graph in graphs)
        labels = np.zeros((len(graphs), width), dtype=np.int64)
        roles = np.full((len(graphs), width), -1, dtype=np.int8)
        for c, graph in enumerate(graphs):
            if graph.labels is not None:
                labels[c, : graph.num_nodes] = np.maximum(graph.labels, 0)
            roles[c, : graph.num_nodes] = graph.roles
        self.labels = torch.from_numpy(labels).to(device)
        self.members = tuple(
            torch.from_numpy((roles == role).astype(np.float32)).to(device) for role in (TRAIN, VALIDATION, TEST)
        )

    def mean(self, values: Tensor, role: int) -> Tensor:
        """Each client's mean of `values` [C, width] over its nodes of a role: [C], NaN where it has none."""
        members = self.members[role]
        return (values * members).sum(1) / members.sum(1)

    def losses(self, outputs: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Mean cross-entropy over each client's training nodes [C]."""
        of_nodes = F.cross_entropy(outputs.flatten(0, 1), self.labels.flatten(), reduction="none")
        return self.mean(of_nodes.view(self.labels.shape), TRAIN)

    def evaluate(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The metric on validation and on test nodes, [C] each; NaN where a client has none, or it is undefined."""
        if self._metric == "accuracy":
            correct = (outputs.argmax(-1) == self.labels).to(torch.float32)
            return self.mean(correct, VALIDATION), self.mean(correct, TEST)
        validation, test = (MEASURES[self._metric](self._predictions(role, outputs)) for role in (VALIDATION, TEST))
        return torch.from_numpy(validation.astype(np.float32)), torch.from_numpy(test.astype(np.float32))

    def figures(self, outputs: Tensor) -> dict[str, Tensor]:
        """Figures of each client's test nodes that complement the metric.

        Args:
            outputs: of the model, [C, width, classes].

        Returns:
            [C] each, NaN where a client has no test node. ``test.macro_f1`` is the mean F1 over the classes among test
            labels or predictions, ``test.balanced_accuracy`` the mean recall over those among test labels; both are
            scikit-learn's. ``test.majority`` is the accuracy of always predicting the class that most of the client's
            training nodes have, the lowest of equals. ``test.one_class`` is 1 where the model predicts a single class
            for all test nodes though they have several labels, else 0. Others are the `further` measures.
        """
        of = self._predictions(TEST, outputs)  # From here on numbers are few, and NumPy is quicker than PyTorch.
        one_class = ((of.told_of_class > 0).sum(1) == 1) & (of.nodes.num_labels > 1)
        found = {
            "test.macro_f1": macro_f1(of),
            "test.balanced_accuracy": balanced_accuracy(of),
            "test.majority": self._majority,
            "test.one_class": np.where(of.nodes.counts > 0, one_class, np.nan),
            **{f"test.{name}": MEASURES[name](of) for name in self._further},
        }
        return {name: torch.from_numpy(values.astype(np.float32)) for name, values in found.items()}

    def test_outputs(self, outputs: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each client's logits of its test nodes, float32 [T, classes], and their labels [T]."""
        of = self._predictions(TEST, outputs)
        logits, own = of.logits.float().cpu().numpy(), np.cumsum(of.nodes.counts)[:-1]
        return list(zip(np.split(logits, own), np.split(of.nodes.labels, own), strict=True))

    def _predictions(self, role: int, outputs: Tensor) -> Predictions:
        nodes, rows = self._nodes[role]
        return Predictions(nodes, outputs.flatten(0, 1)[rows])

    @cached_property
    def _nodes(self) -> dict[int, tuple[LabelledNodes, Tensor]]:
        """The nodes of each role, and their rows of the outputs [C * width, classes]."""
        labels, found = self.labels.cpu().numpy(), {}
        for role, members in enumerate(self.members):
            chosen = members.cpu().numpy() > 0
            nodes = LabelledNodes(labels[chosen], np.nonzero(chosen)[0], len(labels), self._num_classes)
            found[role] = nodes, torch.from_numpy(np.flatnonzero(chosen)).to(self.labels.device)
        return found

    @cached_property
    def _majority(self) -> np.ndarray:
        """The share of each client's test nodes that have its most frequent training label [C]."""
        test, most = self._nodes[TEST][0], self._nodes[TRAIN][0].labelled.argmax(1)  # the lowest of equals
        shares: np.ndarray = test.labelled[np.arange(len(most)), most] / np.maximum(test.counts, 1)
        return np.where(test.counts > 0, shares, np.nan)
