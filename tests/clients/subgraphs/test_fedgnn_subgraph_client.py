from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_clients import (
    CLASSES,
    FEATURES,
    answered,
    cohort_of,
    dense_features,
    dense_operator,
    family_of,
    tiny_client,
    trained,
)

from subfl_flower.clients.subgraphs.fedgnn_subgraph import SimilarNodesClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph, Graph
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings, OptimizerSettings
from subfl_flower.node.state import MappedStore, StateStore
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.subgraphs.models.choices import graph_network
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question, Result

HIDDEN = 5
GRAPHS = (tiny_client(4, 9), tiny_client(2, 12, sparse=True))


def nobody() -> tuple[Graph, np.ndarray]:
    """Stands for the whole graph of a simulation."""
    raise AssertionError("nobody asks for the whole graph")


def client(
    *hosted: ClientGraph,
    model: str = "gcn",
    store: StateStore | None = None,
    simulated: bool = True,
    family: type[SubgraphClient] = SimilarNodesClient,
    chunk: int | str = "all",
    hidden: int = HIDDEN,
    privacy: LdpSettings | None = None,
) -> SubgraphClient:
    whole: Callable[[], Any] | None = nobody if simulated else None
    return family_of(
        family,
        replace(cohort_of(*(hosted or GRAPHS), chunk=chunk), whole=whole),
        model=ModelSettings(name=model, hidden=hidden, dropout=0.0),  # type: ignore[arg-type]
        optimizer=OptimizerSettings(name="adam", lr=0.05),
        seed=7,
        store=store,
        privacy=privacy or LdpSettings(),
    )


def parameters(model: str = "gcn", hidden: int = HIDDEN) -> Stack:
    rng = np.random.default_rng(5)
    shapes = graph_network(ModelSettings(name=model, hidden=hidden), FEATURES, CLASSES).shapes  # type: ignore[arg-type]
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def first_layer(values: Stack) -> Stack:
    return {name: array for name, array in values.items() if name.startswith("conv1.")}


def ask(cohort: SubgraphClient, phase: str, client_id: int, sent: Stack, server_round: int = 1) -> Stack:
    return answered(cohort, Question(phase, {client_id: sent}, server_round))[client_id]


def refusal(cohort: SubgraphClient, phase: str, sent: Stack, server_round: int = 1) -> str:
    """Why client 4 does not answer."""
    answers = cohort.answer(Question(phase, {4: sent}, server_round))
    assert answers.arrays == {}
    return answers.failures[4]


def show(cohort: SubgraphClient, client_id: int, model: str = "gcn", server_round: int = 1) -> np.ndarray:
    hidden = cohort.model.settings.hidden
    answer = ask(cohort, "representations", client_id, first_layer(parameters(model, hidden)), server_round)
    assert list(answer) == ["representations"]
    return answer["representations"]


TOLD = np.random.default_rng(1).standard_normal((3, HIDDEN)).astype(np.float32)
EDGES = np.array([[0, 0, 5, 8], [0, 2, 2, 1]], np.int32)
"""Rows of client 4's representations, and which node that was told of each is joined with."""


def mend(cohort: SubgraphClient, server_round: int = 1, told: np.ndarray = TOLD, edges: np.ndarray = EDGES) -> Stack:
    return ask(cohort, "mend", 4, {"representations": told, "edges": edges}, server_round)


def order_of(cohort: SubgraphClient, client_id: int) -> np.ndarray:
    return np.asarray(cohort.store.kept.get(client_id, "shown_order")["order"])


def operators(model: str, edge_index: np.ndarray, num_nodes: int) -> np.ndarray:
    """A layer's operator as a dense matrix: Â, or the mean over neighbours."""
    if model == "gcn":
        return dense_operator(edge_index, num_nodes)
    adjacency = np.zeros((num_nodes, num_nodes))
    adjacency[edge_index[0], edge_index[1]] = 1.0
    return adjacency / np.maximum(adjacency.sum(1, keepdims=True), 1)


def convolved(model: str, operator: np.ndarray, hidden: np.ndarray, values: Stack, layer: int) -> np.ndarray:
    heard = operator @ hidden
    inputs = heard if model == "gcn" else np.hstack([heard, hidden])
    result: np.ndarray = inputs @ values[f"conv{layer}.weight"].astype(float) + values[f"conv{layer}.bias"]
    return result


# Representations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gcn", "sage"])
def test_a_client_shows_the_first_convolution_of_all_its_nodes_in_another_order(model: str) -> None:
    cohort = client(model=model)
    for graph in GRAPHS:
        shown = show(cohort, graph.client_id, model)
        operator = operators(model, graph.edge_index, graph.num_nodes)
        expected = convolved(model, operator, dense_features(graph), parameters(model), 1)
        order = order_of(cohort, graph.client_id)
        assert sorted(order.tolist()) == list(range(graph.num_nodes)) != order.tolist()
        assert shown.dtype == np.float32
        np.testing.assert_allclose(shown, expected[order], atol=1e-5)


