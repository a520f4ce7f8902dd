from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import networkx as nx
import numpy as np
import pydantic
import pytest
from flwr.app import ConfigRecord
from toy_rounds import answering, replies, strategy_of, toy_roster

from subfl_flower.errors import RunFailure
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.subgraphs.subpfed import SubPFed, shares
from subfl_flower.subgraphs.similarity.structural import describe_structure
from subfl_flower.wire.array_format import Stack

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
INITIAL = {"conv1.weight": np.array([[8.0, 6.0]], np.float32), "conv1.bias": np.array([5.0, 5.0], np.float32)}
PARAMETERS = {"conv1__weight": [[[1, 0]], [[2, 0]], [[4, 8]]], "conv1__bias": [[1, 1]] * 3}
EMBEDDINGS = [[1, 0], [3, 4], [0, -2]]
COSINES = np.array([[1, 0.6, 0], [0.6, 1, -0.8], [0, -0.8, 1]])

NETWORKS = (
    nx.Graph([(10, 11), (11, 12)]),  # a path
    nx.Graph([(12, 11), (12, 20), (12, 21)]),  # a star round 12
    nx.Graph([(20, 30)]),
)
"""Three clients' subgraphs, by global ids: the first two share 11 and 12, the last two 20."""
SHARED: tuple[set[int], ...] = ({11, 12}, {11, 12, 20}, {20})
# Node 11 (weight 2 + 1): hops 2 and 5, of 3 and 4 nodes; node 12 (1 + 3): hops 3 and 3. (3·7 + 4·6) / (3·7 + 4·7)
NEAR = 45 / 49
# Node 20: hops 5 and 1, of 4 and 2 nodes.
FAR = 1.0
DISTANCES = [[0, NEAR, math.inf], [NEAR, 0, FAR], [math.inf, FAR, 0]]


def answer(network: nx.Graph, shareable: set[int], key: bytes = KEY) -> Stack:
    ids = sorted(network)
    local = {node: position for position, node in enumerate(ids)}
    edges = [(local[a], local[b]) for u, v in network.edges for a, b in ((u, v), (v, u))]
    told = np.isin(ids, sorted(shareable))
    structure = describe_structure(np.array(edges).T, len(ids), told, np.array(ids), key)
    return {name: getattr(structure, name) for name in ("tokens", "distances", "reach", "degrees")}


def answers(keys: Sequence[bytes] = (KEY, KEY, KEY)) -> list[Stack]:
    return [answer(network, told, key) for network, told, key in zip(NETWORKS, SHARED, keys, strict=True)]


class Answers:
    """Stands for an exchange whose clients have answered."""

    def __init__(self, stacks: Sequence[Stack | None]) -> None:
        self.stacks = stacks
        self.asked: list[str] = []

    def ask(self, action: str, decode: Callable[[Stack], Any], largest: Sequence[int]) -> list[Any]:
        self.asked.append(action)
        return [None if stack is None else decode(stack) for stack in self.stacks]


def subpfed(stacks: Sequence[Stack | None] | None = None, **settings: Any) -> SubPFed:
    strategy = strategy_of(SubPFed, toy_roster(10, 30, 60), INITIAL, {"tau": 2, "gamma": 5, **settings})
    strategy.set_up(Answers(answers() if stacks is None else stacks))  # type: ignore[arg-type]
    return strategy


def train(strategy: SubPFed, *present: int, embeddings: Sequence[Sequence[float]] = EMBEDDINGS) -> np.ndarray:
    """One round in which these clients reply; the mixing matrix."""
    sent = {name: [values[p] for p in present] for name, values in PARAMETERS.items()}
    strategy.take(replies(present, 3, **sent, functional_embedding=[embeddings[p] for p in present]))
    assert strategy.mixing is not None
    return strategy.mixing


def normalised(rows: Any) -> np.ndarray:
    values = np.array(rows, dtype=float)
    return values / values.sum(1, keepdims=True)


