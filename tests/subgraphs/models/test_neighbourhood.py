from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from own_modules import Tied
from tiny_clients import CLASSES, FEATURES, model, random_parameters, tiny_client

from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import (
    APPNPSettings,
    DecoupledSettings,
    GATSettings,
    GCNIISettings,
    GINSettings,
    MLPSettings,
    ModelSettings,
    ModuleSettings,
    SGCSettings,
)
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.subgraphs.models.graph_network import GraphNetwork
from subfl_flower.subgraphs.models.neighbourhood import neighbourhood

SEEDS = np.array([7, 2])


def star(leaves: int) -> ClientGraph:
    """Node 0 with so many leaves."""
    ends, centre = np.arange(1, leaves + 1), np.zeros(leaves, dtype=np.int64)
    edges = np.stack([np.concatenate([centre, ends]), np.concatenate([ends, centre])])
    return replace(tiny_client(0, leaves + 1), edge_index=edges)


def module(target: str, **arguments: Any) -> GraphNetwork[Any]:
    settings = ModuleSettings.model_validate({"name": "module", "_target_": target, **arguments})
    return graph_network(settings, FEATURES, CLASSES)


NETWORKS = {
    **{f"gcn{layers}": model(layers) for layers in (1, 2, 3)},
    "sage": graph_network(ModelSettings(name="sage", layers=3, hidden=5, dropout=0.0), FEATURES, CLASSES),
    "decoupled": graph_network(
        DecoupledSettings(name="decoupled", hidden=5, dropout=0.0, encoding=8), FEATURES, CLASSES
    ),
    **{
        settings.name: graph_network(settings, FEATURES, CLASSES)
        for settings in (
            GATSettings(name="gat", hidden=6, heads=2, dropout=0.0),
            GINSettings(name="gin", hidden=5, dropout=0.0),
            SGCSettings(name="sgc"),
            MLPSettings(name="mlp", hidden=5, dropout=0.0),
            APPNPSettings(name="appnp", hidden=5, hops=3, dropout=0.0),
            GCNIISettings(name="gcnii", hidden=5, layers=3, dropout=0.0),
        )
    },
    "module": module("torch_geometric.nn.GraphSAGE", hidden_channels=5, num_layers=2),
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=list(NETWORKS))
def test_with_all_neighbours_the_seeds_have_the_outputs_of_the_whole_graph(network: GraphNetwork[Any]) -> None:
    whole = network.local_graph(tiny_client(0, 25, edge_probability=0.08))
    parameters = random_parameters(network, 1)  # type: ignore[arg-type]
    expected = network(parameters, network.stacked([whole]))[0, SEEDS]
    part, nodes = network.sampled(whole, SEEDS, None, np.random.default_rng(0))
    assert nodes[:2].tolist() == SEEDS.tolist() and part.num_nodes < 25
    torch.testing.assert_close(network(parameters, network.stacked([part]))[0, :2], expected)


def test_a_node_hears_itself_and_some_neighbours_whose_weights_make_up_for_the_others() -> None:
    whole = model().local_graph(star(4))
    row, seen = whole.operator.toarray()[0], Counter[tuple[int, ...]]()
    for draw in range(300):
        part, nodes = neighbourhood(whole, np.array([0]), 1, 2, np.random.default_rng(draw), rescale=True)
        heard = nodes[part.operator[[0]].indices]
        weights = dict(zip(heard.tolist(), part.operator[[0]].data, strict=True))
        assert weights.pop(0) == row[0] and len(weights) == 2
        assert weights == pytest.approx({leaf: 2 * row[leaf] for leaf in weights})
        assert part.operator[1:].nnz == 0
        seen[tuple(sorted(weights))] += 1
    # Six pairs of equal chance: 50 each, with a standard deviation of 6.5.
    assert len(seen) == 6 and min(seen.values()) > 20


def test_fewer_neighbours_than_allowed_keep_their_weights() -> None:
    whole = model().local_graph(star(4))
    part, nodes = neighbourhood(whole, np.array([3]), 1, 2, np.random.default_rng(0), rescale=True)
    assert nodes.tolist() == [3, 0]
    assert part.operator.toarray()[0].tolist() == whole.operator.toarray()[3, [3, 0]].tolist()


def test_nodes_that_a_client_was_sent_stay_the_last_ones() -> None:
    gcn = model()
    told = np.random.default_rng(0).standard_normal((10, 5)).astype(np.float32)
    whole = replace(gcn.local_graph(tiny_client(0, 25, edge_probability=0.3), num_own=15), told=told)
    parameters = random_parameters(gcn, 1)
    part, nodes = gcn.sampled(whole, SEEDS, None, np.random.default_rng(0))
    assert (nodes[: part.num_own] < 15).all() and (nodes[part.num_own :] >= 15).all()
    expected = gcn(parameters, gcn.stacked([whole]))[0, SEEDS]
    torch.testing.assert_close(gcn(parameters, gcn.stacked([part]))[0, :2], expected)


def test_a_modules_messages_go_from_drawn_neighbours_to_their_node() -> None:
    network = module("torch_geometric.nn.GraphSAGE", hidden_channels=5, num_layers=1)
    whole = network.local_graph(star(4))
    part, nodes = network.sampled(whole, np.array([0]), 1, np.random.default_rng(0))
    (graph,) = network.stacked([part]).graphs
    assert graph.edge_index.tolist() == [[1], [0]] and graph.edge_weight.tolist() == [1.0] and len(nodes) == 2


def test_a_module_whose_reach_is_unknown_is_refused() -> None:
    network = module(f"{Tied.__module__}.{Tied.__qualname__}")
    with pytest.raises(SubflError, match=r"^task\.batch_size: .*Tied has no layer .* only null is allowed"):
        network.sampled(network.local_graph(star(2)), SEEDS[:1], 1, np.random.default_rng(0))
