r"""Predictions that are propagated by personalised PageRank, over stacked parameters (Gasteiger, Bojchevski and
Günnemann, "Predict then propagate: graph neural networks meet personalized PageRank", ICLR 2019, eq. 4).

A perceptron f makes a prediction of each node from the node's own features. With Â as in a GCN, weighted where edges
have weights, they are propagated K times,

.. math:: Z^{(0)} = f(X), \quad Z^{(k+1)} = (1 - \alpha) \hat A Z^{(k)} + \alpha Z^{(0)}, \quad
          \mathrm{output} = Z^{(K)}.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import scipy.sparse
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.settings import APPNPSettings
from subfl_flower.models.sparse import normalised_adjacency
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.subgraphs.models.networks.mlp import StackedMLP
from subfl_flower.subgraphs.models.stacked_gnn import propagate


class StackedAPPNP(StackedMLP):
    """A perceptron whose predictions are propagated, for C clients at once."""

    settings: APPNPSettings

    @classmethod
    def reads_edge_weights(cls, settings: Any) -> bool:
        """True where it propagates."""
        return bool(settings.hops)

    @property
    def propagations(self) -> int:
        """K."""
        return self.settings.hops

    @property
    def embedding_width(self) -> int:
        """Width of the outputs."""
        return self.num_outputs

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """Â, and X."""
        return normalised_adjacency(graph.edge_index, graph.num_nodes, graph.edge_weight), graph.features

    def __call__(self, parameters: Parameters, chunk: StackedChunk, draws: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs [C, own width, num_outputs] of clients' own nodes."""
        return self._predictions(parameters, chunk, draws)[:, : chunk.own_width]

    def embedding(self, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """Mean over nodes of the outputs, the only values that are propagated."""
        return self._predictions(parameters, chunk, None).mean(1)

    def _predictions(self, parameters: Parameters, chunk: StackedChunk, draws: Sequence[Tensor] | None) -> Tensor:
        """Outputs [C, width, num_outputs] of all nodes."""
        alpha = self.settings.alpha
        first = found = self.classified(parameters, self._extracted(parameters, chunk, draws))
        for _ in range(self.settings.hops):
            found = (1 - alpha) * propagate(chunk.adjacency, found) + alpha * first
        return found
