"""Small clients made by hand or from a seed, and dense formulas to compare with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
import torch

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.chunk import GraphChunk
from subfl_flower.models.gcn import StackedGCN
from subfl_flower.models.settings import ModelSettings
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.tasks import NodeClassification

FEATURES, CLASSES = 6, 3


def tiny_client(
    client_id: int,
    num_nodes: int,
    *,
    sparse: bool = False,
    lacking: Sequence[int] = (),
    edge_probability: float = 0.4,
    roles: Sequence[int] | None = None,
    seed: int = 0,
) -> ClientGraph:
    """A random connected-or-not graph; features in the columns `lacking` are zero everywhere."""
    rng = np.random.default_rng([seed, client_id])
    upper = np.triu(rng.random((num_nodes, num_nodes)) < edge_probability, k=1)
    edge_index = np.stack(np.nonzero(upper | upper.T)).astype(np.int64)
    features = rng.standard_normal((num_nodes, FEATURES)).astype(np.float32)
    features[rng.random(features.shape) < 0.4] = 0.0
    features[:, list(lacking)] = 0.0
    return ClientGraph(
        client_id=client_id,
        node_ids=np.arange(num_nodes),
        features=sp.csr_array(features) if sparse else features,
        edge_index=edge_index,
        labels=rng.integers(0, CLASSES, num_nodes),
        num_classes=CLASSES,
        roles=np.array(roles if roles is not None else np.arange(num_nodes) % 3, dtype=np.int8),
        shareable=np.zeros(num_nodes, dtype=bool),
    )


def dense_features(graph: ClientGraph) -> np.ndarray:
    return graph.features.toarray() if sp.issparse(graph.features) else graph.features


def dense_operator(edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
    """D^-1/2 (A + I) D^-1/2, dense and in double precision."""
    adjacency = np.eye(num_nodes)
    adjacency[edge_index[0], edge_index[1]] = 1.0
    scale = np.diag(adjacency.sum(1) ** -0.5)
    return scale @ adjacency @ scale


def dense_gcn(
    parameters: dict[str, torch.Tensor], operator: torch.Tensor, features: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the last convolution's output before its ReLU, of one client's plain GCN."""
    layers = sum(name.startswith("conv") and name.endswith("weight") for name in parameters)
    hidden = features
    for layer in range(1, layers + 1):
        convolved = operator @ hidden @ parameters[f"conv{layer}.weight"] + parameters[f"conv{layer}.bias"]
        hidden = convolved.relu()
    return hidden @ parameters["classifier.weight"] + parameters["classifier.bias"], convolved


def model(layers: int = 2, hidden: int = 5, dropout: float = 0.0) -> StackedGCN:
    return StackedGCN(ModelSettings(name="gcn", layers=layers, hidden=hidden, dropout=dropout), FEATURES, CLASSES)


def random_parameters(gcn: StackedGCN, clients: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Different parameters for every client, biases included."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(clients, *shape, generator=generator) for name, shape in gcn.shapes.items()}


def chunk_of(*graphs: ClientGraph) -> GraphChunk:
    return model().chunk(graphs)


def cohort_of(*graphs: ClientGraph, chunk: int | str = "all") -> Cohort:
    task = NodeClassification(name="node_classification")
    return Cohort(graphs, FEATURES, CLASSES, torch.device("cpu"), chunk, task)  # type: ignore[arg-type]
