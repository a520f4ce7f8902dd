"""Training examples of a generator of missing neighbours, as tensors in the generator's unit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from subfl_flower.data.graph import TRAIN, ClientGraph, FeatureMatrix
from subfl_flower.models.sparse import SparseMatrix
from subfl_flower.subgraphs.mending.hidden_neighbours import Impaired


def feature_unit(features: FeatureMatrix) -> float:
    """The root mean square entry of a feature matrix; 1 where all entries are zero."""
    mean = np.asarray((features * features).sum(dtype=np.float64)) / (features.shape[0] * features.shape[1])
    return float(mean) ** 0.5 or 1.0


@dataclass(frozen=True, eq=False)
class ScaledFeatures:
    """A constant feature matrix in a given unit.

    Attributes:
        matrix: [n, features].
        squared_norms: [n], of its rows.
    """

    matrix: SparseMatrix | Tensor
    squared_norms: Tensor

    @classmethod
    def of(cls, features: FeatureMatrix, unit: float, device: torch.device | str = "cpu") -> ScaledFeatures:
        """Scale a graph's features; they stay sparse if they are."""
        scaled = features / features.dtype.type(unit)
        squares = np.asarray((scaled * scaled).sum(1), dtype=features.dtype)  # SciPy sums in double precision
        norms = torch.from_numpy(squares).to(device)
        if sp.issparse(scaled):
            return cls(SparseMatrix(scaled, device), norms)
        return cls(torch.from_numpy(scaled).to(device), norms)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The encoder's input for a graph of n nodes.

    Attributes:
        features: of its nodes.
        adjacency: [n, n], without self-loops.
        degrees: [n, 1].
    """

    features: ScaledFeatures
    adjacency: SparseMatrix
    degrees: Tensor

    @classmethod
    def of(cls, graph: ClientGraph, unit: float, device: torch.device | str = "cpu") -> Surroundings:
        """Convert a client's graph, with features in this `unit`."""
        ones = np.ones(graph.edge_index.shape[1], dtype=np.float32)
        adjacency = sp.coo_array((ones, (graph.edge_index[0], graph.edge_index[1])), shape=(graph.num_nodes,) * 2)
        degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes).astype(np.float32)
        return cls(
            features=ScaledFeatures.of(graph.features, unit, device),
            adjacency=SparseMatrix(adjacency.tocsr(), device, symmetric=True),
            degrees=torch.from_numpy(degrees[:, None]).to(device),
        )


@dataclass(frozen=True, eq=False)
class MendingExample:
    """Training example of one client's generator: a graph with hidden nodes, and these nodes' features.

    Attributes:
        surroundings: the k visible nodes.
        missing: [k], n_v.
        targets: features of the hidden nodes that are neighbours of a visible one.
        owners: int64 [pairs], the visible node of each pair of a node and its hidden neighbour, ascending.
        hidden: int64 [pairs], that neighbour's row in `targets`.
        train: int64 [nodes], the visible training nodes.
        labels: int64 [nodes], their labels.
    """

    surroundings: Surroundings
    missing: Tensor
    targets: ScaledFeatures
    owners: Tensor
    hidden: Tensor
    train: Tensor
    labels: Tensor

    @classmethod
    def of(cls, graph: ClientGraph, impaired: Impaired, device: torch.device | str = "cpu") -> MendingExample:
        """Make an example from a client's whole graph and the visible part of it."""
        unit, visible = feature_unit(graph.features), impaired.graph
        nodes, rows = np.unique(impaired.indices, return_inverse=True)
        labels = np.full(visible.num_nodes, -1) if visible.labels is None else visible.labels
        train = np.flatnonzero((visible.roles == TRAIN) & (labels >= 0))

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(device)

        return cls(
            surroundings=Surroundings.of(visible, unit, device),
            missing=tensor(impaired.missing.astype(np.float32)),
            targets=ScaledFeatures.of(graph.features[nodes], unit, device),
            owners=tensor(np.repeat(np.arange(visible.num_nodes), impaired.missing)),
            hidden=tensor(rows.astype(np.int64)),
            train=tensor(train),
            labels=tensor(labels[train]),
        )
