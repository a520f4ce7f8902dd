"""FedGCN's clients and server against a GCN on the whole graph: what the exchange comes to, and who is told what."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tiny_clients import (
    CLASSES,
    FEATURES,
    answered,
    cohort_of,
    dense_features,
    dense_gcn,
    dense_operator,
    family_of,
    random_parameters,
    trained,
)

from subfl_flower.clients.subgraphs.fedgcn import FedGCNClient
from subfl_flower.data.graph import TRAIN, ClientGraph, Graph
from subfl_flower.data.subgraphs import SubgraphCutter
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModelSettings, OptimizerSettings
from subfl_flower.models.sparse import normalised_adjacency
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.node.state import MemoryStore
from subfl_flower.privacy.tokens import item_tokens
from subfl_flower.strategies.subgraphs.fedgcn import FedGCN
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.mending.packed_rows import dense, unpacked_rows
from subfl_flower.tasks.choices import LinkPrediction
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question
from subfl_flower.wire.roster import Roster

NODES = 90
KEY = bytes(range(32))
DISJOINT = [np.arange(0, 25), np.arange(25, 40), np.arange(40, 90)]
OVERLAPPING = [np.arange(0, 45), np.arange(20, 60), np.concatenate([np.arange(0, 10), np.arange(40, 90)])]
"""Every node is held by somebody; some by all three."""
WITH_GAPS = [np.arange(0, 40), np.arange(30, 55), np.arange(65, 90)]
"""Nobody holds the nodes 55 to 64."""


def whole_graph(sparse: bool = False) -> Graph:
    rng = np.random.default_rng(3)
    upper = np.triu(rng.random((NODES, NODES)) < 0.06, k=1)
    features = rng.standard_normal((NODES, FEATURES)).astype(np.float32)
    features[rng.random(features.shape) < 0.8] = 0.0
    edge_index = np.stack(np.nonzero(upper | upper.T)).astype(np.int64)
    labels = rng.integers(0, CLASSES, NODES)
    return Graph(sp.csr_array(features) if sparse else features, edge_index, labels, CLASSES)


GRAPH = whole_graph()


def weighted_graph(sparse: bool) -> tuple[Graph, np.ndarray]:
    """`GRAPH` with weights, and the matrix of them."""
    upper = np.triu(np.random.default_rng(5).random((NODES, NODES)) * 4 + 0.05)
    edges = GRAPH.edge_index
    weight = (upper + upper.T)[tuple(edges)].astype(np.float32)
    adjacency = np.zeros((NODES, NODES))
    adjacency[tuple(edges)] = weight
    return replace(whole_graph(sparse), edge_weight=weight), adjacency


ROLES = (np.arange(NODES) % 3).astype(np.int8)


def clients_graphs(assignments: Sequence[np.ndarray], graph: Graph = GRAPH) -> list[ClientGraph]:
    cutter = SubgraphCutter(graph, ROLES, list(assignments))
    return [cutter.cut(client_id) for client_id in range(len(assignments))]


class Clients:
    """Stands for an exchange with one node of FedGCN's clients, and keeps what the server received.

    Attributes:
        received: what each client answered, by action, then by client; of the last time it was asked.
        sent: what each client was sent, likewise.
    """

    def __init__(self, client: FedGCNClient, failing: Mapping[str, Sequence[int]] | None = None) -> None:
        self.client = client
        self.failing = dict(failing or {})
        self.received: dict[str, dict[int, Stack]] = {}
        self.sent: dict[str, dict[int, Stack]] = {}
        self.asked: list[tuple[str, list[int]]] = []

    def ask(
        self,
        action: str,
        decode: Callable[[Stack], Any],
        largest: Sequence[int],
        sent: Mapping[int, Stack] | None = None,
        about: Mapping[str, int] | None = None,
    ) -> list[Any]:
        ids = self.client.cohort.client_ids
        stacks = {client: {} for client in ids} if sent is None else {ids[p]: stack for p, stack in sent.items()}
        self.asked.append((action, sorted(stacks)))
        asked = {client: stack for client, stack in stacks.items() if client not in self.failing.get(action, ())}
        question = Question(action, asked, about={"id": "run-1", **(about or {})})
        found = answered(self.client, question)
        answers: list[Any] = [None] * len(ids)
        for position, client in enumerate(ids):
            if client in asked:
                answer = found[client]
                assert sum(values.nbytes for values in answer.values()) <= largest[position] - 4000
                self.received.setdefault(action, {})[client] = answer
                self.sent.setdefault(action, {})[client] = stacks[client]
                answers[position] = decode(answer)
        return answers


@pytest.fixture
def key(tmp_path: Path) -> SharedKey:
    path = tmp_path / "clients.key"
    path.write_bytes(KEY)
    return SharedKey(path)


def fedgcn(cohort: Cohort, layers: int = 2, store: MemoryStore | None = None, **settings: Any) -> FedGCNClient:
    network = ModelSettings(name="gcn", hidden=5, layers=layers, dropout=0.0)
    return family_of(
        FedGCNClient, cohort, settings, model=network, optimizer=OptimizerSettings(name="adam"), store=store
    )


def exchanged(
    graphs: Sequence[ClientGraph],
    key: SharedKey,
    layers: int = 2,
    failing: Mapping[str, Sequence[int]] | None = None,
    **settings: Any,
) -> Clients:
    """The clients, after the server has asked them all that it asks."""
    client = fedgcn(replace(cohort_of(*graphs), shared_key=key), layers, **settings)
    return led(client, failing)


def led(client: FedGCNClient, failing: Mapping[str, Sequence[int]] | None = None) -> Clients:
    clients, graphs = Clients(client, failing), client.cohort.graphs
    sizes = np.array([graph.num_nodes for graph in graphs], dtype=float)
    ids = client.cohort.client_ids
    roster = Roster(ids, tuple(range(len(ids))), sizes, sizes, sizes, FEATURES, CLASSES, False)
    FedGCN(client.run, roster).set_up(clients)  # type: ignore[arg-type]
    return clients


def outputs(client: FedGCNClient, parameters: dict[str, torch.Tensor]) -> list[np.ndarray]:
    """Each client's outputs at its own nodes, under the same parameters."""
    graphs = client.cohort.graphs
    stacked = {name: values.expand(len(graphs), *values.shape[1:]) for name, values in parameters.items()}
    found = client.model(stacked, client.graph_chunk(range(len(graphs))))
    return [found[row, : graph.num_nodes].numpy() for row, graph in enumerate(graphs)]