NEAR_WEIGHT, FAR_WEIGHT = math.exp(-5 * NEAR), math.exp(-5)
STRUCTURAL = normalised([[1, NEAR_WEIGHT, 0], [NEAR_WEIGHT, 1, FAR_WEIGHT], [0, FAR_WEIGHT, 1]])
FUNCTIONAL = normalised(np.exp(2 * COSINES))


def test_the_clients_are_asked_once_and_their_distances_are_those_of_equation_five() -> None:
    exchange = Answers(answers())
    strategy = strategy_of(SubPFed, toy_roster(1, 1, 1), INITIAL)
    strategy.set_up(exchange)  # type: ignore[arg-type]
    assert exchange.asked == ["structure"]
    np.testing.assert_allclose(strategy.distances, DISTANCES, rtol=1e-12)
    # All nodes alike: nodes 11 and 12 give (7 + 6) / (7 + 7).
    assert subpfed(degree_weighted=False).distances[0, 1] == pytest.approx(13 / 14)


@pytest.mark.parametrize("psi", [0.0, 0.3, 0.5, 1.0])
def test_the_matrix_adds_both_parts(psi: float) -> None:
    strategy = subpfed(psi=psi)
    matrix = train(strategy, 0, 1, 2)
    np.testing.assert_allclose(matrix, psi * STRUCTURAL + (1 - psi) * FUNCTIONAL, rtol=1e-5)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)
    received = strategy.instructions(2, [0, 1, 2])["conv1.weight"][:, 0]
    np.testing.assert_allclose(received, matrix @ [[1, 0], [2, 0], [4, 8]], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "weights"),
    [
        ({"gamma": 2.0}, (math.exp(-2 * NEAR), math.exp(-2), 1)),
        ({"kernel": "inverse", "gamma": 3.0}, (1 / (1 + 3 * NEAR), 1 / 4, 1)),
        ({"kernel": "literal"}, (NEAR, FAR, 0)),
        ({"degree_weighted": False}, (math.exp(-5 * 13 / 14), math.exp(-5), 1)),
    ],
    ids=str,
)
def test_kernels(settings: dict[str, Any], weights: tuple[float, float, float]) -> None:
    near, far, own = weights
    expected = normalised([[own, near, 0], [near, own, far], [0, far, own]])
    np.testing.assert_allclose(train(subpfed(psi=1, **settings), 0, 1, 2), expected, rtol=1e-6)


def test_the_literal_kernel_divides_cosines_by_their_sum_and_takes_none_below_zero() -> None:
    matrix = train(subpfed(psi=0.3, kernel="literal"), 0, 1, 2)
    structural = normalised([[0, NEAR, 0], [NEAR, 0, FAR], [0, FAR, 0]])
    functional = normalised(np.maximum(COSINES, 0))
    np.testing.assert_allclose(matrix, 0.3 * structural + 0.7 * functional, rtol=1e-5)
    np.testing.assert_allclose(shares(np.array([[1, -0.5, 0.25], [-1, -1, 0]])), [[0.8, 0, 0.2], [0, 0, 0]])


def test_where_clients_are_absent_each_part_is_normalised_over_the_others() -> None:
    strategy = subpfed(psi=0.4)
    train(strategy, 0, 1, 2)
    matrix = train(strategy, 0, 2)
    structural = normalised([[1, 0, 0], [NEAR_WEIGHT, 0, FAR_WEIGHT], [0, 0, 1]])
    functional = np.exp(2 * COSINES)
    functional[:, 1] = 0
    np.testing.assert_allclose(matrix, 0.4 * structural + 0.6 * normalised(functional), rtol=1e-5)
    np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-6)


