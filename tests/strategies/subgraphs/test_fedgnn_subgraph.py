from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pydantic
import pytest
from dp_accounting.gaussian_mechanism import get_epsilon_gaussian
from flwr.app import ConfigRecord
from toy_rounds import answering, replies, strategy_of, toy_roster

from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.prepared.partition import PreparedPartition
from subfl_flower.errors import RunFailure
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.seeding import client_generator
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.subgraphs.fedgnn_subgraph import SubgraphFedGNN
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question

INITIAL = {
    "conv1.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
    "conv1.bias": np.array([1.0, -1.0], np.float32),
    "classifier.weight": np.ones((2, 2), np.float32),
}


def at(*degrees: float) -> np.ndarray:
    """Vectors in the plane."""
    angles = np.radians(np.array(degrees))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


SHOWN = (at(0, 180), at(10, 50, 70), at(-40))
"""Node 0 is 10 degrees away from node 0 of the second client, 50 from its node 1, 40 from the third client's."""


class Nodes:
    """Three nodes that host a client each: what they show, what they were asked with, and what they were told."""

    def __init__(self, shown: Sequence[Stack | None], tolerant: bool = False) -> None:
        self.asked: list[dict[int, Stack]] = []
        self.told: dict[int, Stack] = {}

        def answer(question: Question, client: int) -> Stack:
            sent = question.received[client]
            if question.phase == "mend":
                self.told[client] = sent
                return {}
            if client == 0:
                self.asked.append({})
            self.asked[-1][client] = sent
            own = shown[client]
            if own is None:
                raise OSError("it would not")
            return own

        self._active = InlineGrid(answering(answer), 3).active()
        roster = replace(toy_roster(10, 30, 60), node_ids=(1, 2, 3))
        self.exchange = Exchange(self._active.__enter__(), ConfigRecord({}), roster, tolerant)

    def before_round(self, strategy: SubgraphFedGNN, server_round: int) -> None:
        self.told.clear()
        self.exchange.next_round = server_round
        strategy.before_round(server_round, self.exchange)

    def close(self) -> None:
        self._active.__exit__(None, None, None)


@pytest.fixture
def nodes() -> Iterator[Callable[..., Nodes]]:
    opened: list[Nodes] = []

    def build(shown: Sequence[np.ndarray | Stack | None] = SHOWN, **rest: Any) -> Nodes:
        stacks = [{"representations": own} if isinstance(own, np.ndarray) else own for own in shown]
        opened.append(Nodes(stacks, **rest))
        return opened[-1]

    yield build
    for each in reversed(opened):
        each.close()


def fedgnn(privacy: LdpSettings | None = None, seed: int = 0, **settings: Any) -> SubgraphFedGNN:
    chosen = {"max_neighbours": 5, **settings}
    facts = {"privacy": privacy or LdpSettings(), "seed": seed}
    return strategy_of(SubgraphFedGNN, toy_roster(10, 30, 60), INITIAL, chosen, **facts)


def guarantee(strategy: SubgraphFedGNN, privacy: LdpSettings) -> dict[str, Any]:
    """The report of a server that had these exchanges with clients that protect what they show."""
    protected = fedgnn(privacy)
    protected.load_state(strategy.state())
    found: dict[str, Any] = protected.report(None)["privacy"]
    return found


def plain(told: Mapping[int, Stack]) -> dict[int, tuple[list[list[int]], list[list[float]]]]:
    return {
        client: (stack["edges"].T.tolist(), stack["representations"].tolist()) for client, stack in sorted(told.items())
    }


