"""Local graphs with nodes that are not the client's own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clients import FEATURES, dense_gcn, dense_operator, model, random_parameters, tiny_client

from subfl_flower.models.settings import ModelSettings
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.chunk import StackedChunk


@pytest.mark.parametrize("name", ["gcn", "sage"])
def test_further_nodes_pass_messages_and_have_no_output(name: str) -> None:
    network = graph_network(ModelSettings(name=name, hidden=5, dropout=0.0), FEATURES, 3)  # type: ignore[arg-type]
    larger, other = tiny_client(0, 9), tiny_client(1, 4)
    parameters = random_parameters(network, 2)
    everything = network(parameters, network.chunk([larger, other]))
    mended = StackedChunk.build([network.local_graph(larger, num_own=6), network.local_graph(other)])
    assert (mended.width, mended.own_width) == (9, 6)
    found = network(parameters, mended)
    assert found.shape == (2, 6, 3)
    torch.testing.assert_close(found, everything[:, :6])


def test_what_a_client_was_told_takes_the_place_of_the_first_convolution() -> None:
    gcn = model()
    graph, plain = tiny_client(0, 8, edge_probability=0.6), tiny_client(1, 5)
    parameters = random_parameters(gcn, 2)
    told = np.random.default_rng(0).standard_normal((3, 5)).astype(np.float32)
    local = replace(gcn.local_graph(graph, num_own=5), told=told)
    found = gcn(parameters, StackedChunk.build([local, gcn.local_graph(plain)]))

    own = {name: value[0].double() for name, value in parameters.items()}
    operator = torch.from_numpy(dense_operator(graph.edge_index, 8))
    first = operator @ torch.from_numpy(graph.features).double() @ own["conv1.weight"] + own["conv1.bias"]
    first[5:] = torch.from_numpy(told)
    second = (operator @ first.relu() @ own["conv2.weight"] + own["conv2.bias"]).relu()
    expected = (second @ own["classifier.weight"] + own["classifier.bias"])[:5]
    torch.testing.assert_close(found[0], expected.float(), atol=1e-5, rtol=1e-5)
    alone, _ = dense_gcn(
        {name: value[1] for name, value in parameters.items()},
        torch.from_numpy(dense_operator(plain.edge_index, 5)).float(),
        torch.from_numpy(plain.features),
    )
    torch.testing.assert_close(found[1], alone, atol=1e-5, rtol=1e-5)
