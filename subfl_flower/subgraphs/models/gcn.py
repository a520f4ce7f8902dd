r"""The GCN of the subgraph methods, over stacked parameters.

With Â the normalised adjacency (Kipf and Welling, 2017), weighted where edges have weights, a convolution is

.. math:: \mathrm{conv}(H) = \hat A H W + b;

Two of width 128 and a linear classifier are the architecture of FED-PUB (Baek et al., ICML 2023, App. B.1).
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.sparse import SparseMatrix, normalised_adjacency
from subfl_flower.subgraphs.models.convolution_probe import ConvolutionProbe
from subfl_flower.subgraphs.models.graph_network import Probe
from subfl_flower.subgraphs.models.stacked_gnn import CONVOLUTION, StackedGNN, propagate


class StackedGCN(StackedGNN):
    """A GCN for C clients at once."""

    feature_rows = f"{CONVOLUTION}1.weight"

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """Â, and Â X."""
        operator = normalised_adjacency(graph.edge_index, graph.num_nodes, graph.edge_weight)
        sparse = scipy.sparse.issparse(graph.features)
        return operator, operator @ (scipy.sparse.csr_array(graph.features) if sparse else graph.features)

    def convolve(self, adjacency: SparseMatrix, hidden: Tensor, weight: Tensor) -> Tensor:
        """Â (H W)."""
        return propagate(adjacency, torch.bmm(hidden, weight))

    def probe(self, edge_index: np.ndarray, features: np.ndarray, device: torch.device | str = "cpu") -> Probe:
        """Prepare a random graph on which a GCN's mean is cheaper than its outputs."""
        return ConvolutionProbe(edge_index, features, device)
