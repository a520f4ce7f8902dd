"""A chunk: some clients' graphs, prepared once for all following steps.

For the stacked networks it is one block-diagonal graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.models.edge_list import EdgeList
from subfl_flower.models.sparse import SparseMatrix, block_diagonal, normalised_adjacency
from subfl_flower.subgraphs.models.input_rows import InputRows
from subfl_flower.subgraphs.models.local_graph import LocalGraph, present_features


@dataclass(frozen=True)
class GraphChunk:
    """Graphs of C clients, in the form that their network reads.

    Attributes:
        client_ids: the C client ids.
        num_nodes: nodes of each client.
        width: nodes of the largest client.
        own_width: largest number of own nodes of a client; a client's own nodes come first.
        feature_support: bool [C, features], the features that a client's nodes have anywhere.
        rows: the rows of the first layer that the chunk's inputs have columns for; None: all.
    """

    client_ids: tuple[int, ...]
    num_nodes: tuple[int, ...]
    width: int
    own_width: int
    feature_support: Tensor
    rows: InputRows | None = field(default=None, kw_only=True)

    def __len__(self) -> int:
        """The number of clients."""
        return len(self.client_ids)


def stacked_support(graphs: Sequence[LocalGraph], device: torch.device | str) -> Tensor:
    """The `feature_support` of a chunk of these graphs."""
    return torch.from_numpy(np.stack([graph.feature_support for graph in graphs])).to(device)


@dataclass(frozen=True)
class StackedChunk(GraphChunk):
    """Graphs of C clients, each padded to `width` nodes; node k of client c is row ``c * width + k``.

    Attributes:
        adjacency: operator on hidden states, block-diagonal [C·width, C·width].
        inputs: the first layer's constant half: block-diagonal sparse [C·width, C·inputs], or dense [C, width, inputs].
        told: the output of the first convolution where it is given and not computed: flags of the nodes, bool
            [C, width, 1], and their outputs [C, width, hidden]; None where there are no such nodes.
        structure: counterpart of `inputs` for the nodes' structural encoding [C, width, encoding]; None where the model
            reads none.
        edges: the adjacency's entries one by one, of networks that compute with single edges; else None.
    """

    adjacency: SparseMatrix
    inputs: SparseMatrix | Tensor
    told: tuple[Tensor, Tensor] | None = None
    structure: Tensor | None = None
    edges: EdgeList | None = None

    @classmethod
    def build(cls, graphs: Sequence[LocalGraph], device: torch.device | str = "cpu") -> StackedChunk:
        """Stack clients' graphs.

        All must be for one model; they stay sparse if all clients' inputs are.
        """
        device = torch.device(device)
        width = max(graph.num_nodes for graph in graphs)
        operators = [graph.operator for graph in graphs]
        return cls(
            client_ids=tuple(graph.client_id for graph in graphs),
            num_nodes=tuple(graph.num_nodes for graph in graphs),
            width=width,
            own_width=max(graph.num_own for graph in graphs),
            adjacency=SparseMatrix(
                block_diagonal(operators, (width, width)), device, symmetric=all(graph.symmetric for graph in graphs)
            ),
            inputs=_stacked_inputs(graphs, width, device),
            feature_support=stacked_support(graphs, device),
            told=_stacked_told(graphs, width, device),
            structure=_stacked_structure(graphs, width, device),
        )


def _stacked_inputs(graphs: Sequence[LocalGraph], width: int, device: torch.device) -> SparseMatrix | Tensor:
    num_inputs = graphs[0].inputs.shape[1]
    if all(scipy.sparse.issparse(graph.inputs) for graph in graphs):
        blocks = [scipy.sparse.csr_array(graph.inputs) for graph in graphs]
        return SparseMatrix(block_diagonal(blocks, (width, num_inputs)), device)
    dense = np.zeros((len(graphs), width, num_inputs), dtype=np.float32)
    for c, graph in enumerate(graphs):
        inputs = graph.inputs
        dense[c, : graph.num_nodes] = inputs if isinstance(inputs, np.ndarray) else inputs.toarray()
    return torch.from_numpy(dense).to(device)


def _stacked_told(graphs: Sequence[LocalGraph], width: int, device: torch.device) -> tuple[Tensor, Tensor] | None:
    hidden = next((graph.told.shape[1] for graph in graphs if graph.told is not None), None)
    if hidden is None:
        return None
    values = np.zeros((len(graphs), width, hidden), dtype=np.float32)
    given = np.zeros((len(graphs), width, 1), dtype=bool)
    for c, graph in enumerate(graphs):
        if graph.told is not None:
            values[c, graph.num_own : graph.num_nodes] = graph.told
            given[c, graph.num_own : graph.num_nodes] = True
    return torch.from_numpy(given).to(device), torch.from_numpy(values).to(device)


def _stacked_structure(graphs: Sequence[LocalGraph], width: int, device: torch.device) -> Tensor | None:
    given = [graph.structure for graph in graphs if graph.structure is not None]
    if not given:
        return None
    stacked = np.zeros((len(graphs), width, given[0].shape[1]), dtype=np.float32)
    for row, structure in zip(stacked, given, strict=True):
        row[: len(structure)] = structure
    return torch.from_numpy(stacked).to(device)


def features_within_reach(graph: ClientGraph, hops: int) -> np.ndarray:
    """Features that a GCN of `hops` layers reaches in training: bool [features].

    A feature counts if a node that has it lies at most `hops` edges, of whatever weight, away from a training node.
    """
    operator = normalised_adjacency(graph.edge_index, graph.num_nodes)
    reached = (graph.roles == TRAIN).astype(np.float32)
    for _ in range(hops):
        reached = operator @ reached
    return present_features(graph.features[np.flatnonzero(reached)])
