"""GAT, GIN, SGC, MLP, APPNP and GCNII, client by client, against networks of PyG's own layers with the same values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pyg_networks import (
    SIZES,
    Tensors,
    check_that_a_client_computes_the_same_alone,
    classified,
    placed,
    propagated,
)
from tiny_clients import CLASSES, FEATURES, dense_features, random_parameters, tiny_client
from torch_geometric.nn import APPNP, GATConv, GCN2Conv, GINConv, SGConv

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import (
    APPNPSettings,
    GATSettings,
    GCNIISettings,
    GINSettings,
    GraphModelSettings,
    MLPSettings,
    SGCSettings,
)
from subfl_flower.subgraphs.models.choices import graph_network

HIDDEN = 6
SMALL = {"hidden": HIDDEN, "dropout": 0.0}
Reference = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, Tensors, Any], torch.Tensor]


def linear(parameters: Tensors, name: str) -> torch.nn.Module:
    weight = parameters[f"{name}.weight"]
    return placed(torch.nn.Linear(*weight.shape), weight=weight.T, bias=parameters[f"{name}.bias"])


def hidden_layers(x: torch.Tensor, parameters: Tensors, layers: int) -> torch.Tensor:
    for number in range(1, layers + 1):
        x = linear(parameters, f"conv{number}")(x).relu()
    return x


def gat(x: torch.Tensor, edges: torch.Tensor, _: Any, parameters: Tensors, settings: GATSettings) -> torch.Tensor:
    for number in range(1, settings.layers + 1):
        own = {name: parameters[f"conv{number}.{name}"] for name in ("weight", "att_src", "att_dst", "bias")}
        width = HIDDEN // settings.heads
        layer = GATConv(x.shape[1], width, heads=settings.heads, negative_slope=settings.negative_slope)
        placed(layer.lin, weight=own["weight"].T)
        vectors = {name: own[name].view(1, settings.heads, width) for name in ("att_src", "att_dst")}
        x = F.elu(placed(layer, **vectors, bias=own["bias"])(x, edges))
    return classified(x, parameters)


def gin(x: torch.Tensor, edges: torch.Tensor, _: Any, parameters: Tensors, settings: GINSettings) -> torch.Tensor:
    def layer(number: int, inputs: int) -> torch.nn.Module:
        name = f"conv{number}"
        found = GINConv(torch.nn.Sequential(), eps=settings.eps, train_eps=settings.train_eps)  # it resets its layers
        found.nn = torch.nn.Sequential(linear(parameters, name), torch.nn.ReLU(), linear(parameters, f"{name}.outer"))
        return placed(found, eps=parameters[f"{name}.eps"]) if settings.train_eps else found

    return classified(propagated(x, edges, settings.layers, layer), parameters)


def sgc(
    x: torch.Tensor, edges: torch.Tensor, weight: torch.Tensor | None, parameters: Tensors, settings: SGCSettings
) -> torch.Tensor:
    layer = SGConv(FEATURES, CLASSES, K=settings.hops)
    placed(layer.lin, weight=parameters["classifier.weight"].T, bias=parameters["classifier.bias"])
    return layer(x, edges, weight)


def mlp(x: torch.Tensor, _: torch.Tensor, __: Any, parameters: Tensors, settings: MLPSettings) -> torch.Tensor:
    return classified(hidden_layers(x, parameters, settings.layers), parameters)


def appnp(
    x: torch.Tensor, edges: torch.Tensor, weight: torch.Tensor | None, parameters: Tensors, settings: APPNPSettings
) -> torch.Tensor:
    predictions = classified(hidden_layers(x, parameters, settings.layers), parameters)
    return APPNP(settings.hops, settings.alpha)(predictions, edges, weight)


def gcnii(
    x: torch.Tensor, edges: torch.Tensor, weight: torch.Tensor | None, parameters: Tensors, settings: GCNIISettings
) -> torch.Tensor:
    first = hidden = linear(parameters, "input")(x).relu()
    for number in range(1, settings.layers + 1):
        layer = GCN2Conv(HIDDEN, settings.alpha, settings.theta, number)
        placed(layer, weight1=parameters[f"conv{number}.weight"])
        hidden = layer(hidden, first, edges, weight).relu()
    return classified(hidden, parameters)


CASES: dict[str, tuple[Reference, GraphModelSettings]] = {
    "gat": (gat, GATSettings(name="gat", heads=3, **SMALL)),
    "gat of one layer and head": (gat, GATSettings(name="gat", heads=1, layers=1, negative_slope=0.4, **SMALL)),
    "gat of three layers": (gat, GATSettings(name="gat", heads=2, layers=3, **SMALL)),
    "gin": (gin, GINSettings(name="gin", **SMALL)),
    "gin of one layer": (gin, GINSettings(name="gin", layers=1, **SMALL)),
    "gin with a fixed eps": (gin, GINSettings(name="gin", eps=0.3, train_eps=False, **SMALL)),
    "sgc": (sgc, SGCSettings(name="sgc")),
    "sgc of three propagations": (sgc, SGCSettings(name="sgc", hops=3)),
    "mlp": (mlp, MLPSettings(name="mlp", **SMALL)),
    "mlp of one layer": (mlp, MLPSettings(name="mlp", layers=1, **SMALL)),
    "appnp": (appnp, APPNPSettings(name="appnp", **SMALL)),
    "appnp of two layers": (appnp, APPNPSettings(name="appnp", layers=2, hops=3, alpha=0.25, **SMALL)),
    "gcnii": (gcnii, GCNIISettings(name="gcnii", layers=4, **SMALL)),
    "gcnii of one layer": (gcnii, GCNIISettings(name="gcnii", layers=1, alpha=0.3, theta=1.5, **SMALL)),
}
WEIGHTED = ("sgc", "sgc of three propagations", "appnp", "appnp of two layers", "gcnii", "gcnii of one layer")


def with_weights(graph: ClientGraph) -> ClientGraph:
    nodes = graph.num_nodes
    upper = np.triu(np.random.default_rng(nodes).random((nodes, nodes)) * 3 + 0.1)
    return replace(graph, edge_weight=(upper + upper.T)[tuple(graph.edge_index)].astype(np.float32))


def with_loops(graph: ClientGraph) -> ClientGraph:
    """Every second node is tied to itself, too."""
    loops = np.arange(0, graph.num_nodes, 2)
    return replace(graph, edge_index=np.concatenate([graph.edge_index, np.stack([loops, loops])], axis=1))


def network_of(settings: GraphModelSettings) -> Any:
    return graph_network(settings, FEATURES, CLASSES)


def check(case: str, graphs: list[ClientGraph]) -> None:
    """Each client's logits, and the gradients of its cross-entropy in all parameters, are PyG's to 1e-6."""
    reference, settings = CASES[case]
    network = network_of(settings)
    parameters = {
        name: (0.3 * value).requires_grad_() for name, value in random_parameters(network, len(graphs)).items()
    }
    logits = network(parameters, network.chunk(graphs))
    assert logits.shape == (len(graphs), max(graph.num_nodes for graph in graphs), CLASSES)
    for c, graph in enumerate(graphs):
        own = {name: value[c].detach().clone().requires_grad_() for name, value in parameters.items()}
        weight = None if graph.edge_weight is None else torch.from_numpy(graph.edge_weight)
        x, edges = torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.edge_index)
        expected = reference(x, edges, weight, own, settings)
        found = logits[c, : graph.num_nodes]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=2e-6)
        labels = torch.from_numpy(graph.labels)
        F.cross_entropy(expected, labels).backward()
        loss = F.cross_entropy(found, labels)
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        for (name, leaf), gradient in zip(own.items(), gradients, strict=True):
            torch.testing.assert_close(gradient[c], leaf.grad, atol=1e-6, rtol=1e-5, msg=name)
            assert not gradient[torch.arange(len(graphs)) != c].any(), "a client's loss depends on another's values"


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("case", CASES)
def test_every_client_of_a_chunk_is_pygs_network(case: str, sparse: bool) -> None:
    """Clients of several sizes, one of a single node, one with isolated nodes."""
    graphs = [tiny_client(c, size, sparse=sparse) for c, size in enumerate(SIZES)]
    few = tiny_client(len(SIZES), 9, sparse=sparse, edge_probability=0.08)
    assert len(np.unique(few.edge_index)) < 9
    check(case, [*graphs, few])


@pytest.mark.parametrize("case", WEIGHTED)
def test_networks_that_propagate_like_a_gcn_read_edge_weights_as_pygs_do(case: str) -> None:
    check(case, [with_weights(tiny_client(c, size)) for c, size in enumerate(SIZES)])
    assert network_of(CASES[case][1]).reads_edge_weights(CASES[case][1])


@pytest.mark.parametrize("case", ["gat", "gin"])
def test_edges_from_a_node_to_itself_are_treated_as_pygs_layers_do(case: str) -> None:
    """Attention has one edge of a node to itself in any case; a sum counts it as a further neighbour."""
    check(case, [with_loops(tiny_client(c, size)) for c, size in enumerate(SIZES)])


@pytest.mark.parametrize("settings", [GATSettings(name="gat"), GINSettings(name="gin"), MLPSettings(name="mlp")])
def test_networks_without_edge_weights_say_so(settings: GraphModelSettings) -> None:
    assert not network_of(settings).reads_edge_weights(settings)


DROPPING: dict[str, GraphModelSettings] = {
    "gat": GATSettings(name="gat", hidden=HIDDEN, heads=2, dropout=0.4, attention_dropout=0.3),
    "gin": GINSettings(name="gin", hidden=HIDDEN, dropout=0.4),
    "mlp": MLPSettings(name="mlp", hidden=HIDDEN, dropout=0.4),
    "appnp": APPNPSettings(name="appnp", hidden=HIDDEN, dropout=0.4),
    "gcnii": GCNIISettings(name="gcnii", hidden=HIDDEN, layers=3, dropout=0.4),
}


@pytest.mark.parametrize("name", DROPPING)
def test_a_client_computes_the_same_alone_and_beside_larger_ones(name: str) -> None:
    graphs = [tiny_client(c, size) for c, size in enumerate(SIZES)]
    check_that_a_client_computes_the_same_alone(network_of(DROPPING[name]), graphs)


@pytest.mark.parametrize("name", ["gat", "gcnii"])
def test_every_hidden_layer_has_dropout(name: str) -> None:
    network = network_of(DROPPING[name])
    chunk = network.chunk([tiny_client(0, 5), tiny_client(1, 8)])
    generators = [np.random.default_rng(c) for c in range(2)]
    draws = network.training_draws(chunk, generators, torch.device("cpu"))
    if name == "gat":  # two layers of nodes, two of edges: those of both clients, one after the other
        edges = sum(tiny_client(c, size).edge_index.shape[1] + size for c, size in enumerate((5, 8)))
        assert [tuple(draw.shape) for draw in draws] == [(2, 8, HIDDEN)] * 2 + [(edges, 2)] * 2
        np.testing.assert_allclose(np.unique(draws[2].numpy()), [0, 1 / 0.7], rtol=1e-4)
    else:  # the linear map, and three convolutions
        assert [tuple(draw.shape) for draw in draws] == [(2, 8, HIDDEN)] * 4
    parameters = random_parameters(network, 2)
    plain = network(parameters, chunk)
    for position, draw in enumerate(draws):
        only = [torch.ones_like(other) for other in draws]
        torch.testing.assert_close(network(parameters, chunk, only), plain)
        only[position] = draw
        assert not torch.allclose(network(parameters, chunk, only), plain)


def test_initial_values_are_those_of_the_layers_that_pyg_has() -> None:
    of = {name: network_of(settings).initial(np.random.default_rng(0)) for name, settings in DROPPING.items()}
    bounds = {
        ("gat", "conv1.weight"): (6 / (FEATURES + HIDDEN)) ** 0.5,
        ("gat", "conv1.att_src"): (6 / (2 + 3)) ** 0.5,  # two heads of width 3
        ("gin", "conv1.weight"): FEATURES**-0.5,
        ("gin", "conv1.outer.bias"): HIDDEN**-0.5,
        ("mlp", "conv2.bias"): HIDDEN**-0.5,
        ("appnp", "conv1.weight"): FEATURES**-0.5,
        ("gcnii", "input.weight"): FEATURES**-0.5,
        ("gcnii", "conv1.weight"): (6 / (2 * HIDDEN)) ** 0.5,
        ("gcnii", "classifier.weight"): HIDDEN**-0.5,
    }
    for (network, name), bound in bounds.items():
        assert 0.6 * bound < np.abs(of[network][name]).max() <= bound, (network, name)
    assert not of["gat"]["conv1.bias"].any() and not of["gin"]["conv1.eps"].any()
    raised = network_of(GINSettings(name="gin", hidden=HIDDEN, eps=0.25)).initial(np.random.default_rng(0))
    assert raised["conv2.eps"].tolist() == [0.25]
    assert {name: value.dtype for name, value in raised.items()} == dict.fromkeys(raised, np.dtype(np.float32))


@pytest.mark.parametrize("case", CASES)
def test_a_models_file_states_as_many_tensors_as_the_network_has(case: str) -> None:
    settings = CASES[case][1]
    assert settings.num_tensors == len(network_of(settings).shapes)
