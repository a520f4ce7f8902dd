"""A chunk: some clients' graphs as one block-diagonal graph, prepared once for every step that follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import TRAIN, ClientGraph, FeatureMatrix
from subfl_flower.models.sparse import SparseMatrix, block_diagonal, normalised_adjacency


@dataclass(frozen=True)
class GraphChunk:
    """C clients' graphs, each padded to `width` nodes; node k of client c is row ``c * width + k``.

    Attributes:
        client_ids: the C client ids.
        num_nodes: nodes of each client, without padding.
        width: nodes of the largest client.
        adjacency: Â, block-diagonal [C·width, C·width].
        inputs: Â X, the first layer's constant half: block-diagonal sparse [C·width, C·features], or dense
            [C, width, features].
        feature_support: bool [C, features], the features that a client's nodes have anywhere.
    """

    client_ids: tuple[int, ...]
    num_nodes: tuple[int, ...]
    width: int
    adjacency: SparseMatrix
    inputs: SparseMatrix | Tensor
    feature_support: Tensor

    def __len__(self) -> int:
        """The number of clients."""
        return len(self.client_ids)

    @classmethod
    def build(cls, graphs: Sequence[ClientGraph], device: torch.device | str = "cpu") -> GraphChunk:
        """Stack clients' graphs.

        All must have the same feature width; they stay sparse if all clients' features are.
        """
        device = torch.device(device)
        width = max(graph.num_nodes for graph in graphs)
        num_features = graphs[0].num_features
        operators = [normalised_adjacency(graph.edge_index, graph.num_nodes) for graph in graphs]
        inputs: SparseMatrix | Tensor
        if all(scipy.sparse.issparse(graph.features) for graph in graphs):
            aggregated = [
                scipy.sparse.csr_array(operator @ scipy.sparse.csr_array(graph.features))
                for operator, graph in zip(operators, graphs, strict=True)
            ]
            inputs = SparseMatrix(block_diagonal(aggregated, (width, num_features)), device)
        else:
            dense = np.zeros((len(graphs), width, num_features), dtype=np.float32)
            for c, (operator, graph) in enumerate(zip(operators, graphs, strict=True)):
                aggregate = operator @ graph.features
                dense[c, : graph.num_nodes] = aggregate.toarray() if scipy.sparse.issparse(aggregate) else aggregate
            inputs = torch.from_numpy(dense).to(device)

        support = np.stack([_present_features(graph.features) for graph in graphs])
        return cls(
            client_ids=tuple(graph.client_id for graph in graphs),
            num_nodes=tuple(graph.num_nodes for graph in graphs),
            width=width,
            adjacency=SparseMatrix(block_diagonal(operators, (width, width)), device, symmetric=True),
            inputs=inputs,
            feature_support=torch.from_numpy(support).to(device),
        )


def features_within_reach(graph: ClientGraph, hops: int) -> np.ndarray:
    """Which features a GCN of `hops` layers meets while training: bool [features].

    A feature counts if a node that has it lies at most `hops` edges away from a training node.
    """
    operator = normalised_adjacency(graph.edge_index, graph.num_nodes)
    reached = (graph.roles == TRAIN).astype(np.float32)
    for _ in range(hops):
        reached = operator @ reached
    return _present_features(graph.features[np.flatnonzero(reached)])


def _present_features(features: FeatureMatrix) -> np.ndarray:
    present: np.ndarray = np.asarray(abs(features).sum(0)).ravel() > 0
    return present
