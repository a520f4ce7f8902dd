from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_clients import CLASSES, FEATURES, dense_features, random_parameters, tiny_client
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv
from torch_geometric.transforms import AddRandomWalkPE

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import DecoupledSettings
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.chunk import StackedChunk
from subfl_flower.subgraphs.models.decoupled import StackedDecoupled
from subfl_flower.tasks.choices import NodeClassification

SIZES = (7, 4, 1, 12)
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


def pyg_logits_and_gradients(
    graph: ClientGraph, parameters: dict[str, torch.Tensor], layers: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """This network from PyG's own layers; gradients of the summed cross-entropy over all nodes."""
    edges = torch.from_numpy(graph.edge_index)
    convolutions: dict[str, GCNConv] = {}
    outputs = []
    for stem, inputs in (("conv", torch.from_numpy(dense_features(graph))), ("topology", pyg_encoding(graph))):
        x = inputs
        for layer in range(1, layers + 1):
            name = f"{stem}{layer}"
            convolution = convolutions[name] = GCNConv(x.shape[1], HIDDEN)
            convolution.lin.weight.data = parameters[f"{name}.weight"].T.clone()
            convolution.bias.data = parameters[f"{name}.bias"].clone()
            x = convolution(x, edges).relu()
        outputs.append(x)
    classifier = torch.nn.Linear(2 * HIDDEN, CLASSES)
    classifier.weight.data = parameters["classifier.weight"].T.clone()
    classifier.bias.data = parameters["classifier.bias"].clone()
    logits = classifier(torch.cat(outputs, dim=1))
    F.cross_entropy(logits, torch.from_numpy(graph.labels), reduction="sum").backward()
    gradients = {"classifier.weight": classifier.weight.grad.T, "classifier.bias": classifier.bias.grad}
    for name, convolution in convolutions.items():
        gradients |= {f"{name}.weight": convolution.lin.weight.grad.T, f"{name}.bias": convolution.bias.grad}
    return logits.detach(), gradients


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_client_of_a_chunk_is_two_gcns_of_pyg(layers: int, sparse: bool) -> None:
    network = decoupled(layers)
    graphs = [tiny_client(c, size, sparse=sparse) for c, size in enumerate(SIZES)]
    parameters = {name: value.requires_grad_() for name, value in random_parameters(network, len(graphs)).items()}

    logits = network(parameters, network.chunk(graphs))
    assert logits.shape == (len(graphs), max(SIZES), CLASSES)
    loss = sum(
        F.cross_entropy(logits[c, : graph.num_nodes], torch.from_numpy(graph.labels), reduction="sum")
        for c, graph in enumerate(graphs)
    )
    gradients = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    for c, graph in enumerate(graphs):
        own = {name: value[c].detach() for name, value in parameters.items()}
        expected, expected_gradients = pyg_logits_and_gradients(graph, own, layers)
        torch.testing.assert_close(logits[c, : graph.num_nodes].detach(), expected, atol=1e-5, rtol=1e-5)
        for name, gradient in gradients.items():
            torch.testing.assert_close(gradient[c], expected_gradients[name], atol=1e-5, rtol=1e-5)


def test_a_client_computes_the_same_alone_and_beside_larger_ones() -> None:
    network = decoupled(dropout=0.5)
    graphs = [tiny_client(c, size) for c, size in enumerate(SIZES)]
    parameters = random_parameters(network, len(graphs))
    task = NodeClassification(name="node_classification")

    def outcome(positions: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        chunk = network.chunk([graphs[position] for position in positions])
        dropout = network.dropout_masks(chunk, [np.random.default_rng(p) for p in positions], torch.device("cpu"))
        leaves = {name: value[positions].clone().requires_grad_() for name, value in parameters.items()}
        logits = network(leaves, chunk, dropout)
        examples = task.examples([graphs[position] for position in positions], torch.device("cpu"))
        examples.losses(logits, []).sum().backward()
        return logits.detach(), {name: leaf.grad for name, leaf in leaves.items()}

    together, gradients = outcome([0, 1, 2, 3])
    for position, size in enumerate(SIZES):
        alone, own_gradients = outcome([position])
        torch.testing.assert_close(together[position, :size], alone[0], atol=1e-6, rtol=1e-5)
        for name, gradient in own_gradients.items():
            torch.testing.assert_close(gradients[name][position], gradient[0], atol=1e-6, rtol=1e-5)


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
