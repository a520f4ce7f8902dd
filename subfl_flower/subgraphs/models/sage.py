r"""GraphSAGE with the mean aggregator, over stacked parameters (Hamilton, Ying and Leskovec, NeurIPS 2017).

With Ā the adjacency whose rows sum to one, weighted where edges have weights (zero for a node without neighbours), a
convolution is

.. math:: \mathrm{conv}(H) = [\bar A H \,\Vert\, H] W + b.

The first half of the rows of W is for the neighbours' mean, the second for the node itself.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.sparse import SparseMatrix, mean_adjacency
from subfl_flower.subgraphs.models.stacked_gnn import StackedGNN, propagate


class StackedSAGE(StackedGNN):
    """GraphSAGE for C clients at once."""

    symmetric = False

    def fan_in(self, width: int) -> int:
        """Twice a node's `width`: its neighbours' mean, and the node itself."""
        return 2 * width

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """Ā, and [Ā X ‖ X]."""
        operator = mean_adjacency(graph.edge_index, graph.num_nodes, graph.edge_weight)
        if not scipy.sparse.issparse(graph.features):
            return operator, np.hstack([operator @ graph.features, graph.features])
        features = scipy.sparse.csr_array(graph.features)
        return operator, scipy.sparse.csr_array(scipy.sparse.hstack([operator @ features, features]))

    def convolve(self, adjacency: SparseMatrix, hidden: Tensor, weight: Tensor) -> Tensor:
        """Ā (H W₁) + H W₂."""
        of_neighbours, of_itself = weight.chunk(2, dim=1)
        return torch.baddbmm(propagate(adjacency, torch.bmm(hidden, of_neighbours)), hidden, of_itself)
