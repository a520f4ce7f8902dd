"""Clients of FedAvg of which one, that of the smallest id, sends what it likes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.wire.batch import Batch, Result

HOSTILE = 0
"""Id of the hostile client."""


class ScaledUpdates(SubgraphClient):
    """The hostile client sends its update times a factor; the others are honest."""

    class Settings(FedAvg.Settings):
        """Knob of the attack.

        Attributes:
            factor: what the update is multiplied by.
        """

        factor: float = 1.0

    def train_chunk(self, batch: Batch, state: Any) -> Result:
        """Train as everyone does, then scale the update of the hostile client."""
        result = super().train_chunk(batch, state)
        factor: Any = self.run.settings.factor
        if HOSTILE in result.clients:
            place = result.clients.index(HOSTILE)
            for name, received in batch.take([place]).stack.items():
                values = np.array(result.arrays[name])
                values[place] = received[0] + factor * (values[place] - received[0])
                result.arrays[name] = values
        return result


class FlippedLabels(SubgraphClient):
    """The hostile client trains on labels in reverse order of the classes; its figures are of the right ones."""

    Settings = FedAvg.Settings

    def __init__(self, run: Any, cohort: Any, *rest: Any) -> None:
        graphs = tuple(flipped(graph) if graph.client_id == HOSTILE else graph for graph in cohort.graphs)
        super().__init__(run, replace(cohort, graphs=graphs), *rest)


def flipped(graph: ClientGraph) -> ClientGraph:
    """The graph with reversed labels of training nodes."""
    assert graph.labels is not None, "nodes have classes"
    labels = np.where(graph.roles == TRAIN, graph.num_classes - 1 - graph.labels, graph.labels)
    return replace(graph, labels=labels.astype(graph.labels.dtype))
