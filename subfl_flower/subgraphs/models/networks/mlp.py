r"""A perceptron over each node's own features, over stacked parameters: what a client learns without its edges.

.. math:: H^{(l)} = \mathrm{dropout}(\mathrm{relu}(H^{(l-1)} W_l + b_l)), \quad \mathrm{output} = H^{(L)} W + b.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.subgraphs.models.stacked_gnn import CONVOLUTION, StackedGNN


class StackedMLP(StackedGNN):
    """A perceptron for C clients at once."""

    feature_rows = f"{CONVOLUTION}1.weight"

    @classmethod
    def reads_edge_weights(cls, settings: Any) -> bool:
        """False: it reads no edges."""
        return False

    @property
    def propagations(self) -> int:
        """None."""
        return 0

    @property
    def propagations_beforehand(self) -> int:
        """None."""
        return 0

    def initial_bound(self, name: str) -> float:
        """1/sqrt(fan in), PyTorch's ``Linear``."""
        return self.linear_bound(name)

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """A matrix without entries, and X."""
        return scipy.sparse.csr_array((graph.num_nodes, graph.num_nodes), dtype=np.float32), graph.features
