r"""A deep GCN with initial residual and identity mapping, over stacked parameters (Chen et al., "Simple and deep graph
convolutional networks", ICML 2020, eq. 5).

A linear map makes the first hidden layer :math:`H^{(0)}` of the features. With Â as in a GCN, weighted where edges have
weights, the convolution of layer l is

.. math:: P = (1 - \alpha) \hat A H^{(l-1)} + \alpha H^{(0)}, \quad
          \mathrm{conv}_l = (1 - \beta_l) P + \beta_l P W_l, \quad \beta_l = \log(\theta / l + 1).

ReLU and dropout follow each of them and the linear map, as in the other networks, and a linear classifier is last.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.settings import GCNIISettings
from subfl_flower.models.sparse import normalised_adjacency
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.subgraphs.models.stacked_gnn import CONVOLUTION, StackedGNN, input_product, propagate

INPUT = "input"
"""Beginning of the names of the first linear map."""


class StackedGCNII(StackedGNN):
    """A deep GCN for C clients at once."""

    settings: GCNIISettings
    feature_rows = input_rows = f"{INPUT}.weight"

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """The linear map, a square weight for each convolution, and the classifier."""
        hidden = self.settings.hidden
        layers = range(1, self.settings.layers + 1)
        shapes: dict[str, tuple[int, ...]] = {
            f"{INPUT}.weight": (self.num_features, hidden),
            f"{INPUT}.bias": (hidden,),
            **{f"{CONVOLUTION}{layer}.weight": (hidden, hidden) for layer in layers},
        }
        return {**shapes, **self.classifier_shapes(hidden)}

    @property
    def propagations(self) -> int:
        """As many as layers."""
        return self.settings.layers

    @property
    def propagations_beforehand(self) -> int:
        """None."""
        return 0

    @property
    def dropout_layers(self) -> int:
        """The linear map, and all convolutions."""
        return self.settings.layers + 1

    def initial_bound(self, name: str) -> float:
        """Glorot's for convolutions, 1/sqrt(fan in) for both linear maps."""
        return self.glorot_bound(name) if name.startswith(CONVOLUTION) else self.linear_bound(name)

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """Â, and X."""
        return normalised_adjacency(graph.edge_index, graph.num_nodes, graph.edge_weight), graph.features

    def activated(self, hidden: Tensor, layer: int, dropout: Sequence[Tensor] | None) -> Tensor:
        """A layer's output after its ReLU and dropout; layer 0 is the linear map."""
        hidden = self.activate(hidden)
        return hidden if dropout is None else hidden * dropout[layer]

    def last_convolution(
        self, stem: str, parameters: Parameters, chunk: StackedChunk, dropout: Sequence[Tensor] | None
    ) -> Tensor:
        """The output [C, width, hidden] of the last convolution, before its ReLU."""
        settings = self.settings
        found = input_product(chunk, parameters[f"{INPUT}.weight"], parameters[f"{INPUT}.bias"])
        first = hidden = self.activated(found, 0, dropout)
        for layer in range(1, settings.layers + 1):
            if layer > 1:
                hidden = self.activated(found, layer - 1, dropout)
            mixed = (1 - settings.alpha) * propagate(chunk.adjacency, hidden) + settings.alpha * first
            beta = math.log(settings.theta / layer + 1)
            found = torch.baddbmm(mixed, mixed, parameters[f"{stem}{layer}.weight"], beta=1 - beta, alpha=beta)
        return found