def expected_outputs(operator: np.ndarray, parameters: dict[str, torch.Tensor]) -> np.ndarray:
    """A GCN's outputs at all nodes, with a given operator."""
    double = {name: values[0].double() for name, values in parameters.items()}
    features = torch.from_numpy(dense_features(GRAPH)).double()  # type: ignore[arg-type]
    return dense_gcn(double, torch.from_numpy(operator), features)[0].numpy()


PARAMETERS_OF = {
    layers: random_parameters(fedgcn(cohort_of(*clients_graphs(DISJOINT)), layers).model, 1) for layers in (1, 2, 3)
}
OPERATOR = dense_operator(GRAPH.edge_index, NODES)


# What it comes to -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masking", [False, True], ids=["open", "masked"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("assignments", [DISJOINT, OVERLAPPING], ids=["disjoint", "overlapping"])
@pytest.mark.parametrize("layers", [1, 2])
def test_outputs_are_those_of_the_whole_graph(
    layers: int, assignments: list[np.ndarray], sparse: bool, masking: bool, key: SharedKey
) -> None:
    graphs = clients_graphs(assignments, whole_graph(sparse))
    clients = exchanged(graphs, key, layers, masking=masking)
    found, expected = outputs(clients.client, PARAMETERS_OF[layers]), expected_outputs(OPERATOR, PARAMETERS_OF[layers])
    for graph, values in zip(graphs, found, strict=True):
        np.testing.assert_allclose(values, expected[graph.node_ids], atol=1e-5)
    alone = outputs(fedgcn(cohort_of(*graphs), layers), PARAMETERS_OF[layers])
    assert (
        max(np.abs(values - expected[graph.node_ids]).max() for graph, values in zip(graphs, alone, strict=True)) > 0.1
    )


