from __future__ import annotations

import numpy as np
import pytest
import torch
from pyg_networks import Tensors, check_that_every_client_is, classified, placed, propagated
from tiny_clients import CLASSES, FEATURES
from torch_geometric.nn import SAGEConv

from subfl_flower.data.graph import ClientGraph
from subfl_flower.models.settings import ModelSettings
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.sage import StackedSAGE


def sage(layers: int = 2) -> StackedSAGE:
    found = graph_network(ModelSettings(name="sage", layers=layers, hidden=5, dropout=0.0), FEATURES, CLASSES)
    assert isinstance(found, StackedSAGE)
    return found


def pyg_sage(x: torch.Tensor, edges: torch.Tensor, _: ClientGraph, parameters: Tensors) -> torch.Tensor:
    def layer(number: int, inputs: int) -> torch.nn.Module:
        convolution = SAGEConv(inputs, 5, aggr="mean")
        of_neighbours, of_itself = parameters[f"conv{number}.weight"].split(inputs)
        placed(convolution.lin_l, weight=of_neighbours.T, bias=parameters[f"conv{number}.bias"])
        placed(convolution.lin_r, weight=of_itself.T)
        return convolution

    return classified(propagated(x, edges, len(parameters) // 2 - 1, layer), parameters)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("sparse", [False, True])
def test_every_client_of_a_chunk_is_pygs_graph_sage(layers: int, sparse: bool) -> None:
    check_that_every_client_is(pyg_sage, sage(layers), sparse)


def test_initial_weights_are_glorot_uniform_over_neighbours_and_node_together() -> None:
    parameters = sage().initial(np.random.default_rng(0))
    assert parameters["conv1.weight"].shape == (2 * FEATURES, 5) and parameters["conv2.weight"].shape == (10, 5)
    bound = (6 / (2 * FEATURES + 5)) ** 0.5
    assert 0.8 * bound < np.abs(parameters["conv1.weight"]).max() <= bound
    assert not parameters["conv1.bias"].any()