def test_what_is_shown_does_not_depend_on_who_else_is_there_and_orders_differ() -> None:
    together, alone = client(chunk="all"), client(GRAPHS[1], chunk=1)
    np.testing.assert_array_equal(show(together, 2), show(alone, 2))
    order = order_of(alone, 2)
    show(alone, 2, server_round=2)
    assert order_of(alone, 2).tolist() != order.tolist()
    show(alone, 2, server_round=1)
    assert order_of(alone, 2).tolist() == order.tolist()


def test_on_a_machine_of_its_own_a_client_draws_what_the_seed_does_not_tell() -> None:
    graph = tiny_client(0, 60)
    orders = []
    for simulated in (True, True, False, False):
        cohort = client(graph, simulated=simulated)
        show(cohort, 0)
        orders.append(order_of(cohort, 0).tolist())
    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3


def test_each_nodes_representation_is_clipped_and_gets_noise_by_itself() -> None:
    graph = tiny_client(0, 150)
    plain = show(client(graph, hidden=64), 0)
    lengths = np.linalg.norm(plain, axis=1)
    clip = float(np.median(lengths))
    gaussian = LdpSettings(mechanism="gaussian_l2", clip=clip, noise_multiplier=0.25)
    noised = show(client(graph, hidden=64, privacy=gaussian), 0)
    clipped = plain * np.minimum(1, clip / lengths)[:, None]
    noise = noised - clipped
    scale = 0.25 * 2 * clip
    # 9600 normal variates: the deviation is within 4 / sqrt(2 · 9600) of its value, the mean within 4 / sqrt(9600).
    assert noise.std() == pytest.approx(scale, rel=0.03) and abs(noise.mean()) < 0.041 * scale
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.041  # no row's noise is another's
    laplace = LdpSettings(mechanism="laplace_l1", clip=3.0, epsilon=1e9)
    sums = np.abs(show(client(graph, hidden=64, privacy=laplace), 0)).sum(1)
    np.testing.assert_allclose(sums, np.minimum(3.0, np.abs(plain).sum(1)), rtol=1e-4)


def test_noise_is_new_in_every_round_and_parameters_get_none() -> None:
    noise = LdpSettings(mechanism="gaussian_l2", clip=1.0, noise_multiplier=10.0)
    cohort, plain = client(privacy=noise), client(family=SubgraphClient)
    one, other = show(cohort, 4), show(cohort, 4, server_round=2)
    assert abs(np.corrcoef(np.sort(one.ravel()), np.sort(other.ravel()))[0, 1] - 1) > 1e-6
    np.testing.assert_array_equal(show(cohort, 4), one)
    found, expected = fit(cohort).arrays, fit(plain).arrays
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


# Extended graphs ------------------------------------------------------------------------------------------------------


def fit(cohort: SubgraphClient, server_round: int = 1) -> Result:
    sent = {name: np.stack([values] * len(cohort.cohort.client_ids)) for name, values in parameters().items()}
    result = trained(cohort, sent, server_round, epochs=2)
    assert result.failures == {}
    return result


@pytest.mark.parametrize("model", ["gcn", "sage"])
def test_the_second_convolution_hears_the_nodes_that_a_client_was_told_of(model: str) -> None:
    """Against the dense formula: the first layer over the own graph, the second over the extended one."""
    cohort = client(model=model)
    graph, values = GRAPHS[0], parameters(model)
    show(cohort, 4, model)
    assert mend(cohort) == {}
    order = order_of(cohort, 4)
    added = np.stack([order[EDGES[0]], 9 + EDGES[1]])
    joined = np.concatenate([graph.edge_index, added, added[::-1]], axis=1)
    own_first = convolved(model, operators(model, graph.edge_index, 9), dense_features(graph), values, 1)
    first = np.concatenate([own_first, TOLD])
    second = convolved(model, operators(model, joined, 12), np.maximum(first, 0), values, 2)
    expected = np.maximum(second, 0)[:9] @ values["classifier.weight"] + values["classifier.bias"]
    stacked = {name: torch.from_numpy(np.stack([array] * 2)) for name, array in values.items()}
    found = cohort.model(stacked, cohort.graph_chunk([0, 1]))
    assert found.shape == (2, 12, CLASSES)
    np.testing.assert_allclose(found[0, :9], expected, atol=1e-4)
    plain = client(model=model, family=SubgraphClient)
    np.testing.assert_allclose(found[1], plain.model(stacked, plain.graph_chunk([0, 1]))[1], atol=1e-6)


def test_a_client_that_was_told_of_nothing_trains_on_its_own_graph() -> None:
    cohort, plain = client(), client(family=SubgraphClient)
    show(cohort, 4)
    mend(cohort, told=TOLD[:0], edges=EDGES[:, :0])
    found, expected = fit(cohort).arrays, fit(plain).arrays
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])