@pytest.mark.parametrize("masking", [False, True], ids=["open", "masked"])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("assignments", [DISJOINT, OVERLAPPING], ids=["disjoint", "overlapping"])
def test_outputs_on_a_weighted_graph_are_those_of_the_whole_graph(
    assignments: list[np.ndarray], sparse: bool, masking: bool, key: SharedKey
) -> None:
    """Degrees are no whole numbers, and every edge is counted by its weight."""
    graph, adjacency = weighted_graph(sparse)
    graphs = clients_graphs(assignments, graph)
    clients = exchanged(graphs, key, masking=masking)
    closed = adjacency + np.eye(NODES)
    operator = closed / np.sqrt(np.outer(closed.sum(1), closed.sum(1)))
    expected = expected_outputs(operator, PARAMETERS_OF[2])
    for own, values in zip(graphs, outputs(clients.client, PARAMETERS_OF[2]), strict=True):
        np.testing.assert_allclose(values, expected[own.node_ids], atol=1e-5)
    for client, told in clients.sent["mend"].items():
        assert told["degrees"].dtype == np.float64
        local = clients.client.local_graph(client)
        assert local.num_nodes > local.num_own
        elsewhere = np.unique(graphs[client].cross_edges[1])
        nodes = np.concatenate([graphs[client].node_ids, elsewhere])
        inputs = operator @ dense_features(GRAPH)  # type: ignore[arg-type]
        np.testing.assert_allclose(dense(local.inputs), inputs[nodes], atol=1e-5)
    unweighted = expected_outputs(OPERATOR, PARAMETERS_OF[2])
    assert np.abs(expected - unweighted).max() > 0.1


def test_weights_of_one_are_no_weights(key: SharedKey) -> None:
    """To the last bit, and in the same bytes."""
    ones = replace(GRAPH, edge_weight=np.ones(GRAPH.num_edges, dtype=np.float32))
    plain, weighted = (exchanged(clients_graphs(OVERLAPPING, graph), key) for graph in (GRAPH, ones))
    for one, other in ((plain.received, weighted.received), (plain.sent, weighted.sent)):
        for action, stacks in one.items():
            for client, stack in stacks.items():
                for name, values in stack.items():
                    found = other[action][client][name]
                    assert found.dtype == values.dtype and np.array_equal(found, values)
    for position in range(3):
        local, expected = (clients.client.local_graph(position) for clients in (weighted, plain))
        np.testing.assert_array_equal(local.operator.data, expected.operator.data)
        np.testing.assert_array_equal(local.inputs, expected.inputs)


def test_a_neighbour_that_nobody_holds_is_left_out_and_counts_in_the_degree(key: SharedKey) -> None:
    graphs = clients_graphs(WITH_GAPS)
    held = np.isin(np.arange(NODES), np.concatenate(WITH_GAPS))
    operator = OPERATOR * held[:, None] * held
    found, expected = (
        outputs(exchanged(graphs, key).client, PARAMETERS_OF[2]),
        expected_outputs(operator, PARAMETERS_OF[2]),
    )
    for graph, values in zip(graphs, found, strict=True):
        np.testing.assert_allclose(values, expected[graph.node_ids], atol=1e-5)


def test_with_a_third_layer_outputs_come_nearer_to_the_whole_graphs(key: SharedKey) -> None:
    graphs = clients_graphs(DISJOINT)
    expected = expected_outputs(OPERATOR, PARAMETERS_OF[3])

    def error(client: FedGCNClient) -> float:
        found = outputs(client, PARAMETERS_OF[3])
        return sum(float(((v - expected[g.node_ids]) ** 2).sum()) for g, v in zip(graphs, found, strict=True))

    mended, alone = (error(exchanged(graphs, key, 3, hops=hops).client) for hops in (2, 0))
    assert 1e-4 < mended < 0.01 * alone