def test_clients_are_told_what_is_similar_to_what_they_showed(nodes: Callable[..., Nodes]) -> None:
    there = nodes()
    there.before_round(fedgnn(max_neighbours=2), 1)
    first, second, third = SHOWN
    assert plain(there.told) == {
        0: ([[0, 0], [0, 1]], [*second[:1].tolist(), *third.tolist()]),
        1: ([[0, 0], [0, 1], [1, 0]], [*first[:1].tolist(), *third.tolist()]),
        2: ([[0, 0], [0, 1]], [*first[:1].tolist(), *second[:1].tolist()]),
    }
    for stack in there.told.values():
        assert stack["edges"].dtype == np.int32 and stack["representations"].dtype == np.float32
    # Down the first layer (8 numbers) to each, up 6 representations; then 6 of these, and 7 edges.
    traffic = [(phase["action"], phase["bytes_up"], phase["bytes_down"]) for phase in there.exchange.log]
    assert traffic == [("representations", 4 * 2 * 6, 3 * 4 * 8), ("mend", 0, 4 * 2 * 6 + 4 * 2 * 7)]


def test_threshold(nodes: Callable[..., Nodes]) -> None:
    there = nodes()
    there.before_round(fedgnn(threshold=0.9), 1)  # 25.8 degrees
    assert {client: edges for client, (edges, _) in plain(there.told).items()} == {0: [[0, 0]], 1: [[0, 0]], 2: []}
    assert there.told[2]["representations"].shape == (0, 2) and there.told[2]["edges"].shape == (2, 0)


def test_clients_are_asked_with_the_first_layer_that_they_would_be_sent_next(nodes: Callable[..., Nodes]) -> None:
    there, strategy = nodes(), fedgnn(exchange_every=3)
    there.before_round(strategy, 1)
    layer = {name: INITIAL[name] for name in ("conv1.weight", "conv1.bias")}
    for sent in there.asked[0].values():
        assert sorted(sent) == sorted(layer)
        for name, values in layer.items():
            np.testing.assert_array_equal(sent[name], values)
    trained = {name.replace(".", "__"): [value, 2 * value, 3 * value] for name, value in INITIAL.items()}
    strategy.aggregate(replies([0, 1, 2], 3, **trained))
    there.before_round(strategy, 4)
    for sent in there.asked[1].values():
        np.testing.assert_allclose(sent["conv1.weight"], INITIAL["conv1.weight"] * (0.1 + 0.6 + 1.8), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "rounds"),
    [
        ({"exchange_every": 0}, [1]),
        ({"exchange_start": 3, "exchange_every": 0}, [3]),
        ({"exchange_every": 1}, [1, 2, 3, 4, 5, 6, 7]),
        ({"exchange_start": 2, "exchange_every": 2}, [2, 4, 6]),
    ],
    ids=str,
)
def test_when_there_is_an_exchange(settings: dict[str, int], rounds: list[int], nodes: Callable[..., Nodes]) -> None:
    there, strategy = nodes(), fedgnn(**settings)
    for server_round in range(1, 8):
        there.before_round(strategy, server_round)
    assert [phase["round"] for phase in there.exchange.log if phase["action"] == "mend"] == rounds
    assert [figures["round"] for figures in strategy.report(None)["similar_nodes"]] == rounds


def test_it_averages_like_fedavg() -> None:
    strategy = fedgnn()
    strategy.aggregate(replies([0, 2], 3, **{n.replace(".", "__"): [v, 3 * v] for n, v in INITIAL.items()}))
    assert strategy.mixing is not None
    np.testing.assert_allclose(strategy.mixing, [[1 / 7, 0, 6 / 7]] * 3, rtol=1e-6)
    for name, value in strategy.instructions(2, [1]).items():  # type: ignore[union-attr]
        np.testing.assert_allclose(value[0], INITIAL[name] * (1 / 7 + 18 / 7), rtol=1e-6)