@pytest.mark.parametrize("psi", [0.4, 1.0])
def test_a_client_that_shares_nodes_with_no_participant_goes_by_function_alone(psi: float) -> None:
    strategy = subpfed(psi=psi)
    train(strategy, 0, 1, 2)
    matrix = train(strategy, 0, 1)  # client 2 shares a node with client 1 alone
    functional = normalised(np.exp(2 * COSINES[:, :2]))
    structural = normalised([[1, NEAR_WEIGHT], [NEAR_WEIGHT, 1], [FAR_WEIGHT, 0][::-1]])
    np.testing.assert_allclose(matrix[:, :2], psi * structural + (1 - psi) * functional, rtol=1e-5)
    alone = train(strategy, 0)  # now nobody is near to it
    np.testing.assert_allclose(alone, [[1, 0, 0]] * 3, rtol=1e-6)
    fresh = subpfed(psi=psi)
    matrix = train(fresh, 1, 2)  # client 0 was never heard of: the structural part, and FedAvg's average
    expected = psi * np.array([1, 0]) + (1 - psi) * np.array([1 / 3, 2 / 3])
    np.testing.assert_allclose(matrix[0, 1:], expected, rtol=1e-6)


def test_the_functional_part_of_a_client_far_from_all_participants() -> None:
    strategy = subpfed(psi=0.5)
    train(strategy, 0, 1, 2)
    matrix = train(strategy, 0, 2)
    # Client 0 shares no node with client 2: its structural row is itself.
    functional = np.exp(2 * COSINES[0, [0, 2]])
    np.testing.assert_allclose(matrix[0, [0, 2]], [0.5, 0] + 0.5 * functional / functional.sum(), rtol=1e-5)
    without_self = train(strategy, 2)
    np.testing.assert_allclose(without_self[0], [0, 0, 1], rtol=1e-6)  # by function alone
    np.testing.assert_allclose(without_self[1], [0, 0, 1], rtol=1e-6)


@pytest.mark.parametrize("psi", [0.0, 0.5, 1.0])
def test_rows_sum_to_one_or_keep_the_parameters_with_communities_too(psi: float) -> None:
    """Client 1 is away, and nobody who replies is of its community: structure alone is left to it."""
    strategy = subpfed(psi=psi, community_threshold=0.7)
    train(strategy, 0, 1, 2)
    before = strategy.instructions(2, [1])["conv1.weight"].copy()
    matrix = train(strategy, 0, 2)
    if psi == 0:
        assert not matrix[1].any()
        np.testing.assert_array_equal(strategy.instructions(3, [1])["conv1.weight"], before)
    else:
        expected = normalised([[NEAR_WEIGHT, 0, FAR_WEIGHT]])[0]
        np.testing.assert_allclose(matrix[1], expected, rtol=1e-5)
    np.testing.assert_allclose(matrix[[0, 2]].sum(1), 1, rtol=1e-6)


def test_without_any_shared_node_everyone_keeps_to_oneself_in_the_structural_part() -> None:
    disjoint = [answer(network, set()) for network in NETWORKS]
    matrix = train(subpfed(disjoint, psi=0.5), 0, 1, 2)
    np.testing.assert_allclose(matrix, 0.5 * np.eye(3) + 0.5 * FUNCTIONAL, rtol=1e-5)


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_a_client_with_another_key_is_named(odd: int) -> None:
    """Five clients that all know nodes 11 and 12; the odd one hashes them otherwise."""
    stacks = [answer(NETWORKS[0], {11, 12}, OTHER_KEY if client == odd else KEY) for client in range(5)]
    strategy = strategy_of(SubPFed, toy_roster(1, 1, 1, 1, 1), INITIAL)
    with pytest.raises(RunFailure, match=f"^no other client knows any of the 2 nodes that client {odd} shares; .* key"):
        strategy.set_up(Answers(stacks))  # type: ignore[arg-type]


def test_a_lonely_client_is_no_failure_where_another_gave_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    """Client 2's one shared node is known to client 1 alone, who is missing."""
    stacks: list[Stack | None] = [*answers()]
    stacks[1] = None
    with caplog.at_level(logging.WARNING, logger="flwr"):
        strategy = subpfed(stacks, psi=1)
    np.testing.assert_array_equal(np.isinf(strategy.distances), ~np.eye(3, dtype=bool))
    np.testing.assert_allclose(train(strategy, 0, 1, 2), np.eye(3))


