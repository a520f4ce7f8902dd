from __future__ import annotations

from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from tiny_clients import FEATURES, cohort_of, dense_gcn, dense_operator, family_of, model, parameters_of, tiny_client
from tiny_clients import trained as round_of

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.clients.subgraphs.subpfed import SubPFedClient
from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import DecoupledSettings, ModelSettings
from subfl_flower.seeding import shared_generator
from subfl_flower.subgraphs.models.sage import StackedSAGE
from subfl_flower.subgraphs.similarity.random_graph import stochastic_block_model

SEED = 3
SHAPES = model().shapes
ANNOUNCED = {"mean_nodes": 12.4, "mean_degree": 3.3}


def client(
    *hosted: ClientGraph, family: type[SubgraphClient] = SubPFedClient, chunk: int | str = "all", **settings: Any
) -> SubgraphClient:
    return family_of(family, cohort_of(*hosted, chunk=chunk), settings, seed=SEED)


def trained(cohort: SubgraphClient, **announced: float) -> dict[str, np.ndarray]:
    """Uploads of two clients after a round."""
    result = round_of(cohort, parameters_of(2), **announced)
    assert result.failures == {} and set(result.arrays) == set(cohort.uploads(cohort.run))
    return result.arrays


def mean_hidden(sent: dict[str, np.ndarray], edges: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The mean over nodes of the last convolution before its ReLU, of a dense GCN with what each client sent."""
    operator = torch.from_numpy(dense_operator(edges, len(features))).float()
    models = [{name: torch.from_numpy(sent[name][c]) for name in SHAPES} for c in range(2)]
    return np.stack([dense_gcn(own, operator, torch.from_numpy(features))[1].mean(0).numpy() for own in models])


def two() -> list[ClientGraph]:
    return [tiny_client(0, 9), tiny_client(1, 6)]


@pytest.mark.parametrize(
    ("settings", "nodes", "probability"),
    [
        ({}, 12, 3.3 / 11),
        ({"random_nodes": 20}, 20, 3.3 / 19),
        ({"random_probability": 0.5}, 12, 0.5),
        ({"random_nodes": 7, "random_probability": 0.25}, 7, 0.25),
        ({"random_nodes": 3}, 3, 1.0),  # a mean degree of 3.3 is more than three nodes allow
    ],
)
def test_an_erdos_renyi_graph_is_as_large_and_dense_as_announced_or_told(
    settings: dict[str, Any], nodes: int, probability: float
) -> None:
    sent = trained(client(*two(), random_graph="er", **settings), **ANNOUNCED)
    rng = shared_generator(SEED, "random graph")
    network = nx.fast_gnp_random_graph(nodes, probability, seed=rng)
    edges = np.array([(a, b) for u, v in network.edges for a, b in ((u, v), (v, u))], dtype=np.int64).reshape(-1, 2).T
    features = rng.standard_normal((nodes, FEATURES), dtype="float32")
    np.testing.assert_allclose(sent["functional_embedding"], mean_hidden(sent, edges, features), atol=1e-5)


def test_an_erdos_renyi_graph_has_two_nodes_at_least() -> None:
    sent = trained(client(*two(), random_graph="er"), mean_nodes=1.2, mean_degree=1.5)
    features = _features_after(lambda rng: nx.fast_gnp_random_graph(2, 1.0, seed=rng), 2)
    edges = np.array([[0, 1], [1, 0]])
    np.testing.assert_allclose(sent["functional_embedding"], mean_hidden(sent, edges, features), atol=1e-5)


def _features_after(draw: Any, nodes: int) -> np.ndarray:
    rng = shared_generator(SEED, "random graph")
    draw(rng)
    return rng.standard_normal((nodes, FEATURES), dtype="float32")


BLOCKS = {"random_blocks": 2, "random_block_nodes": 8, "random_p_in": 0.5, "random_p_out": 0.1}


def test_one_is_the_block_model_with_features_of_one() -> None:
    sent = trained(client(*two(), random_graph="one", **BLOCKS))
    edges = stochastic_block_model(2, 8, 0.5, 0.1, shared_generator(SEED, "random graph"))
    expected = mean_hidden(sent, edges, np.ones((16, FEATURES), np.float32))
    np.testing.assert_allclose(sent["functional_embedding"], expected, atol=1e-5)


def test_feature_is_the_block_models_features_without_edges() -> None:
    sent = trained(client(*two(), random_graph="feature", **BLOCKS))
    features = _features_after(lambda rng: stochastic_block_model(2, 8, 0.5, 0.1, rng), 16)
    for c in range(2):  # a GCN without edges is a perceptron, node by node
        hidden = np.maximum(features @ sent["conv1.weight"][c] + sent["conv1.bias"][c], 0)
        expected = (hidden @ sent["conv2.weight"][c] + sent["conv2.bias"][c]).mean(0)
        np.testing.assert_allclose(sent["functional_embedding"][c], expected, atol=1e-5)


def test_the_random_graphs_differ() -> None:
    """Else the tests above could not tell one from another."""
    found = [
        trained(client(*two(), random_graph=kind, **BLOCKS), **ANNOUNCED)["functional_embedding"]
        for kind in ("sbm", "er", "one", "feature")
    ]
    for i in range(4):
        for j in range(i):
            assert np.abs(found[i] - found[j]).max() > 1e-2


@pytest.mark.parametrize("family", [SubPFedClient, FedPUBClient])
@pytest.mark.parametrize("chunk", [1, "all"])
def test_label_distributions_are_class_frequencies_of_the_training_nodes(
    family: type[SubgraphClient], chunk: int | str
) -> None:
    first = replace(tiny_client(0, 6, roles=[0, 0, 0, 0, 1, 2]), labels=np.array([2, 0, 2, 2, 1, 1]))
    # The second client's training nodes are 0, 2 and 3; node 2 has no label.
    second = replace(tiny_client(1, 5, roles=[0, 1, 0, 0, 2]), labels=np.array([1, 0, -1, 0, 0]))
    sent = trained(client(first, second, family=family, chunk=chunk, similarity="label"))
    np.testing.assert_allclose(sent["label_distribution"], [[0.25, 0, 0.75], [0.5, 0.5, 0]])
    assert "functional_embedding" not in sent


@pytest.mark.parametrize("similarity", ["parameter", "gradient", "none"])
def test_what_the_server_can_see_in_the_parameters_is_not_sent_again(similarity: str) -> None:
    assert list(trained(client(*two(), similarity=similarity))) == list(SHAPES)
    masked = client(*two(), family=FedPUBClient, similarity=similarity)
    assert list(trained(masked)) == [*SHAPES, "wanted_features"]


def test_without_labels_there_is_no_label_distribution() -> None:
    cohort = client(*(replace(graph, labels=None) for graph in two()), similarity="label")
    result = round_of(cohort, parameters_of(2))
    assert result.clients == ()
    for reason in (result.failures[0], result.failures[1]):
        assert "method.similarity=label: the data set has no labels" in reason


def test_a_size_that_nobody_announces_must_be_told() -> None:
    result = round_of(client(*two(), random_graph="er", random_nodes=20), parameters_of(2))
    assert result.clients == () and set(result.failures) == {0, 1}
    assert "this strategy announces no means; give numbers" in result.failures[0]


@pytest.mark.parametrize("family", [SubPFedClient, FedPUBClient])
def test_any_network_is_embedded(family: type[SubgraphClient]) -> None:
    for settings in (ModelSettings(name="gcn"), ModelSettings(name="sage"), DecoupledSettings(name="decoupled")):
        family.check_model(settings, "fedpub")


@pytest.mark.parametrize("layers", [1, 2])
def test_a_sage_is_embedded_by_the_mean_of_its_last_convolution_before_its_relu(layers: int) -> None:
    network = StackedSAGE(ModelSettings(name="sage", hidden=5, layers=layers, dropout=0.0), FEATURES, 3)
    rng = np.random.default_rng(0)
    edges = stochastic_block_model(2, 8, 0.5, 0.1, rng)
    features = rng.standard_normal((16, FEATURES)).astype(np.float32)
    parameters = {name: torch.randn(3, *shape) for name, shape in network.shapes.items()}
    adjacency = np.zeros((16, 16))
    adjacency[tuple(edges)] = 1
    mean = torch.from_numpy(adjacency / adjacency.sum(1, keepdims=True).clip(min=1))
    found = network.probe(edges, features).embed(parameters)
    assert found.shape == (3, network.embedding_width)
    for c in range(3):
        hidden = torch.from_numpy(features).double()
        for layer in range(1, layers + 1):
            own = {kind: parameters[f"conv{layer}.{kind}"][c].double() for kind in ("weight", "bias")}
            convolved = torch.cat([mean @ hidden, hidden], dim=1) @ own["weight"] + own["bias"]
            hidden = convolved.relu()
        torch.testing.assert_close(found[c].double(), convolved.mean(0), atol=1e-5, rtol=1e-5)