# Answers that are none ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, "it holds nothing"),
        ({"representations": SHOWN[1], "labels": SHOWN[1]}, "it holds labels, representations"),
        (np.zeros((3, 3), np.float32), r"representations must be float32 \[nodes, 2\], not float32 \[3, 3\]"),
        (np.zeros((3, 2)), r"representations must be float32 \[nodes, 2\], not float64 \[3, 2\]"),
        (np.full((3, 2), math.nan, np.float32), "representations must be finite and at most 1e"),
        (np.full((3, 2), 2e12, np.float32), "representations must be finite and at most 1e"),
        (np.zeros((10**4, 2), np.float32), r"it has \d+ bytes, and may have 5296"),  # 150 nodes, and headers
    ],
)
def test_an_answer_that_makes_no_sense_is_that_clients_failure(
    answer: Any, reason: str, nodes: Callable[..., Nodes]
) -> None:
    there = nodes([SHOWN[0], answer, SHOWN[2]])
    with pytest.raises(RunFailure, match=f"^client 1 failed in query.representations: .*{reason}"):
        there.before_round(fedgnn(), 1)
    assert not there.told
    tolerant = nodes([SHOWN[0], answer, SHOWN[2]], tolerant=True)
    tolerant.before_round(fedgnn(), 1)
    assert {client: edges for client, (edges, _) in plain(tolerant.told).items()} == {0: [[0, 0]], 2: [[0, 0]]}
    np.testing.assert_array_equal(tolerant.told[0]["representations"], SHOWN[2])


def test_where_nobody_answers_nobody_is_told_anything(nodes: Callable[..., Nodes]) -> None:
    there, strategy = nodes([None] * 3, tolerant=True), fedgnn()
    there.before_round(strategy, 1)
    assert not there.told
    assert strategy.report(None)["similar_nodes"] == [{"round": 1, "clients": 0, "nodes": 0.0, "edges": 0.0}]


