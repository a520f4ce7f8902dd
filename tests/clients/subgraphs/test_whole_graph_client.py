"""FedAvg on full information: a part of the whole graph that gives what the whole graph gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from tiny_clients import (
    CLASSES,
    FEATURES,
    cohort_of,
    dense_features,
    dense_gcn,
    dense_operator,
    family_of,
    random_parameters,
    trained,
)

from subfl_flower.clients.subgraphs.fedavg_whole_graph import WholeGraphClient
from subfl_flower.data.graph import TRAIN, ClientGraph, Graph
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import AnyGraphModel, OptimizerSettings
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.tasks.choices import LinkPrediction

NODES = 80
RING = np.array([(v, (v + step) % NODES) for v in range(NODES) for step in (-1, 1)]).T
"""A ring of 80 nodes: how far a node is from another is their distance along it."""
ROLES = (np.arange(NODES) % 3).astype(np.int8)
HEADS = {"gat": {"heads": 5}}
ASSIGNMENTS = [np.arange(10, 30), np.array([25, 26, 50, 78])]


def ring() -> Graph:
    rng = np.random.default_rng(2)
    features = rng.standard_normal((NODES, FEATURES)).astype(np.float32)
    order = np.lexsort((RING[1], RING[0]))
    return Graph(features, RING[:, order].astype(np.int64), rng.integers(0, CLASSES, NODES), CLASSES)


GRAPH = ring()


def graphs() -> list[ClientGraph]:
    cutter = SubgraphCutter(GRAPH, ROLES, ASSIGNMENTS)
    return [cutter.cut(client_id) for client_id in range(2)]


def client(name: str = "gcn", layers: int = 2, cohort: Cohort | None = None, **changes: Any) -> WholeGraphClient:
    return family_of(
        WholeGraphClient,
        replace(cohort or cohort_of(*graphs()), **{"whole": lambda: (GRAPH, ROLES), **changes}),
        model=TypeAdapter(AnyGraphModel).validate_python(
            {"name": name, "hidden": 5, "layers": layers, "dropout": 0.0, **HEADS.get(name, {})}
        ),
        optimizer=OptimizerSettings(name="adam", lr=0.01),
    )


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["gcn", "sage", "decoupled", "gat", "gin", "mlp", "gcnii"])
def test_outputs_at_own_nodes_are_those_of_the_whole_graph(name: str, layers: int) -> None:
    """Of the same network over the whole graph in one piece."""
    of = client(name, layers)
    parameters = random_parameters(of.model, 2)  # type: ignore[arg-type]
    everything = ClientGraph(
        9, np.arange(NODES), GRAPH.features, GRAPH.edge_index, GRAPH.labels, CLASSES, ROLES, np.zeros(NODES, bool)
    )
    found = of.model(parameters, of.graph_chunk([0, 1]))
    for row, own in enumerate(ASSIGNMENTS):
        its_own = {key: values[row : row + 1] for key, values in parameters.items()}
        expected = of.model(its_own, of.model.chunk([everything]))[0, own]
        torch.testing.assert_close(found[row, : len(own)], expected, atol=1e-5, rtol=1e-5)


def test_a_gcns_outputs_are_those_of_the_dense_formula() -> None:
    of = client()
    parameters = random_parameters(of.model, 1)
    double = {name: values[0].double() for name, values in parameters.items()}
    operator = torch.from_numpy(dense_operator(GRAPH.edge_index, NODES))
    features = torch.from_numpy(dense_features(GRAPH)).double()  # type: ignore[arg-type]
    expected = dense_gcn(double, operator, features)[0].numpy()
    found = of.model(parameters, of.graph_chunk([0]))[0].numpy()
    np.testing.assert_allclose(found, expected[ASSIGNMENTS[0]], atol=1e-5)


@pytest.mark.parametrize(("layers", "first", "second"), [(1, 20, 4), (2, 22, 10), (3, 24, 16)])
def test_nodes_are_kept_as_far_as_layers_reach_own_ones_first(layers: int, first: int, second: int) -> None:
    """10..29 has one neighbour on either side; 25, 26, 50 and 78 have 24, 27, 49, 51, 77 and 79."""
    for position, count in enumerate((first, second)):
        local = client(layers=layers).local_graph(position)
        assert (local.client_id, local.num_own, local.num_nodes) == (position, len(ASSIGNMENTS[position]), count)
        assert local.inputs.shape == (count, FEATURES)
    local = client(layers=2).local_graph(1)
    inputs = dense_operator(GRAPH.edge_index, NODES) @ dense_features(GRAPH)  # type: ignore[arg-type]
    np.testing.assert_allclose(local.inputs, inputs[[25, 26, 50, 78, 24, 27, 49, 51, 77, 79]], atol=1e-6)


def test_it_learns_from_its_own_nodes_alone() -> None:
    of = client()
    assert of.cohort.num_examples == tuple(int((ROLES[own] == TRAIN).sum()) for own in ASSIGNMENTS)
    parameters = {name: np.stack([values] * 2) for name, values in of.model.initial_of(0).items()}
    metrics = trained(of, parameters).metrics
    initial = {name: torch.from_numpy(values).double() for name, values in of.model.initial_of(0).items()}
    operator = torch.from_numpy(dense_operator(GRAPH.edge_index, NODES))
    features = torch.from_numpy(dense_features(GRAPH)).double()  # type: ignore[arg-type]
    logits = dense_gcn(initial, operator, features)[0]
    for row, own in enumerate(ASSIGNMENTS):
        train = own[ROLES[own] == TRAIN]
        assert GRAPH.labels is not None
        expected = torch.nn.functional.cross_entropy(logits[train], torch.from_numpy(GRAPH.labels[train]))
        assert metrics["train_loss"][row] == pytest.approx(float(expected), abs=1e-5)


def test_of_held_out_edges_it_sees_nothing_anywhere() -> None:
    task = LinkPrediction(name="link_prediction", validation_fraction=0.3, test_fraction=0.3)
    cohort = Cohort(tuple(graphs()), FEATURES, CLASSES, torch.device("cpu"), "all", task)
    local = client(cohort=cohort).local_graph(0)
    visible = cohort.visible[0]
    own = local.operator[: local.num_own][:, : local.num_own].tocoo()
    seen = {(int(r), int(c)) for r, c in zip(own.row, own.col, strict=True) if r != c}
    assert seen == set(zip(*visible.edge_index.tolist(), strict=True)) and 0 < len(seen) < 38
    assert local.num_nodes == local.num_own + len(np.unique(visible.cross_edges[1]))


def test_where_the_whole_graph_is_not_at_hand_it_says_so() -> None:
    with pytest.raises(SubflError, match="needs the graph that the clients' subgraphs were cut from"):
        client(whole=None).local_graph(0)
