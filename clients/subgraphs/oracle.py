"""The oracle's clients: one model on the whole graph, measured on each client's own nodes.

The model is trained on the graph that the clients' subgraphs were cut from, with the edges that no client has. Its
outputs at a client's nodes are measured as that client's. Every node of a simulation trains the same model, from the
same random numbers, and measures the clients that it hosts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.subgraphs.local_weights import LocalWeights
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.node.iteration import Iteration, in_chunks
from subfl_flower.node.state import CohortState, StateStore
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.stacked_gnn import Parameters
from subfl_flower.tasks.choices import Examples
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.contract import Declared, RunContext

_CENTRAL = -1
"""Client id for the central model's random numbers; no client has it."""


class OracleClient(SubgraphClient):
    """Train one central model; its `hosted` clients are only measured."""

    protects_uploads = False

    audited = False

    keeps_last = False

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """No arrays: nothing travels."""
        return {}

    def __init__(self, run: RunContext, cohort: Cohort, store: StateStore, iterate: Iteration = in_chunks) -> None:
        self.hosted = cohort
        whole = replace(cohort, graphs=(cohort.whole_graph(_CENTRAL, "the oracle"),))
        super().__init__(run, whole, store, iterate)

    def local_weights(self) -> LocalWeights:
        """Local weights in which all parameters are personal to the central model's one-member cohort."""
        return LocalWeights(self.model, self.settings, self.seed, self.cohort.device, own=tuple(self.model.shapes))

    def train(self, batch: Batch) -> Result:
        """Train the central model for one round; figures are the hosted clients'."""
        state = self.open_state()
        central = replace(batch, clients=(_CENTRAL,))
        metrics = dict(self.train_chunk(central, state).metrics)
        self.store.commit(state)
        hosted = self.hosted.client_ids
        metrics["train_loss"] = np.repeat(metrics["train_loss"], len(hosted))
        metrics["num_examples"] = np.array(self.hosted.num_examples)
        chosen = [hosted.index(client_id) for client_id in batch.clients]
        return Result(batch.clients, metrics={name: values[chosen] for name, values in metrics.items()})

    def mended(self, client_id: int) -> bool:
        """True: the central model's graph is the whole one."""
        return True

    def best_state(self) -> CohortState:
        """The state that holds the central model at each hosted client's best validation round."""
        return self.store.open(self.hosted.client_ids, self._best_shapes)

    def all_states(self) -> list[CohortState]:
        """The state of the central model, and its best versions."""
        return [self.open_state(), self.best_state()]

    def keep_best(
        self, state: CohortState, positions: Sequence[int], effective: Parameters, validation: Tensor
    ) -> None:
        """Remember the central model for the hosted clients whose validation figure is a new maximum."""
        hosted = range(len(self.hosted.graphs))
        best = self.best_state()
        everyones = {name: value.expand(len(hosted), *value.shape[1:]) for name, value in effective.items()}
        super().keep_best(best, hosted, everyones, validation)
        self.store.commit(best)

    def outputs(self, effective: Parameters, chunk: GraphChunk) -> Tensor:
        """The central model's outputs at the hosted clients' nodes [hosted, width, outputs]."""
        return super().outputs(effective, chunk)[0][self._nodes]

    def held_out(self, positions: Sequence[int]) -> Examples:
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