@pytest.mark.parametrize(
    "settings",
    [{"threshold": -0.1}, {"threshold": 1.0}, {"max_neighbours": 0}, {"exchange_start": 0}, {"exchange_every": -1}],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SubgraphFedGNN.Settings(**settings)


def test_the_layer_that_clients_are_compared_by_cannot_be_personal() -> None:
    assert SubgraphFedGNN.Settings(personal_layers=("classifier",)).personal_layers == ("classifier",)
    with pytest.raises(pydantic.ValidationError, match=r"conv1 makes the representations .* and must be shared"):
        SubgraphFedGNN.Settings(personal_layers=("conv1",))


# What is reported -----------------------------------------------------------------------------------------------------


class ByHand(PreparedPartition):
    """A partition whose clients were made by hand."""

    def __init__(self, graphs: Sequence[ClientGraph]) -> None:
        self._graphs = graphs

    def client(self, client_id: int) -> ClientGraph:
        return self._graphs[client_id]


def holding(client_id: int, ids: Sequence[int], labels: Sequence[int], cut: Sequence[tuple[int, int]]) -> ClientGraph:
    count = len(ids)
    return ClientGraph(
        client_id=client_id,
        node_ids=np.array(ids),
        features=np.ones((count, 1), np.float32),
        edge_index=np.zeros((2, 0), np.int64),
        labels=np.array(labels),
        num_classes=2,
        roles=np.zeros(count, np.int8),
        shareable=np.zeros(count, bool),
        cross_edges=np.array(cut, dtype=np.int64).reshape(-1, 2).T,
    )


def test_what_was_added_and_how_much_of_it_rightly(nodes: Callable[..., Nodes]) -> None:
    """The angles are those of nodes 20, 21, 12, 40, 41, 12 by ascending id; 12 is held by the first two clients."""
    seed = 3
    prepared = ByHand(
        [
            holding(0, [12, 20, 21], [1, 0, 1], [(0, 41), (1, 40)]),
            holding(1, [12, 40], [1, 1], [(1, 20)]),
            holding(2, [41], [-1], [(0, 12)]),
        ]
    )
    angles = [[0, 100, 230], [2, 104], [-35]]
    shown = []
    for client, degrees in enumerate(angles):
        order = client_generator(seed, client, 1, "order of nodes").permutation(len(degrees))
        shown.append(at(*np.array(degrees)[order]))
    there, strategy = nodes(shown), fedgnn(max_neighbours=1, seed=seed)
    there.before_round(strategy, 1)
    # 12-12 and 20-40 both ways; 41 finds 12 of the first client (35 degrees); 21 is far from all.
    (figures,) = strategy.report(prepared)["similar_nodes"]
    assert figures == {
        "round": 1,
        "clients": 3,
        "nodes": (2 + 2 + 1) / 3,
        "edges": 5 / 3,
        "same_class": 2 / 4,  # 12-12 of one class, 20-40 not; of 41 nobody knows it
        "cross_edges": 3 / 5,  # 20-40, 40-20, 41-12
        "same_node": 2 / 5,
    }
    (without,) = strategy.report(None)["similar_nodes"]
    assert without == {key: figures[key] for key in ("round", "clients", "nodes", "edges")}


def test_nodes_that_several_own_ones_are_joined_with_count_once(nodes: Callable[..., Nodes]) -> None:
    there, strategy = nodes([at(0, 5, 10), at(1), at(180)]), fedgnn()
    there.before_round(strategy, 1)
    (figures,) = strategy.report(None)["similar_nodes"]
    assert (figures["nodes"], figures["edges"]) == ((1 + 3 + 0) / 3, (3 + 3) / 3)


def test_a_resumed_server_reports_what_an_unbroken_one_would(nodes: Callable[..., Nodes]) -> None:
    privacy = LdpSettings(mechanism="laplace_l1", clip=1.0, epsilon=2.0)
    there, strategy = nodes(), fedgnn(privacy, exchange_every=2)
    for server_round in range(1, 12):
        there.before_round(strategy, server_round)
    resumed = fedgnn(privacy, exchange_every=2)
    resumed.load_state(strategy.state())
    assert resumed.report(None) == strategy.report(None)
    assert [figures["round"] for figures in resumed.report(None)["similar_nodes"]] == [1, 3, 5, 7, 9, 11]


def test_the_guarantee_is_that_of_a_nodes_representation(nodes: Callable[..., Nodes]) -> None:
    there, strategy = nodes(), fedgnn(exchange_every=1)
    for server_round in (1, 2, 3, 4):
        there.before_round(strategy, server_round)
    assert "privacy" not in strategy.report(None)
    said = guarantee(strategy, LdpSettings(mechanism="gaussian_l2", clip=1.0, noise_multiplier=2.0, delta=1e-5))
    assert said["covers"].startswith("one node's representation") and "not protected" in said["covers"]
    assert (said["num_uploads"], said["num_coordinates"]) == (4, 2)
    for figure, deviation in (("exchange_epsilon", 2.0), ("user_level_epsilon", 1.0)):  # four are one of half the noise
        exact = get_epsilon_gaussian(deviation, 1e-5)
        assert exact < said[figure] < 1.15 * exact  # what is bounded by Rényi divergences is a little above
    said = guarantee(strategy, LdpSettings(mechanism="laplace_linf", clip=0.5, epsilon=0.25, delta=1e-5))
    assert (said["per_coordinate_epsilon"], said["whole_upload_epsilon"]) == (0.25, 0.5)
    assert said["exchange_epsilon"] <= 0.5 < said["user_level_epsilon"] <= 2.0
    assert guarantee(strategy, LdpSettings(mechanism="laplace_linf", noise=0.0))["exchange_epsilon"] is None


def test_who_answered_less_often_does_not_lower_the_bound(nodes: Callable[..., Nodes]) -> None:
    strategy = fedgnn(LdpSettings(mechanism="gaussian_l2", clip=1.0, noise_multiplier=1.0), exchange_every=1)
    nodes(tolerant=True).before_round(strategy, 1)
    nodes([None, SHOWN[1], None], tolerant=True).before_round(strategy, 2)
    nodes([SHOWN[0], None, None], tolerant=True).before_round(strategy, 3)
    assert strategy.report(None)["privacy"]["num_uploads"] == 2
