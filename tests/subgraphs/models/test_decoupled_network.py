from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pyg_networks import (
    SIZES,
    Tensors,
    check_that_a_client_computes_the_same_alone,
    check_that_every_client_is,
    classified,
    placed,
    propagated,
)
from tiny_clients import CLASSES, FEATURES, random_parameters, tiny_client
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.transforms import AddRandomWalkPE

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import DecoupledSettings
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.decoupled import StackedDecoupled

HIDDEN, ENCODING = 5, 8


def decoupled(layers: int = 2, dropout: float = 0.0) -> StackedDecoupled:
    settings = DecoupledSettings(name="decoupled", layers=layers, hidden=HIDDEN, dropout=dropout, encoding=ENCODING)
    found = graph_network(settings, FEATURES, CLASSES)
    assert isinstance(found, StackedDecoupled)
    return found


def pyg_encoding(graph: ClientGraph) -> torch.Tensor:
    """Four columns of walks, and degrees 0, 1, 2-3 and more one-hot."""
    edges = torch.from_numpy(graph.edge_index)
    walks = AddRandomWalkPE(4, attr_name="pe")(Data(edge_index=edges, num_nodes=graph.num_nodes)).pe
    degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
    bucket = torch.from_numpy(np.digitize(degrees, [1, 2, 4]))
    return torch.cat([walks, F.one_hot(bucket, 4).float()], dim=1)


def two_gcns(x: torch.Tensor, edges: torch.Tensor, graph: ClientGraph, parameters: Tensors) -> torch.Tensor:
    def extracted(stem: str, inputs: torch.Tensor) -> torch.Tensor:
        def layer(number: int, width: int) -> torch.nn.Module:
            convolution = placed(GCNConv(width, HIDDEN), bias=parameters[f"{stem}{number}.bias"])
            placed(convolution.lin, weight=parameters[f"{stem}{number}.weight"].T)
            return convolution

        return propagated(inputs, edges, (len(parameters) - 2) // 4, layer)

    return classified(torch.cat([extracted("conv", x), extracted("topology", pyg_encoding(graph))], dim=1), parameters)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_client_of_a_chunk_is_two_gcns_of_pyg(layers: int, sparse: bool) -> None:
    check_that_every_client_is(two_gcns, decoupled(layers), sparse)


def test_a_client_computes_the_same_alone_and_beside_larger_ones() -> None:
    graphs = [tiny_client(c, size) for c, size in enumerate(SIZES)]
    check_that_a_client_computes_the_same_alone(decoupled(dropout=0.5), graphs)


def test_each_layer_of_each_extractor_has_a_dropout_of_its_own() -> None:
    network = decoupled(dropout=0.5)
    chunk = network.chunk([tiny_client(0, 40)])
    masks = network.dropout_masks(chunk, [np.random.default_rng(0)], torch.device("cpu"))
    assert len(masks) == 4 and all(mask.shape == (1, 40, HIDDEN) for mask in masks)
    assert all(not torch.equal(one, other) for i, one in enumerate(masks) for other in masks[:i])
    parameters = random_parameters(network, 1)
    silent = [masks[0], masks[1], masks[2], torch.zeros_like(masks[3])]  # the topology extractor says nothing
    louder = {**parameters, "topology2.bias": parameters["topology2.bias"] + 1}
    torch.testing.assert_close(network(parameters, chunk, silent), network(louder, chunk, silent))
    assert (network(parameters, chunk, masks) - network(louder, chunk, masks)).abs().max() > 0.1


def test_no_feature_reaches_the_topology_extractor() -> None:
    network = decoupled()
    graph = tiny_client(0, 9)
    other = replace(graph, features=graph.features + 1)
    parameters = random_parameters(network, 1)
    parameters["classifier.weight"][:, :HIDDEN] = 0  # what the classifier reads of features
    torch.testing.assert_close(network(parameters, network.chunk([graph])), network(parameters, network.chunk([other])))
    parameters = random_parameters(network, 1)
    first, second = (network(parameters, network.chunk([each])) for each in (graph, other))
    assert (first - second).abs().max() > 0.1


def test_further_nodes_pass_messages_and_have_no_output() -> None:
    network = decoupled()
    larger, other = tiny_client(0, 9), tiny_client(1, 4)
    parameters = random_parameters(network, 2)
    everything = network(parameters, network.chunk([larger, other]))
    mended = StackedChunk.build([network.local_graph(larger, num_own=6), network.local_graph(other)])
    found = network(parameters, mended)
    assert found.shape == (2, 6, CLASSES)
    torch.testing.assert_close(found, everything[:, :6])


def test_what_a_client_was_told_of_hidden_states_is_about_features_alone() -> None:
    network = decoupled(layers=1)
    graph = tiny_client(0, 8, edge_probability=0.6)
    parameters = random_parameters(network, 1)
    told = np.random.default_rng(0).standard_normal((3, HIDDEN)).astype(np.float32)
    local = network.local_graph(graph, num_own=5)
    chunk = StackedChunk.build([replace(local, told=told)])
    torch.testing.assert_close(network.first_of("conv", parameters, chunk)[0, 5:], torch.from_numpy(told))
    plain = StackedChunk.build([local])
    torch.testing.assert_close(
        network.first_of("topology", parameters, chunk), network.first_of("topology", parameters, plain)
    )


def test_parameters_start_as_those_of_two_gcns_and_one_classifier() -> None:
    network = decoupled()
    parameters = network.initial(np.random.default_rng(0))
    assert {name: value.shape for name, value in parameters.items()} == {
        "conv1.weight": (FEATURES, HIDDEN), "conv1.bias": (HIDDEN,),
        "conv2.weight": (HIDDEN, HIDDEN), "conv2.bias": (HIDDEN,),
        "topology1.weight": (ENCODING, HIDDEN), "topology1.bias": (HIDDEN,),
        "topology2.weight": (HIDDEN, HIDDEN), "topology2.bias": (HIDDEN,),
        "classifier.weight": (2 * HIDDEN, CLASSES), "classifier.bias": (CLASSES,),
    }  # fmt: skip
    for name, fan_in in (("conv1", FEATURES), ("topology1", ENCODING), ("topology2", HIDDEN)):
        bound = (6 / (fan_in + HIDDEN)) ** 0.5
        assert 0.7 * bound < np.abs(parameters[f"{name}.weight"]).max() <= bound
        assert not parameters[f"{name}.bias"].any()
    assert 0.7 * 10**-0.5 < np.abs(parameters["classifier.weight"]).max() <= 10**-0.5
