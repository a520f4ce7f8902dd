"""Predictions of a model that classifies nodes, with the source's names of nodes and classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from subfl_flower.data.description import class_names
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.models.exported import ModelCard

_MOST_NAMES = 10


@dataclass(frozen=True, eq=False)
class NodePredictions:
    """Predictions for the nodes of one graph.

    Attributes:
        names: names of the nodes, `[nodes]`.
        classes: names of the model's classes.
        predicted: int64 `[nodes]`, the number of each node's most probable class.
        probabilities: float32 `[nodes, classes]`.
        labels: int64 `[nodes]`, the true classes by the model's numbers, -1 where there is none; None without labels.
    """

    names: np.ndarray
    classes: tuple[str, ...]
    predicted: np.ndarray
    probabilities: np.ndarray
    labels: np.ndarray | None

    @property
    def right(self) -> np.ndarray | None:
        """Correct predictions, bool `[nodes]`, false for nodes without a label; None without labels."""
        return None if self.labels is None else self.predicted == self.labels

    def columns(self, of_each_class: bool) -> dict[str, Iterable[object]]:
        """Columns of a table by name; each can be iterated once.

        They are `node`, `prediction` and `probability`; with `of_each_class` also `p_NAME`, the probability of each
        class; and `label` where there are labels.
        """
        found: dict[str, Iterable[object]] = {
            "node": self.names.tolist(),
            "prediction": [self.classes[number] for number in self.predicted.tolist()],
            "probability": map("{:.6f}".format, self.probabilities.max(axis=1)),
        }
        if of_each_class:
            for number, name in enumerate(self.classes):
                found[f"p_{name}"] = map("{:.6f}".format, self.probabilities[:, number])
        if self.labels is not None:
            found["label"] = ["" if number < 0 else self.classes[number] for number in self.labels.tolist()]
        return found


@torch.no_grad()
def model_outputs(parameters: dict[str, np.ndarray], card: ModelCard, graph: ClientGraph) -> torch.Tensor:
    """A model's outputs for every node of a graph, float32 `[nodes, outputs]`, without dropout."""
    stacked = {name: torch.from_numpy(values).unsqueeze(0) for name, values in parameters.items()}
    network = card.gnn
    return network(stacked, network.chunk([graph]))[0]


def node_predictions(
    outputs: torch.Tensor, card: ModelCard, names: np.ndarray, labels: np.ndarray | None
) -> NodePredictions:
    """Predictions from a model's outputs, one for each class."""
    probabilities = torch.softmax(outputs, dim=1).numpy()
    return NodePredictions(names, classes_of(card), outputs.argmax(dim=1).numpy(), probabilities, labels)


def classes_of(card: ModelCard) -> tuple[str, ...]:
    """The names of a model's classes; their numbers where the data set had no names."""
    return class_names(card.num_classes, card.classes)


def labels_as_trained(
    labels: np.ndarray | None, names: Sequence[str], card: ModelCard, source: str
) -> np.ndarray | None:
    """Labels by the model's class numbers, found by name.

    Args:
        labels: int64 `[nodes]`, -1 where there is none; None without labels.
        names: names of the classes that `labels` number.
        card: card of the model.
        source: begin of an error.

    Raises:
        SubflError: a label is none of the model's classes.
    """
    if labels is None:
        return None
    known = {name: number for number, name in enumerate(classes_of(card))}
    found = [names[number] for number in np.unique(labels[labels >= 0]).tolist()]
    if strange := [name for name in found if name not in known]:
        is_none = "class {} is none" if len(strange) == 1 else "classes {} are none"
        raise SubflError(
            f"{source}: {is_none.format(_listed(strange))} of the model's classes ({_listed(list(known))})"
        )
    numbers = np.array([*(known.get(name, -1) for name in names), -1], dtype=np.int64)
    return numbers[labels]


def _listed(names: Sequence[str]) -> str:
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join([*names[:_MOST_NAMES], *more])
