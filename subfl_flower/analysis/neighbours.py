"""Performance of a client's model on the neighbouring client's subgraph (FED-PUB, Fig. 9)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from subfl_flower.data.graph import ClientGraph
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters
from subfl_flower.tasks.choices import GraphTask


@dataclass(frozen=True)
class NeighbourPerformance:
    """Test metrics of the clients' best models, by client id.

    Attributes:
        metric: name of the metric.
        neighbour: int [K], the client with the most edges missing to this one; -1 where none is missing.
        own: [K], on the client's own test examples; NaN where it has none. The model is that of the client's best
            validation round, so the mean may differ from the run's figure, which is of one round for all clients.
        on_neighbour: [K], on the neighbour's test examples; NaN where there is no neighbour.
    """

    metric: str
    neighbour: np.ndarray
    own: np.ndarray
    on_neighbour: np.ndarray

    @property
    def mean_own(self) -> float:
        """Mean over clients."""
        return float(pd.Series(self.own).mean())

    @property
    def mean_on_neighbour(self) -> float:
        """Mean over the clients that have a neighbour."""
        return float(pd.Series(self.on_neighbour).mean())


def neighbours(missing: np.ndarray) -> np.ndarray:
    """The client with the most edges missing to each client, int [K]; -1 where no edge is missing.

    Among equals the lower id wins. `missing` is [K, K] with zeros on the diagonal.
    """
    return np.where(missing.any(axis=1), missing.argmax(axis=1), -1)


@torch.no_grad()
def neighbour_performance(
    gnn: GraphNetwork[Any],
    models: Sequence[Parameters],
    graphs: Sequence[ClientGraph],
    neighbour: np.ndarray,
    task: GraphTask,
) -> NeighbourPerformance:
    """Measure every client's model on its own subgraph and on its neighbour's.

    Args:
        gnn: the network whose parameters the models are.
        models: by client id, each with a leading axis of one.
        graphs: by client id.
        neighbour: result of `neighbours`.
        task: selects the part of a graph that a model sees, and the metric.
    """
    own, on_neighbour = np.full((2, len(models)), np.nan)
    for client_id, graph in enumerate(graphs):
        chunk = gnn.chunk([task.visible(graph)])
        examples = task.examples([graph], torch.device("cpu"))
        for owner in (client_id, *np.flatnonzero(neighbour == client_id).tolist()):
            _, test = examples.evaluate(gnn(models[owner], chunk))
            (own if owner == client_id else on_neighbour)[owner] = float(test[0])
    return NeighbourPerformance(task.metric, neighbour, own, on_neighbour)
