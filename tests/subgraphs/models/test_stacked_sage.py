from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_clients import CLASSES, FEATURES, dense_features, random_parameters, tiny_client
from torch_geometric.nn import SAGEConv

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import ModelSettings
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.sage import StackedSAGE

SIZES = (7, 4, 1, 12)


def sage(layers: int = 2) -> StackedSAGE:
    found = graph_network(ModelSettings(name="sage", layers=layers, hidden=5, dropout=0.0), FEATURES, CLASSES)
    assert isinstance(found, StackedSAGE)
    return found


def pyg_logits_and_gradients(
    graph: ClientGraph, parameters: dict[str, torch.Tensor], layers: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """This network from PyG's own layers; gradients of the summed cross-entropy over all nodes."""
    convolutions = torch.nn.ModuleList()
    for layer in range(1, layers + 1):
        width = FEATURES if layer == 1 else 5
        convolution = SAGEConv(width, 5, aggr="mean")
        of_neighbours, of_itself = parameters[f"conv{layer}.weight"].split(width)
        convolution.lin_l.weight.data, convolution.lin_r.weight.data = of_neighbours.T.clone(), of_itself.T.clone()
        convolution.lin_l.bias.data = parameters[f"conv{layer}.bias"].clone()
        convolutions.append(convolution)
    classifier = torch.nn.Linear(5, CLASSES)
    classifier.weight.data = parameters["classifier.weight"].T.clone()
    classifier.bias.data = parameters["classifier.bias"].clone()

    x = torch.from_numpy(dense_features(graph))
    for convolution in convolutions:
        x = convolution(x, torch.from_numpy(graph.edge_index)).relu()
    logits = classifier(x)
    F.cross_entropy(logits, torch.from_numpy(graph.labels), reduction="sum").backward()
    gradients = {"classifier.weight": classifier.weight.grad.T, "classifier.bias": classifier.bias.grad}
    for layer, convolution in enumerate(convolutions, start=1):
        gradients[f"conv{layer}.weight"] = torch.cat([convolution.lin_l.weight.grad.T, convolution.lin_r.weight.grad.T])
        gradients[f"conv{layer}.bias"] = convolution.lin_l.bias.grad
    return logits.detach(), gradients


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_client_of_a_chunk_is_pygs_graph_sage(layers: int, sparse: bool) -> None:
    network = sage(layers)
    graphs = [tiny_client(c, size, sparse=sparse) for c, size in enumerate(SIZES)]
    parameters = {name: value.requires_grad_() for name, value in random_parameters(network, len(graphs)).items()}

    logits = network(parameters, network.chunk(graphs))
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


def test_initial_weights_are_glorot_uniform_over_neighbours_and_node_together() -> None:
    parameters = sage().initial(np.random.default_rng(0))
    assert parameters["conv1.weight"].shape == (2 * FEATURES, 5) and parameters["conv2.weight"].shape == (10, 5)
    bound = (6 / (2 * FEATURES + 5)) ** 0.5
    assert 0.8 * bound < np.abs(parameters["conv1.weight"]).max() <= bound
    assert not parameters["conv1.bias"].any()
