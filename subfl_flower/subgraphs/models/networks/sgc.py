r"""A linear classifier of propagated features, over stacked parameters (Wu et al., "Simplifying graph convolutional
networks", ICML 2019, eq. 8).

With Â as in a GCN, weighted where edges have weights,

.. math:: \mathrm{output} = \hat A^K X W + b.

Everything but the classifier is computed once, before training.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.settings import SGCSettings
from subfl_flower.models.sparse import normalised_adjacency
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.subgraphs.models.stacked_gnn import CLASSIFIER, StackedGNN, input_product


class StackedSGC(StackedGNN):
    """A linear classifier of propagated features for C clients at once."""

    settings: SGCSettings  # type: ignore[assignment]  # it has no hidden layers
    feature_rows = input_rows = f"{CLASSIFIER}.weight"

    @classmethod
    def reads_edge_weights(cls, settings: Any) -> bool:
        """True where it propagates."""
        return bool(settings.hops)

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """The classifier's."""
        return self.classifier_shapes(self.num_features)

    @property
    def propagations(self) -> int:
        """None."""
        return 0

    @property
    def propagations_beforehand(self) -> int:
        """K."""
        return self.settings.hops

    @property
    def widest(self) -> int:
        """Width of the outputs."""
        return self.num_outputs

    @property
    def embedding_width(self) -> int:
        """Width of the outputs."""
        return self.num_outputs

    def propagated(self, graph: ClientGraph) -> tuple[scipy.sparse.csr_array, FeatureMatrix]:
        """Â, and Â^K X."""
        operator = normalised_adjacency(graph.edge_index, graph.num_nodes, graph.edge_weight)
        sparse = scipy.sparse.issparse(graph.features)
        inputs = scipy.sparse.csr_array(graph.features) if sparse else graph.features
        for _ in range(self.settings.hops):
            inputs = operator @ inputs
        return operator, inputs

    def training_draws(
        self, chunk: StackedChunk, generators: Sequence[np.random.Generator], device: torch.device
    ) -> None:
        """None: it has no hidden values to drop."""
        return

    def __call__(self, parameters: Parameters, chunk: StackedChunk, draws: Sequence[Tensor] | None = None) -> Tensor:
        """Outputs [C, own width, num_outputs] of clients' own nodes."""
        return self._outputs(parameters, chunk)[:, : chunk.own_width]

    def embedding(self, parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """Mean over nodes of the outputs."""
        return self._outputs(parameters, chunk).mean(1)

    @staticmethod
    def _outputs(parameters: Parameters, chunk: StackedChunk) -> Tensor:
        """Outputs [C, width, num_outputs] of all nodes."""
        return input_product(chunk, parameters[f"{CLASSIFIER}.weight"], parameters[f"{CLASSIFIER}.bias"])
