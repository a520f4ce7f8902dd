"""The oracle's side of the clients: the whole graph in one place, measured on each client's own nodes.

One model is trained on the graph that the clients' subgraphs were cut from, with the edges that no client has. Its
outputs at a client's nodes are judged as if the client had made them. Every node of a simulation trains that same
model, from the same random numbers, and measures the clients that it hosts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clients.subgraph import SubgraphClient
from subfl_flower.models.chunk import GraphChunk
from subfl_flower.models.stacked_gnn import Parameters
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.runtime.state import CohortState
from subfl_flower.tasks import Examples

_CENTRAL = -1
"""The id that the central model's random numbers are drawn under; no client has it."""


class OracleClient(SubgraphClient):
    """Trains one central model; its `hosted` clients are only measured."""

    def __init__(self, cohort: Cohort, **rest: Any) -> None:
        self.hosted = cohort
        super().__init__(replace(cohort, graphs=(cohort.whole_graph(_CENTRAL, "the oracle"),)), **rest)

    def own_parameters(self) -> tuple[str, ...]:
        """All: nothing travels, and the central model is personal to its one-member cohort."""
        return tuple(self.model.shapes)

    def fit(
        self, parameters: list[np.ndarray], config: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """One round of central training; the metrics are the hosted clients' [hosted]."""
        state = self.store.open(self.cohort.client_ids, self._state_shapes)
        metrics = dict(self._train_chunk([0], {}, state, config).metrics)
        self.store.commit(state)
        hosted = self.hosted.client_ids
        metrics["train_loss"] = np.repeat(metrics["train_loss"], len(hosted))
        metrics["num_examples"] = np.array(self.hosted.num_examples)
        chosen = [hosted.index(client_id) for client_id in config["clients"]]
        merged: dict[str, Any] = {name: values[chosen].tolist() for name, values in metrics.items()}
        return [], sum(merged["num_examples"]), {**merged, "clients": list(config["clients"]), "failures": "{}"}

    def best_models(self) -> dict[int, dict[str, np.ndarray]]:
        """The central model at each hosted client's best validation round."""
        return self._models_in(self._best_of_hosted())

    def mended(self, client_id: int) -> bool:
        """The central model's graph is the whole one."""
        return True

    def best_validation(self) -> dict[int, float]:
        """The validation figure of each hosted client's best model."""
        return self._validation_in(self._best_of_hosted())

    def _best_of_hosted(self) -> CohortState:
        return self.store.open(self.hosted.client_ids, self._best_shapes)

    def _keep_best(
        self, state: CohortState, positions: Sequence[int], effective: Parameters, validation: Tensor
    ) -> None:
        hosted = range(len(self.hosted.graphs))
        best = self._best_of_hosted()
        everyones = {name: value.expand(len(hosted), *value.shape[1:]) for name, value in effective.items()}
        super()._keep_best(best, hosted, everyones, validation)
        self.store.commit(best)

    def _outputs(self, effective: Parameters, chunk: GraphChunk) -> Tensor:
        """The central model's outputs at the hosted clients' nodes [hosted, width, outputs]."""
        return super()._outputs(effective, chunk)[0][self._nodes]

    def _held_out(self, positions: Sequence[int]) -> Examples:
        """The hosted clients' examples."""
        return self.hosted.examples(range(len(self.hosted.graphs)))

    @cached_property
    def _nodes(self) -> Tensor:
        """Global ids of the hosted clients' nodes, padded with zeros: [hosted, width]."""
        graphs = self.hosted.graphs
        nodes = np.zeros((len(graphs), max(graph.num_nodes for graph in graphs)), dtype=np.int64)
        for row, graph in enumerate(graphs):
            nodes[row, : graph.num_nodes] = graph.node_ids
        return torch.from_numpy(nodes).to(self.cohort.device)
