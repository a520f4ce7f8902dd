r"""Graph attention, over stacked parameters (Veličković et al., "Graph attention networks", ICLR 2018).

With z = H W, a head k of width d, and an edge from every node to itself, a convolution is the concatenation over heads
of (eqs. 1 to 5)

.. math:: e_{ij} = \mathrm{LeakyReLU}(a_{src}^T z_j + a_{dst}^T z_i), \quad
          \alpha_{ij} = \mathrm{softmax}_j(e_{ij}), \quad
          \mathrm{conv}(H)_i = \sum_j \alpha_{ij} z_j + b,

followed by an ELU. The paper's vector a is here in two halves, as in PyG's ``GATConv``. Attention reads no edge
weights.

Scores are computed less the largest one of their node i, which does not change the softmax. Where all scores of a node
have one sign, :math:`a_{dst}` has no effect on it, and so computed it has a gradient of exactly zero. A sum of
gradients that only nearly cancel would be rounding alone, of which Adam makes whole steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.edge_list import EdgeList
from subfl_flower.models.settings import GATSettings
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.subgraphs.models.stacked_gnn import CONVOLUTION, StackedGNN, input_product, multipliers


class StackedGAT(StackedGNN):
    """Graph attention for C clients at once."""

    settings: GATSettings
    feature_rows = f"{CONVOLUTION}1.weight"
    rescales = False

    @classmethod
    def reads_edge_weights(cls, settings: Any) -> bool:
        """False: attention takes the place of weights."""
        return False

    def convolution_shapes(self, width: int, hidden: int) -> dict[str, tuple[int, ...]]:
        """The weight, both halves of the attention vectors of all heads, and the bias."""
        return {"weight": (width, hidden), "att_src": (hidden,), "att_dst": (hidden,), "bias": (hidden,)}

    @property
    def propagations(self) -> int:
        """As many as layers: attention depends on parameters."""
        return self.settings.layers

    @property
    def propagations_beforehand(self) -> int:
        """None."""
        return 0

    def initial_bound(self, name: str) -> float:
        """As of any convolution; attention vectors are Glorot-uniform over heads and their width, as PyG's are."""
        heads = self.settings.heads
        if ".att_" in name:
            return float((6.0 / (heads + self.settings.hidden // heads)) ** 0.5)
        return super().initial_bound(name)

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """Ones where a node hears another or itself, and X."""
        different = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
        loops = np.arange(graph.num_nodes)
        ends = tuple(np.concatenate([end, loops]) for end in different)
        ones = np.ones(len(ends[0]), dtype=np.float32)
        operator = scipy.sparse.coo_array((ones, ends), shape=(graph.num_nodes, graph.num_nodes)).tocsr()
        return operator, graph.features

    def stacked(self, graphs: Sequence[LocalGraph], device: torch.device | str = "cpu") -> StackedChunk:
        """A chunk of clients' graphs as one block-diagonal graph, with its edges one by one."""
        chunk = super().stacked(graphs, device)
        return replace(chunk, edges=EdgeList([graph.operator for graph in graphs], chunk.width, device))

    def training_draws(
        self, chunk: StackedChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> list[Tensor] | None:
        """Dropout multipliers of each layer, then of each layer's attention [E, heads]; None without dropout."""
        settings = self.settings
        if not settings.attention_dropout:
            return super().training_draws(chunk, generators, device)
        masks = self.dropout_masks(chunk, generators, device)
        assert chunk.edges is not None
        drawn = [
            multipliers(generator, (settings.layers, count, settings.heads), settings.attention_dropout)
            for count, generator in zip(chunk.edges.counts, generators, strict=True)
        ]
        return [*masks, *torch.from_numpy(np.concatenate(drawn, axis=1)).to(device)]

    def last_convolution(
        self, stem: str, parameters: Parameters, chunk: StackedChunk, dropout: Sequence[Tensor] | None
    ) -> Tensor:
        """The output [C, width, hidden] of the last convolution, before its ELU."""
        layers = self.settings.layers
        kept = [None] * layers if dropout is None or len(dropout) == layers else dropout[layers:]
        hidden = input_product(chunk, parameters[f"{stem}1.weight"])
        hidden = self._attended(f"{stem}1", parameters, chunk, hidden, kept[0])
        for layer in range(2, layers + 1):
            hidden = self.activated(hidden, layer - 1, dropout)
            hidden = self.convolve(chunk.adjacency, hidden, parameters[f"{stem}{layer}.weight"])
            hidden = self._attended(f"{stem}{layer}", parameters, chunk, hidden, kept[layer - 1])
        return hidden

    def activate(self, hidden: Tensor) -> Tensor:
        """ELU, as in the paper's section 3.3."""
        return torch.nn.functional.elu(hidden)

    def _attended(
        self, name: str, parameters: Parameters, chunk: StackedChunk, transformed: Tensor, kept: Tensor | None
    ) -> Tensor:
        """Sums of z [C, width, hidden] over neighbours, weighted by attention, and the bias.

        Args:
            name: of the layer.
            parameters: stacked.
            chunk: the clients' graphs.
            transformed: z.
            kept: dropout of the attention coefficients [E, heads].
        """
        edges, heads = chunk.edges, self.settings.heads
        assert edges is not None
        clients, width, hidden = transformed.shape

        def scored(vector: str) -> Tensor:
            products = transformed * parameters[f"{name}.{vector}"].unsqueeze(1)
            return products.view(clients * width, heads, -1).sum(2)

        def leaky(values: Tensor) -> Tensor:
            return torch.nn.functional.leaky_relu(values, self.settings.negative_slope)

        of_sources, of_targets = edges.at_sources(scored("att_src")), edges.at_targets(scored("att_dst"))
        scores = leaky(of_sources + of_targets) - leaky(edges.largest(of_sources) + of_targets)
        attention = edges.softmax(scores)
        if kept is not None:
            attention = attention * kept
        messages = edges.at_sources(transformed.reshape(clients * width, hidden)).view(-1, heads, hidden // heads)
        summed = edges.summed((messages * attention.unsqueeze(2)).view(-1, hidden))
        return summed.view(clients, width, hidden) + parameters[f"{name}.bias"].unsqueeze(1)