@pytest.mark.parametrize("assignments", [DISJOINT, OVERLAPPING], ids=["disjoint", "overlapping"])
def test_with_one_hop_inputs_are_those_of_the_whole_graph_and_the_rest_is_the_clients_own(
    assignments: list[np.ndarray], key: SharedKey
) -> None:
    graphs = clients_graphs(assignments)
    client = exchanged(graphs, key, hops=1).client
    inputs = OPERATOR @ dense_features(GRAPH)  # type: ignore[arg-type]
    for position, graph in enumerate(graphs):
        local, own = client.local_graph(position), graph.node_ids
        assert local.num_own == local.num_nodes == graph.num_nodes
        np.testing.assert_allclose(local.inputs, inputs[own], atol=1e-6)
        expected = dense_operator(graph.edge_index, graph.num_nodes)
        np.testing.assert_allclose(local.operator.toarray(), expected, atol=1e-6)


def test_without_hops_nobody_is_asked_and_the_graph_is_the_clients_own(key: SharedKey) -> None:
    clients = exchanged(clients_graphs(OVERLAPPING), key, hops=0)
    assert clients.asked == []
    for position, graph in enumerate(clients.client.cohort.graphs):
        assert clients.client.graph_version(position) == 0
        expected = dense_operator(graph.edge_index, graph.num_nodes)
        np.testing.assert_allclose(clients.client.local_graph(position).operator.toarray(), expected, atol=1e-6)


def test_the_task_says_which_edges_count(key: SharedKey) -> None:
    """Of the whole graph the clients see the training edges, and nothing of the others, not even in a degree."""
    task = LinkPrediction(name="link_prediction", validation_fraction=0.2, test_fraction=0.3)
    graphs = clients_graphs(OVERLAPPING)
    cohort = Cohort(tuple(graphs), FEATURES, CLASSES, torch.device("cpu"), "all", task, key)
    client = led(fedgcn(cohort)).client
    whole = ClientGraph(
        0, np.arange(NODES), GRAPH.features, GRAPH.edge_index, GRAPH.labels, CLASSES, ROLES, np.zeros(NODES, bool)
    )
    seen = task.visible(whole).edge_index
    assert 0 < seen.shape[1] < GRAPH.edge_index.shape[1]
    operator = normalised_adjacency(seen, NODES).toarray()
    parameters = random_parameters(client.model, 1)
    expected = expected_outputs(operator.astype(float), parameters)
    for graph, values in zip(graphs, outputs(client, parameters), strict=True):
        np.testing.assert_allclose(values, expected[graph.node_ids], atol=1e-5)


# What is kept ---------------------------------------------------------------------------------------------------------


def test_another_process_finds_what_was_told(key: SharedKey) -> None:
    graphs = clients_graphs(OVERLAPPING)
    told = exchanged(graphs, key).client
    again = fedgcn(told.cohort, store=told.store)  # type: ignore[arg-type]
    for position in range(len(graphs)):
        assert again.graph_version(position) == told.graph_version(position) == 1
        one, other = told.local_graph(position), again.local_graph(position)
        assert (one.operator != other.operator).nnz == 0 and np.array_equal(one.inputs, other.inputs)


def test_who_was_told_nothing_trains_on_its_own_graph(key: SharedKey) -> None:
    graphs = clients_graphs(DISJOINT)
    clients = exchanged(graphs, key, failing={"mend": [1]})
    assert [clients.client.graph_version(position) for position in range(3)] == [1, 0, 1]
    expected = fedgcn(cohort_of(*graphs)).local_graph(1)
    found = clients.client.local_graph(1)
    assert (found.operator != expected.operator).nnz == 0 and np.array_equal(found.inputs, expected.inputs)
    parameters = {name: np.zeros((3, *shape), np.float32) for name, shape in clients.client.model.shapes.items()}
    assert trained(clients.client, parameters).clients == (0, 1, 2)