# A real exchange ------------------------------------------------------------------------------------------------------


@pytest.fixture
def exchange_with() -> Iterator[Callable[..., Exchange]]:
    """An exchange with three nodes that host a client each and give the answers that they are told to."""
    active = []

    def build(stacks: Sequence[Stack], tolerant: bool = False) -> Exchange:
        context = InlineGrid(answering(lambda question, client: stacks[client]), 3).active()
        active.append(context)
        roster = replace(toy_roster(10, 30, 60), node_ids=(1, 2, 3))
        return Exchange(context.__enter__(), ConfigRecord({}), roster, tolerant)

    yield build
    for context in active:
        context.__exit__(None, None, None)


def malformed(**changes: Any) -> Stack:
    """Client 1's answer with other arrays; None leaves one out."""
    stack = answers()[1] | changes
    return {name: values for name, values in stack.items() if values is not None}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"reach": None}, "it holds degrees, distances, tokens"),
        ({"features": np.zeros((3, 4))}, "it holds degrees, distances, features, reach, tokens"),
        ({"tokens": np.zeros((3, 8), np.uint8)}, r"it: node tokens must be uint8 \[nodes, 16\], not uint8 \[3, 8\]"),
        ({"distances": np.array([1.0, 2, 3])}, "it: distances must be integers, one for each of 3 node tokens"),
        ({"degrees": np.array([1, 2])}, "it: degrees must be integers, one for each of 3 node tokens"),
        ({"degrees": np.array([1, -2, 1])}, "it: degrees must not be negative"),
        ({"tokens": np.zeros((3, 16), np.uint8)}, "it: a node token comes twice"),
        ({"reach": np.array([4, 0, 4])}, "it: reach must be at least 1"),
        ({"distances": np.array([5, 1, 5])}, "it: distances must be at least reach - 1"),
        ({"distances": np.array([5, 10**9, 5])}, "it: distances must be at most those along a path"),
        (
            {"reach": np.array([4, 301, 4]), "distances": np.array([5, 300, 5])},
            "a node reaches 301 nodes,",
        ),
        ({"tokens": np.zeros((10**5, 16), np.uint8)}, r"it has \d+ bytes, and may have 10096"),
    ],
)
def test_an_answer_that_makes_no_sense_is_that_clients_failure(
    exchange_with: Callable[..., Exchange], changes: dict[str, Any], reason: str
) -> None:
    stacks = answers()
    stacks[1] = malformed(**changes)
    strategy = strategy_of(SubPFed, toy_roster(10, 30, 60), INITIAL)
    with pytest.raises(RunFailure, match=f"^client 1 failed in query.structure: its answer cannot be used: {reason}"):
        strategy.set_up(exchange_with(stacks))


def test_where_failures_are_tolerated_the_others_go_on(exchange_with: Callable[..., Exchange]) -> None:
    stacks = answers()
    stacks[2] = malformed(reach=None)
    strategy = strategy_of(SubPFed, toy_roster(10, 30, 60), INITIAL, {"tau": 2, "gamma": 5, "psi": 1})
    strategy.set_up(exchange_with(stacks, tolerant=True))
    weight = math.exp(-5)  # the only distance is the largest one
    expected = normalised([[1, weight, 0], [weight, 1, 0], [0, 0, 1]])
    np.testing.assert_allclose(train(strategy, 0, 1, 2), expected, rtol=1e-6)


def test_the_bytes_of_the_answers_are_counted(exchange_with: Callable[..., Exchange]) -> None:
    exchange = exchange_with(answers())
    strategy_of(SubPFed, toy_roster(10, 30, 60), INITIAL).set_up(exchange)
    (phase,) = exchange.log
    assert phase["action"] == "structure"
    assert phase["bytes_up"] == 6 * (16 + 3 * 8)  # six nodes are told of, of each a token and three numbers


@pytest.mark.parametrize("settings", [{"psi": 1.2}, {"psi": -0.1}, {"gamma": -1}, {"kernel": "gauss"}])
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SubPFed.Settings(**settings)
