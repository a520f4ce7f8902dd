r"""A network that learns from features and from topology separately, over stacked parameters.

It has two GCNs of the same depth and width. The feature extractor, ``conv1``, ``conv2``, ..., is that of `StackedGCN`.
The topology extractor, ``topology1``, ``topology2``, ..., propagates over the same edges, but its input is a structural
encoding S of the nodes (`structure_encoding`), which no feature enters. Where edges have weights, both extractors
propagate by them; S depends only on which nodes are joined. A linear classifier reads both,

.. math:: \mathrm{output} = [H_{feature} \,\Vert\, H_{topology}] W + b,

the first half of the rows of W being for features.

This is our reading of the architecture of FedSG (Wang et al., "FedSG: a personalized subgraph federated learning
framework on multiple non-IID graphs", IEEE TETCI 2024), of which only a description is public: the topology extractor
and the feature extractor have separate parameters.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import DecoupledSettings
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.subgraphs.models.graph_network import ForwardProbe, Parameters
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.subgraphs.models.structure_encoding import structure_encoding

TOPOLOGY = "topology"
"""Beginning of the names of the topology extractor's layers, followed by the layer's number."""


class StackedDecoupled(StackedGCN):
    """A feature extractor and a topology extractor for C clients at once."""

    settings: DecoupledSettings

    @property
    def extractors(self) -> dict[str, int]:
        """Input widths: of features, and of the structural encoding."""
        return {**super().extractors, TOPOLOGY: self.settings.encoding}

    def local_graph(self, graph: ClientGraph, num_own: int | None = None) -> LocalGraph:
        """Â, Â X, and Â S; nodes that are not the client's own are part of the structure."""
        local = super().local_graph(graph, num_own)
        encoding = structure_encoding(graph.edge_index, graph.num_nodes, self.settings.encoding)
        return replace(local, structure=local.operator @ encoding)

    def probe(self, edge_index: np.ndarray, features: np.ndarray, device: torch.device | str = "cpu") -> ForwardProbe:
        """Prepare a random graph whose nodes have features and a structural encoding."""
        return ForwardProbe(self, edge_index, features, device)

    def first_of(self, stem: str, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """The output [C, width, hidden] of an extractor's first convolution, before its ReLU."""
        if stem != TOPOLOGY:
            return super().first_of(stem, parameters, chunk)
        assert chunk.structure is not None
        weight, bias = parameters[f"{TOPOLOGY}1.weight"], parameters[f"{TOPOLOGY}1.bias"]
        return torch.baddbmm(bias.unsqueeze(1), chunk.structure, weight)