@pytest.mark.parametrize("masking", [False, True], ids=["open", "masked"])
@pytest.mark.parametrize("phase", ["boundary", "neighbours"])
def test_without_a_client_sums_are_as_if_nobody_held_its_nodes(phase: str, masking: bool, key: SharedKey) -> None:
    """Client 0 holds 0 to 44, client 1 20 to 59, client 2 0 to 9 and 40 to 89: without client 1 nothing is missing."""
    graphs = clients_graphs(OVERLAPPING)
    clients = exchanged(graphs, key, failing={phase: [1]}, masking=masking)
    held = np.isin(np.arange(NODES), np.concatenate([OVERLAPPING[0], OVERLAPPING[2]]))
    assert held.all()
    again = [("neighbours", [0, 1, 2])] if phase == "neighbours" else []
    assert clients.asked == [("boundary", [0, 1, 2]), *again, ("neighbours", [0, 2]), ("mend", [0, 2])]
    found, expected = outputs(clients.client, PARAMETERS_OF[2]), expected_outputs(OPERATOR, PARAMETERS_OF[2])
    for position in (0, 2):
        np.testing.assert_allclose(found[position], expected[graphs[position].node_ids], atol=1e-5)
    assert clients.client.graph_version(1) == 0


# What is told ---------------------------------------------------------------------------------------------------------


def tokens_of(nodes: Sequence[int], run: str = "run-1") -> set[bytes]:
    found = item_tokens(np.array(nodes, dtype=np.int64), KEY, f"neighbour sums: nodes of {run}".encode())
    return {token.tobytes() for token in found}


def test_listed_are_nodes_with_an_edge_elsewhere_shared_ones_and_their_neighbours(key: SharedKey) -> None:
    clients = exchanged(clients_graphs(OVERLAPPING), key)
    neighbours = [set(GRAPH.edge_index[1, GRAPH.edge_index[0] == node].tolist()) for node in range(NODES)]
    for client, assigned in enumerate(OVERLAPPING):
        mine = set(assigned.tolist())
        others = set().union(*(set(OVERLAPPING[other].tolist()) for other in range(3) if other != client))
        ours = mine & others
        inside = {v for v in mine if v in ours or neighbours[v] & ours or neighbours[v] - mine}
        outside = set().union(*(neighbours[v] for v in mine)) - mine
        answer = clients.received["boundary"][client]
        rows = [row.tobytes() for row in answer["tokens"]]
        assert set(rows) == tokens_of(sorted(inside | outside)) and rows == sorted(rows)
        assert {row for row, held in zip(rows, answer["held"], strict=True) if held} == tokens_of(sorted(inside))
        assert set(answer) == {"tokens", "held"}


def test_tokens_of_two_runs_cannot_be_matched(key: SharedKey) -> None:
    clients = exchanged(clients_graphs(DISJOINT), key)
    asked = Question("boundary", {0: {}}, about={"id": "run-2"})
    again = {row.tobytes() for row in answered(clients.client, asked)[0]["tokens"]}
    first = {row.tobytes() for row in clients.received["boundary"][0]["tokens"]}
    assert len(first) == len(again) and not first & again


def test_sums_are_answered_for_what_others_have_to_do_with_alone(key: SharedKey) -> None:
    """No sum is made for a token that one client lists alone: nobody holds the node, or nobody needs the sum."""
    graphs = clients_graphs(WITH_GAPS)
    for masking in (False, True):
        clients = exchanged(graphs, key, masking=masking)
        listed = [{row.tobytes() for row in clients.received["boundary"][c]["tokens"]} for c in range(3)]
        alone = 0
        for client in range(3):
            rows = [row.tobytes() for row in clients.received["boundary"][client]["tokens"]]
            others = set().union(*(listed[other] for other in range(3) if other != client))
            nobodys = tokens_of(range(55, 65))
            expected = [row in others and row not in nobodys for row in rows]
            alone += len(rows) - sum(expected)
            kept = np.unpackbits(clients.sent["neighbours"][client]["kept"], count=len(rows)).astype(bool)
            assert kept.tolist() == expected
            answer = clients.received["neighbours"][client]
            number = len(answer["masked"] if masking else answer.get("rows", answer.get("lengths")))  # type: ignore[arg-type]
            assert number == sum(expected)
        assert alone > 10


