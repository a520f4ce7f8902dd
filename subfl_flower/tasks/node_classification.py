"""Node classification: cross-entropy on the training nodes, accuracy on the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.tasks.settings import GraphTask


class NodeClassification(GraphTask):
    """Every node has one class; its role (train, validation, test) is part of the prepared partition."""

    needs_labels: ClassVar[bool] = True
    name: Literal["node_classification"]

    @property
    def metric(self) -> str:
        """``accuracy``."""
        return "accuracy"

    def num_outputs(self, num_classes: int) -> int:
        """One logit a class."""
        return num_classes

    def visible(self, graph: ClientGraph) -> ClientGraph:
        """All of it: features and edges of validation and test nodes are known, their labels are not used."""
        return graph

    def num_examples(self, graph: ClientGraph) -> int:
        """Training nodes."""
        if not graph.num_train:
            raise SubflError(f"client {graph.client_id} has no training node")
        return graph.num_train

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
        """Each client's mean of `values` [C, width] over its nodes of a role: [C], not a number where it has none."""
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
