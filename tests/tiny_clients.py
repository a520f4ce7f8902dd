"""Small clients made by hand or from a seed, and dense formulas to compare with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import scipy.sparse as sp
import torch

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import GraphModelSettings, ModelSettings, OptimizerSettings
from subfl_flower.node.state import MemoryStore, StateStore
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.gcn import StackedGCN
from subfl_flower.tasks.choices import NodeClassification
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Batch, Question, Result
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Shape

FEATURES, CLASSES = 6, 3
GCN = ModelSettings(name="gcn", hidden=5, dropout=0.0)
ADAM = OptimizerSettings(name="adam", lr=0.05, weight_decay=0.01)

Family = TypeVar("Family", bound=SubgraphClient)


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


def family_of(
    family: type[Family],
    cohort: Cohort,
    settings: Mapping[str, Any] | None = None,
    *,
    model: GraphModelSettings = GCN,
    optimizer: OptimizerSettings = ADAM,
    seed: int = 0,
    store: StateStore | None = None,
    **facts: Any,
) -> Family:
    """A family's clients of a cohort; `facts` are further ones of the run."""
    network = graph_network(model, cohort.num_features, cohort.num_outputs)
    run = RunContext(
        settings=family.Settings(**(settings or {})),
        model=model,
        optimizer=optimizer,
        seed=seed,
        task=cohort.task,
        shape=Shape(cohort.num_features, cohort.num_classes),
        network=network,
        initial=network.initial_of(seed),
        **{"num_rounds": 10, **facts},
    )
    return family(run, cohort, store or MemoryStore())


def parameters_of(clients: int, names: Sequence[str] = tuple(model().shapes), seed: int = 0) -> Stack:
    """Different parameters of a tiny GCN for every client, by name [clients, ...]."""
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal((clients, *model().shapes[name])).astype(np.float32) for name in names}


def trained(
    client: SubgraphClient,
    sent: Stack,
    server_round: int = 1,
    ids: Sequence[int] | None = None,
    epochs: int = 1,
    **announced: float,
) -> Result:
    """One round of the clients `ids`, or of all, who are sent the rows of `sent`."""
    chosen = client.cohort.client_ids if ids is None else ids
    batch = Batch.of_stack(chosen, sent, server_round=server_round, local_epochs=epochs, announced=announced)
    return client.train(batch)


def best_models(client: SubgraphClient) -> dict[int, Stack]:
    """Each client's best model, where the server has no part of it."""
    return client.models(Batch(client.cohort.client_ids))


def answered(client: SubgraphClient, question: Question) -> dict[int, Stack]:
    """The answers to a question that everybody can answer."""
    answers = client.answer(question)
    assert answers.failures == {}
    return answers.arrays


def kept(client: SubgraphClient, name: str) -> np.ndarray:
    """A copy of what the clients keep under a name, [clients, ...]."""
    values: np.ndarray = client.open_state()[name].numpy().copy()
    return values