def test_training_follows_what_a_client_was_told_last() -> None:
    cohort, plain = client(), client(family=SubgraphClient)
    before, expected = fit(cohort).metrics, fit(plain).metrics
    np.testing.assert_array_equal(before["train_loss"], expected["train_loss"])
    show(cohort, 4, server_round=2)
    mend(cohort, 2)
    after, expected = fit(cohort, 2).metrics, fit(plain, 2).metrics
    assert abs(after["train_loss"][0] - expected["train_loss"][0]) > 1e-4
    assert after["train_loss"][1] == pytest.approx(expected["train_loss"][1], abs=1e-5)
    show(cohort, 4, server_round=3)
    assert cohort.graph_version(0) == 2  # shown, and not told yet
    mend(cohort, 3, told=TOLD[:0], edges=EDGES[:, :0])
    assert cohort.graph_version(0) == 3 and cohort.graph_version(1) == 0
    after, expected = fit(cohort, 3).metrics, fit(plain, 3).metrics
    assert cohort.local_graph(0).num_nodes == 9
    assert after["train_loss"][1] == pytest.approx(expected["train_loss"][1], abs=1e-5)


def test_nodes_that_a_client_was_told_of_are_not_shown() -> None:
    cohort = client()
    before = show(cohort, 4)
    mend(cohort)
    assert cohort.local_graph(0).num_nodes == 12
    np.testing.assert_array_equal(show(cohort, 4), before)


def test_every_process_of_a_node_goes_on_with_what_another_was_told(tmp_path: Any) -> None:
    """As under Ray: one actor shows, another is told, a third one trains."""
    kept_here = client()
    show(kept_here, 4)
    mend(kept_here)
    expected = fit(kept_here).metrics["train_loss"]
    show(client(store=MappedStore(tmp_path)), 4)
    mend(client(store=MappedStore(tmp_path)))
    np.testing.assert_array_equal(fit(client(store=MappedStore(tmp_path))).metrics["train_loss"], expected)


def test_wider_told_nodes_than_own_ones_leave_losses_to_own_nodes() -> None:
    """More nodes than the client has, joined with one of them: its other nodes' outputs change only within reach."""
    cohort = client()
    show(cohort, 4)
    many = np.random.default_rng(0).standard_normal((30, HIDDEN)).astype(np.float32)
    edges = np.stack([np.zeros(30), np.arange(30)]).astype(np.int32)
    mend(cohort, told=many, edges=edges)
    local = cohort.local_graph(0)
    assert (local.num_own, local.num_nodes) == (9, 39)
    joined = int(order_of(cohort, 4)[0])
    assert np.diff(local.operator.indptr)[joined] == 1 + 30 + int((GRAPHS[0].edge_index[0] == joined).sum())
    metrics = fit(cohort).metrics
    assert np.isfinite(metrics["train_loss"]).all() and metrics["num_examples"].tolist() == [3, 4]


# What is refused ------------------------------------------------------------------------------------------------------


def test_what_the_server_may_not_send() -> None:
    cohort = client()
    first = first_layer(parameters())
    for wrong, said in (
        ({"conv1.weight": first["conv1.weight"]}, "cannot be used: 'conv1.bias'"),
        ({**first, "conv1.weight": first["conv1.weight"][:-1]}, r"conv1\.weight must be float32 \[6, 5\]"),
        ({**first, "conv1.bias": np.zeros(5)}, r"conv1\.bias must be float32 \[5\]"),
    ):
        reason = refusal(cohort, "representations", wrong)
        assert re.search(rf"^what the server sent with query\.representations .*{said}", reason)
    show(cohort, 4)
    for told, edges, said in (
        (TOLD[:, :4], EDGES, r"must be float32 \[nodes, 5\]"),
        (TOLD[:2], EDGES, "edges must join 9 own with 2 similar nodes"),
        (TOLD * np.float32(np.inf), EDGES, "must be finite"),
    ):
        reason = refusal(cohort, "mend", {"representations": told, "edges": edges})
        assert re.search(rf"^what the server sent with query\.mend cannot be used: .*{said}", reason)
    assert cohort.graph_version(0) == 0


def test_who_has_shown_nothing_cannot_be_told_anything() -> None:
    cohort = client()
    told = {"representations": TOLD, "edges": EDGES}
    assert "client 4 has shown no representations before round 1" in refusal(cohort, "mend", told)
    show(cohort, 4)
    assert "client 4 has shown no representations before round 2" in refusal(cohort, "mend", told, 2)


def test_other_phases_are_refused() -> None:
    with pytest.raises(SubflError, match=r"SimilarNodesClient has no answer to query\.structure"):
        ask(client(), "structure", 4, {})


def test_a_model_that_would_never_hear_the_new_nodes_is_refused() -> None:
    SimilarNodesClient.check_model(ModelSettings(name="sage", layers=2), "fedgnn_subgraph")
    with pytest.raises(SubflError, match=r"^model\.layers: .* must be at least 2 \(found 1\)$"):
        SimilarNodesClient.check_model(ModelSettings(name="gcn", layers=1), "fedgnn_subgraph")
