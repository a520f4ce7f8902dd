r"""The graph isomorphism network, over stacked parameters (Xu et al., "How powerful are graph neural networks?", ICLR
2019, eq. 4.1).

A convolution is a perceptron of one hidden layer over the sum of a node's neighbours and the node itself,

.. math:: \mathrm{conv}(H) = \mathrm{relu}((A H + (1 + \epsilon) H) W + b) W' + b'.

The sum is linear, so that H W is computed first and summed over neighbours afterwards. The paper's perceptrons also
have batch norms. Their running means would stay with each client, and they are left out here. Neighbours count alike:
edge weights are not read.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.settings import GINSettings
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.subgraphs.models.stacked_gnn import CONVOLUTION, StackedGNN, input_product, propagate


class StackedGIN(StackedGNN):
    """A graph isomorphism network for C clients at once."""

    settings: GINSettings
    feature_rows = f"{CONVOLUTION}1.weight"

    @classmethod
    def reads_edge_weights(cls, settings: Any) -> bool:
        """False: sums are over neighbours, not over weights."""
        return False

    def convolution_shapes(self, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """Both layers of the perceptron, and ε where it is trained."""
        shapes: dict[str, tuple[int, ...]] = {"weight": (width, hidden), "bias": (hidden,)}
        shapes |= {"outer.weight": (hidden, hidden), "outer.bias": (hidden,)}
        return {**shapes, "eps": (1,)} if self.settings.train_eps else shapes

    @property
    def propagations(self) -> int:
        """As many as layers: the first one's sum depends on ε."""
        return self.settings.layers

    @property
    def propagations_beforehand(self) -> int:
        """None."""
        return 0

    def initial(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Initial parameters of one client: PyTorch's ``Linear``, and the settings' ε."""
        eps = np.float32(self.settings.eps)
        return {name: value + eps if name.endswith(".eps") else value for name, value in super().initial(rng).items()}

    def initial_bound(self, name: str) -> float:
        """1/sqrt(fan in) for all linear maps; 0 for what is added to ε."""
        return 0.0 if name.endswith(".eps") else self.linear_bound(name)

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """A, and X."""
        ones = np.ones(graph.edge_index.shape[1], dtype=np.float32)
        shape = (graph.num_nodes, graph.num_nodes)
        return scipy.sparse.coo_array((ones, tuple(graph.edge_index)), shape=shape).tocsr(), graph.features

    def convolved(self, name: str, parameters: Parameters, chunk: StackedChunk, hidden: Tensor) -> Tensor:
        """The output [C, width, hidden] of a convolution, before the ReLU after it."""
        hidden = self.convolve(chunk.adjacency, hidden, parameters[f"{name}.weight"])
        return self._summed(name, parameters, chunk, hidden)

    def first_of(self, stem: str, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """The output [C, width, hidden] of the first convolution, before the ReLU after it."""
        return self._summed(f"{stem}1", parameters, chunk, input_product(chunk, parameters[f"{stem}1.weight"]))

    def _summed(self, name: str, parameters: Parameters, chunk: StackedChunk, transformed: Tensor) -> Tensor:
        """The perceptron's output [C, width, hidden] of H W [C, width, hidden]."""
        eps = parameters[f"{name}.eps"].unsqueeze(2) if self.settings.train_eps else self.settings.eps
        total = propagate(chunk.adjacency, transformed) + (1 + eps) * transformed
        inner = torch.relu(total + parameters[f"{name}.bias"].unsqueeze(1))
        return torch.baddbmm(parameters[f"{name}.outer.bias"].unsqueeze(1), inner, parameters[f"{name}.outer.weight"])