def test_under_masks_the_server_sees_no_clients_part(key: SharedKey) -> None:
    graphs = clients_graphs(OVERLAPPING)
    plain, hidden = (exchanged(graphs, key, masking=masking) for masking in (False, True))
    for client in range(3):
        answer = dict(plain.received["neighbours"][client])
        del answer["degrees"]
        parts = dense(unpacked_rows(answer, FEATURES))
        upload = hidden.received["neighbours"][client]["masked"]
        assert set(hidden.received["neighbours"][client]) == {"masked"}
        assert upload.dtype == np.uint64 and upload.shape == (len(parts), FEATURES + 1)
        fixed = np.rint(parts.astype(float) * 2**24).astype(np.int64)
        assert np.count_nonzero(fixed) and not (upload[:, :FEATURES].view(np.int64) == fixed).any()
        # Uniform on 64 bits: of each bit about a half is set, within six standard deviations.
        bits = np.unpackbits(upload.reshape(-1).view(np.uint8))
        assert abs(bits.mean() - 0.5) < 6 * 0.5 / np.sqrt(len(bits))
        assert len(np.unique(upload)) == upload.size
    for client in range(3):
        told, expected = (run.client.local_graph(client) for run in (hidden, plain))
        np.testing.assert_allclose(told.inputs, expected.inputs, atol=1e-6)
        np.testing.assert_allclose(told.operator.toarray(), expected.operator.toarray(), atol=1e-6)


def test_masks_are_not_used_twice(key: SharedKey) -> None:
    """Client 1 fails at first, and the others add up again: under the first masks the difference would show."""
    first = exchanged(clients_graphs(OVERLAPPING), key, masking=True)
    again = exchanged(clients_graphs(OVERLAPPING), key, failing={"boundary": [1]}, masking=True)
    asked = Question("neighbours", again.sent["neighbours"], about={"id": "run-1", "attempt": 1})
    others = answered(again.client, asked)
    for client in (0, 2):
        other = others[client]["masked"]
        assert not (other == again.received["neighbours"][client]["masked"]).any()
    assert first.received["neighbours"][0]["masked"].shape[1] == FEATURES + 1


# Attacks --------------------------------------------------------------------------------------------------------------


def without_one_node(asked: Mapping[int, Stack], client: int) -> dict[int, Stack]:
    """A request for all but one node that a client counts."""
    flags = np.unpackbits(asked[client]["counted"])
    flags[np.flatnonzero(flags)[0]] = 0
    return {**asked, client: {**asked[client], "counted": np.packbits(flags)}}


@pytest.mark.parametrize("attempt", [0, 1], ids=["the same attempt", "a later attempt"])
def test_attack_the_difference_of_two_masked_sums_is_one_nodes_features(attempt: int, key: SharedKey) -> None:
    """The server asks everybody again, with one node of one client not counted.

    Under the same masks the client's two uploads differ by that node's features; under new masks, both sums do.
    """
    run = exchanged(clients_graphs(OVERLAPPING), key, masking=True)
    changed = without_one_node(run.sent["neighbours"], 1)
    answers = run.client.answer(Question("neighbours", changed, about={"id": "run-1", "attempt": attempt}))
    assert 1 not in answers.arrays
    sentence = "has made these masks before" if attempt == 0 else "with other nodes counted; the server would see"
    assert sentence in answers.failures[1]
    # Another client's request is as before, and so is its answer in the same attempt.
    if attempt == 0:
        np.testing.assert_array_equal(answers.arrays[0]["masked"], run.received["neighbours"][0]["masked"])


# Refusals -------------------------------------------------------------------------------------------------------------


