"""Stacked networks against the same networks from PyG's own layers, client by client, and against themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tiny_clients import CLASSES, dense_features, random_parameters, tiny_client

from subfl_flower.data.graph import ClientGraph
from subfl_flower.tasks.choices import NodeClassification

SIZES = (7, 4, 1, 12)
Tensors = dict[str, torch.Tensor]
TASK = NodeClassification(name="node_classification")


def placed(layer: torch.nn.Module, **tensors: torch.Tensor) -> torch.nn.Module:
    """The layer with these tensors in place of its parameters, so that gradients reach what they were made of."""
    for name, tensor in tensors.items():
        del layer._parameters[name]
        setattr(layer, name, tensor)
    return layer


def propagated(
    x: torch.Tensor, edges: torch.Tensor, layers: int, layer_of: Callable[[int, int], torch.nn.Module]
) -> torch.Tensor:
    """The outputs of convolutions, each followed by a ReLU; `layer_of` makes one from its number and its inputs."""
    for number in range(1, layers + 1):
        x = layer_of(number, x.shape[1])(x, edges).relu()
    return x


def classified(hidden: torch.Tensor, parameters: Tensors) -> torch.Tensor:
    """The outputs of a linear classifier."""
    weight, bias = parameters["classifier.weight"], parameters["classifier.bias"]
    return placed(torch.nn.Linear(*weight.shape), weight=weight.T, bias=bias)(hidden)


def check_that_every_client_is(
    pyg: Callable[[torch.Tensor, torch.Tensor, ClientGraph, Tensors], torch.Tensor], network: Any, sparse: bool
) -> None:
    """Each client's logits, and the gradients of its summed cross-entropy, are those of a network of PyG's.

    Args:
        pyg: the logits of a client from its features, its edges, its graph and its parameters.
        network: the stacked network.
        sparse: whether clients' features are.
    """
    graphs = [tiny_client(c, size, sparse=sparse) for c, size in enumerate(SIZES)]
    parameters = {name: value.requires_grad_() for name, value in random_parameters(network, len(graphs)).items()}
    logits = network(parameters, network.chunk(graphs))
    assert logits.shape == (len(graphs), max(SIZES), CLASSES)
    for c, graph in enumerate(graphs):
        labels = torch.from_numpy(graph.labels)
        own = {name: value[c].detach().clone().requires_grad_() for name, value in parameters.items()}
        expected = pyg(torch.from_numpy(dense_features(graph)), torch.from_numpy(graph.edge_index), graph, own)
        found = logits[c, : graph.num_nodes]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        F.cross_entropy(expected, labels, reduction="sum").backward()
        loss = F.cross_entropy(found, labels, reduction="sum")
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        for (name, leaf), gradient in zip(own.items(), gradients, strict=True):
            torch.testing.assert_close(gradient[c], leaf.grad, atol=1e-5, rtol=1e-5, msg=name)
            assert not gradient[torch.arange(len(graphs)) != c].any()


def check_that_a_client_computes_the_same_alone(network: Any, graphs: Sequence[ClientGraph]) -> None:
    """A client computes the same alone and next to larger ones, with dropout: losses of padded rows do not count."""
    parameters = random_parameters(network, len(graphs))

    def outcome(positions: list[int]) -> tuple[torch.Tensor, Tensors]:
        chosen = [graphs[position] for position in positions]
        chunk = network.chunk(chosen)
        dropout = network.dropout_masks(chunk, [np.random.default_rng(p) for p in positions], torch.device("cpu"))
        leaves = {name: value[positions].clone().requires_grad_() for name, value in parameters.items()}
        logits = network(leaves, chunk, dropout)
        TASK.examples(chosen, torch.device("cpu")).losses(logits, []).sum().backward()
        return logits.detach(), {name: leaf.grad for name, leaf in leaves.items()}

    together, gradients = outcome(list(range(len(graphs))))
    for position, graph in enumerate(graphs):
        alone, own_gradients = outcome([position])
        torch.testing.assert_close(together[position, : graph.num_nodes], alone[0], atol=1e-6, rtol=1e-5)
        for name, gradient in own_gradients.items():
            torch.testing.assert_close(gradients[name][position], gradient[0], atol=1e-6, rtol=1e-5)
