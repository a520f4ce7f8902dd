"""Node classification: cross-entropy on the training nodes, accuracy on the others.

Where one class is common, accuracy alone says little. The further figures weight classes equally, and give the accuracy
of a model that has only learnt which class is the most common.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.tasks.settings import GraphTask


class NodeClassification(GraphTask):
    """Classification of nodes; a node's role (train, validation, test) is part of the prepared partition.

    Attributes:
        batch_size: training nodes of a step, whose neighbourhood is sampled; null: each step uses the whole graph.
        neighbours: largest number of a node's neighbours in a sampled step; null: all.
    """

    needs_labels: ClassVar[bool] = True
    classifies_nodes: ClassVar[bool] = True
    client_figures: ClassVar[tuple[str, ...]] = (
        "test.macro_f1",
        "test.balanced_accuracy",
        "test.majority",
        "test.one_class",
    )
    metric_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    name: Literal["node_classification"]
    batch_size: int | None = Field(default=None, ge=1)
    neighbours: int | None = Field(default=20, ge=1)

    @property
    def metric(self) -> str:
        """``accuracy``."""
        return "accuracy"

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
        return NodeExamples(graphs, device)


class NodeExamples:
    """Labels of C clients' nodes, each client padded to the largest.

    Attributes:
        labels: [C, width], 0 at padding.
        members: one [C, width] a role (train, validation, test): 1.0 at the role's nodes, else 0.
    """

    def __init__(self, graphs: Sequence[ClientGraph], device: torch.device) -> None:
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
        """Accuracy on validation and on test nodes, [C] each."""
        correct = (outputs.argmax(-1) == self.labels).to(torch.float32)
        return self.mean(correct, VALIDATION), self.mean(correct, TEST)

    def figures(self, outputs: Tensor) -> dict[str, Tensor]:
        """Figures of each client's test nodes that complement accuracy.

        Args:
            outputs: of the model, [C, width, classes].

        Returns:
            [C] each, NaN where a client has no test node. ``test.macro_f1`` is the mean F1 over the classes among test
            labels or predictions, ``test.balanced_accuracy`` the mean recall over those among test labels; both are
            scikit-learn's. ``test.majority`` is the accuracy of always predicting the class that most of the client's
            training nodes have, the lowest of equals. ``test.one_class`` is 1 where the model predicts a single class
            for all test nodes though they have several labels, else 0.
        """
        test = self._test_nodes
        predicted = outputs.flatten(0, 1)[test.rows].argmax(-1).cpu().numpy()
        cells = test.offsets + predicted  # From here on numbers are few, and NumPy is quicker than PyTorch.
        told, right = test.count(cells), test.count(cells[predicted == test.labels])
        either = test.labelled + told
        found = {
            "test.macro_f1": (2 * right / np.maximum(either, 1)).sum(1) / np.maximum((either > 0).sum(1), 1),
            "test.balanced_accuracy": (right / np.maximum(test.labelled, 1)).sum(1) / np.maximum(test.num_labels, 1),
            "test.majority": test.majority,
            "test.one_class": ((told > 0).sum(1) == 1) & (test.num_labels > 1),
        }
        return {name: torch.from_numpy((values + test.blank).astype(np.float32)) for name, values in found.items()}

    @cached_property
    def _test_nodes(self) -> _TestNodes:
        labels, (train, _, test) = self.labels.cpu().numpy(), (members.cpu().numpy() > 0 for members in self.members)
        return _TestNodes(labels, train, test, self._num_classes, self.labels.device)


class _TestNodes:
    """The T test nodes of C clients, of K classes.

    Attributes:
        rows: of outputs [C * width, K], int64 [T], on the outputs' device.
        offsets: beginning of the counts of a node's client among all clients' [C * K], int64 [T].
        labels: int64 [T].
        labelled: number of each client's test nodes with each label, int64 [C, K].
        num_labels: number of labels of each client's test nodes, int64 [C].
        majority: the share of each client's test nodes that have its most frequent training label [C].
        blank: added to a client's figures [C]: 0, or NaN where it has no test node.
    """

    def __init__(
        self, labels: np.ndarray, train: np.ndarray, test: np.ndarray, num_classes: int, device: torch.device
    ) -> None:
        self._shape = (len(labels), num_classes)
        self.rows = torch.from_numpy(np.flatnonzero(test)).to(device)
        self.offsets = np.nonzero(test)[0] * num_classes
        self.labels = labels[test]
        self.labelled = self.count(self.offsets + self.labels)
        self.num_labels = (self.labelled > 0).sum(1)
        most = self.count(np.nonzero(train)[0] * num_classes + labels[train]).argmax(1)  # the lowest of equals
        self.majority = self.labelled[np.arange(len(labels)), most] / np.maximum(self.labelled.sum(1), 1)
        self.blank = np.where(self.num_labels > 0, 0.0, np.nan)

    def count(self, cells: np.ndarray) -> np.ndarray:
        """Counts of each class of each client, int64 [C, K], in cells k + K * client of any number."""
        num_clients, num_classes = self._shape
        return np.bincount(cells, minlength=num_clients * num_classes).reshape(self._shape)