def test_another_model_is_refused() -> None:
    with pytest.raises(SubflError, match="method=fedgcn is for model=gcn, not for model=sage"):
        FedGCNClient.check_model(ModelSettings(name="sage"), "fedgcn")
    FedGCNClient.check_model(ModelSettings(name="gcn"), "fedgcn")


def test_without_a_key_there_is_no_answer() -> None:
    client = fedgcn(cohort_of(*clients_graphs(DISJOINT)))
    answers = client.answer(Question("boundary", {0: {}}, about={"id": "run-1"}))
    reason = "this node has no shared key, which the clients' node ids are hashed with"
    assert (answers.arrays, answers.failures) == ({}, {0: reason})
    with pytest.raises(SubflError, match="FedGCNClient has no answer to query"):
        client.answer(Question("structure", {0: {}}, about={"id": "run-1"}))


@pytest.mark.parametrize(
    ("action", "changes", "sentence"),
    [
        ("neighbours", {"kept": None}, "the server sent no kept for the [0-9]+ nodes that were listed"),
        ("neighbours", {"counted": np.zeros(1, np.uint8)}, "the server sent no counted for the"),
        ("neighbours", {"counted": "all"}, "the server would have a client count a node that it does not hold"),
        ("mend", {"told": np.zeros(99, np.uint8)}, "the server sent no told for the"),
        ("mend", {"degrees": np.array([], np.uint32)}, r"the server told \d+ sums of \d+ nodes, and 0 degrees"),
        ("mend", {"degrees": "zero"}, r"degrees must be uint32 \[nodes\], each at least 1"),
        ("mend", {"degrees": None}, "the server sent no degrees"),
        ("mend", {"rows": np.zeros((2, FEATURES), np.float32)}, "the server told 2 sums of"),
        ("mend", {"rows": np.zeros((2, 2), np.float32)}, "the server told sums that cannot be used: rows are float32"),
        ("mend", {"rows": "nan"}, "the server told sums that cannot be used: rows hold a number that is not finite"),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_kept(
    action: str, changes: dict[str, Any], sentence: str, key: SharedKey
) -> None:
    clients = exchanged(clients_graphs(DISJOINT), key)
    stack = dict(clients.sent[action][1])
    for name, values in changes.items():
        if values is None:
            del stack[name]
        elif isinstance(values, np.ndarray):
            stack[name] = values
        else:
            ones, zeros, nans = np.full_like(stack[name], 255), np.zeros_like(stack[name]), stack[name] * np.nan
            stack[name] = {"all": ones, "zero": zeros, "nan": nans}[values]
    fresh = fedgcn(clients.client.cohort)
    answers = fresh.answer(Question(action, {1: stack}, about={"id": "run-1", "attempt": 0}))
    assert answers.arrays == {} and re.search(sentence, answers.failures[1])
    assert fresh.graph_version(1) == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"members": np.zeros(0, np.int64)}, "participants of a masked sum must be distinct and client 1 one of them"),
        ({"groups": np.full(3, 7, np.uint32)}, "rows to add up under masks must each be of one of"),
        ({"groups": None}, "the server did not say who adds to which sum"),
    ],
)
def test_a_client_does_not_upload_under_masks_that_hide_nothing(
    changes: dict[str, Any], sentence: str, key: SharedKey
) -> None:
    clients = exchanged(clients_graphs(DISJOINT), key, masking=True)
    stack = clients.sent["neighbours"][1] | changes
    stack = {name: values for name, values in stack.items() if values is not None}
    answers = clients.client.answer(Question("neighbours", {1: stack}, about={"id": "run-1", "attempt": 3}))
    assert answers.arrays == {} and re.search(sentence, answers.failures[1])


def test_a_training_role_is_a_nodes_own(key: SharedKey) -> None:
    """Nodes elsewhere enter neither loss nor metric: there are as many examples as before."""
    graphs = clients_graphs(DISJOINT)
    client = exchanged(graphs, key).client
    assert client.cohort.num_examples == tuple(int((graph.roles == TRAIN).sum()) for graph in graphs)
    chunk = client.graph_chunk([0, 1, 2])
    assert chunk.own_width == 50 < chunk.width
