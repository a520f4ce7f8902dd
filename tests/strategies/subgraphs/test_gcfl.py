from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.strategies.subgraphs.gcfl import GCFL, GCFLPlus, minimum_cut

INITIAL = {"w": np.array([[5.0, 5.0]], np.float32), "b": np.array([1.0], np.float32)}
EAST, WEST = (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)
GROUPS = [EAST, WEST, EAST, WEST, EAST]
"""Clients 0, 2 and 4 pull one way, 1 and 3 the other."""

Change = Sequence[float]


def gcfl(*num_examples: int, **settings: Any) -> GCFL:
    return strategy_of(GCFL, toy_roster(*num_examples), INITIAL, {"first_split": 1, **settings})


def gcfl_plus(*num_examples: int, **settings: Any) -> GCFLPlus:
    return strategy_of(GCFLPlus, toy_roster(*num_examples), INITIAL, {"first_split": 1, **settings})


def train(strategy: GCFL, server_round: int, changes: dict[int, Change]) -> None:
    """One round in which each client of `changes` adds these three numbers to (w, b) as it was sent them."""
    positions = sorted(changes)
    sent = strategy.instructions(server_round, positions)
    added = np.array([changes[position] for position in positions], np.float32)
    w, b = sent["w"] + added[:, None, :2], sent["b"] + added[:, 2:]
    strategy.aggregate(replace(replies(positions, len(strategy.roster), w=w, b=b), server_round=server_round))


def everyone(*changes: Change) -> dict[int, Change]:
    return dict(enumerate(changes))


def test_the_mean_is_the_clusters_weighted_by_training_nodes() -> None:
    strategy = gcfl(10, 30, 60, first_split=2)
    train(strategy, 1, everyone((1, 0, 0), (0, 1, 0), (0, 0, 1)))
    np.testing.assert_allclose(strategy.mixing, [[0.1, 0.3, 0.6]] * 3)
    sent = strategy.instructions(2, [0, 1, 2])
    np.testing.assert_allclose(sent["w"], [[[5.1, 5.3]]] * 3, rtol=1e-6)
    np.testing.assert_allclose(sent["b"], [[1.6]] * 3, rtol=1e-6)


def test_two_groups_that_pull_apart_become_two_clusters() -> None:
    # Mean update (50 - 50) / 100 of one, members' norms one.
    strategy = gcfl(10, 30, 20, 20, 20)
    assert strategy.clusters == [[0, 1, 2, 3, 4]]
    train(strategy, 1, everyone(*GROUPS))
    assert strategy.clusters == [[0, 2, 4], [1, 3]]
    # The round that halves a cluster already averages its halves alone: n_C is 50 in each.
    east, west = [0.2, 0, 0.4, 0, 0.4], [0, 0.6, 0, 0.4, 0]
    np.testing.assert_allclose(strategy.mixing, [east, west, east, west, east])
    np.testing.assert_allclose(strategy.instructions(2, [0, 1])["w"], [[[6, 5]], [[4, 5]]])
    # From here on each group agrees with itself, and stays.
    for server_round in range(2, 6):
        train(strategy, server_round, everyone(*GROUPS))
    assert strategy.clusters == [[0, 2, 4], [1, 3]]


def test_nothing_is_halved_before_first_split() -> None:
    strategy = gcfl(1, 1, 1, 1, first_split=3)
    for server_round, clusters in ((1, [[0, 1, 2, 3]]), (2, [[0, 1, 2, 3]]), (3, [[0, 2], [1, 3]])):
        train(strategy, server_round, everyone(EAST, WEST, EAST, WEST))
        assert strategy.clusters == clusters


@pytest.mark.parametrize(
    ("settings", "halved"),
    [
        # Updates (3, 0, 0), (3, 0, 0) and (-2, 0, 0) of clients with 1, 1 and 2 nodes: the mean is 0.5, the largest
        # norm 3, the mean of the norms 8 / 3, so that the mean's share of it is 0.1875.
        ({"relative": False, "epsilon1": 0.51, "epsilon2": 2.99}, True),
        ({"relative": False, "epsilon1": 0.49, "epsilon2": 2.99}, False),
        ({"relative": False, "epsilon1": 0.51, "epsilon2": 3.01}, False),
        ({"relative": True, "epsilon1": 0.188, "epsilon2": 2.99}, True),
        ({"relative": True, "epsilon1": 0.187, "epsilon2": 2.99}, False),
        ({"relative": True, "epsilon1": 0.188, "epsilon2": 3.01}, False),
    ],
)
def test_both_thresholds_must_hold(settings: dict[str, Any], halved: bool) -> None:
    strategy = gcfl(1, 1, 2, **settings)
    train(strategy, 1, everyone((3, 0, 0), (3, 0, 0), (-2, 0, 0)))
    assert strategy.clusters == ([[0, 1], [2]] if halved else [[0, 1, 2]])


def test_updates_are_judged_against_what_each_client_was_sent() -> None:
    # After the split the clusters' models differ; clients 0 and 2 agree in where they arrive, not in how they moved.
    strategy = gcfl(1, 1, 1, 1, 1)
    train(strategy, 1, everyone(*GROUPS))
    train(strategy, 2, everyone((0, 2, 0), WEST, (0, -2, 0), WEST, (0, 2, 0)))
    assert strategy.clusters == [[0, 4], [1, 3], [2]]


def test_layers_that_stay_with_the_clients_play_no_part() -> None:
    strategy = gcfl(1, 1, 1, personal_layers=("b",))
    strategy.aggregate(replies([0, 1, 2], 3, w=[[[6, 5]], [[4, 5]], [[6, 5]]]))
    assert strategy.clusters == [[0, 2], [1]]
    assert set(strategy.instructions(2, [0])) == {"w"}


def test_a_pair_is_never_halved() -> None:
    strategy = gcfl(1, 1)
    train(strategy, 1, everyone(EAST, WEST))
    assert strategy.clusters == [[0, 1]]


@pytest.mark.parametrize(("min_cluster", "clusters"), [(1, [[0, 1, 2], [3]]), (2, [[0, 1, 2, 3]])])
def test_a_cut_that_leaves_too_few_is_not_made(min_cluster: int, clusters: list[list[int]]) -> None:
    strategy = gcfl(1, 1, 1, 3, min_cluster=min_cluster)
    train(strategy, 1, everyone(EAST, EAST, EAST, WEST))
    assert strategy.clusters == clusters


def test_clients_that_do_not_move_are_not_halved() -> None:
    strategy = gcfl(1, 1, 1)
    train(strategy, 1, everyone(*[(0, 0, 0)] * 3))
    assert strategy.clusters == [[0, 1, 2]]


def test_edges_are_weighted_by_cosines_and_opposed_updates_not_at_all() -> None:
    strategy = gcfl(1, 1, 1, first_split=9)
    train(strategy, 1, everyone((3, 4, 0), (10, 0, 0), (-1, 1, 0)))
    half = 2**-0.5
    np.testing.assert_allclose(
        strategy.weights([0, 1, 2]), [[1, 0.6, half / 5], [0.6, 1, 0], [half / 5, 0, 1]], rtol=1e-6, atol=1e-7
    )
    np.testing.assert_allclose(strategy.weights([0, 2]), [[1, half / 5], [half / 5, 1]], rtol=1e-6)


def test_the_cut_is_the_minimum_over_all_cuts() -> None:
    rng = np.random.default_rng(0)
    for size in (2, 3, 5, 7):
        weights = rng.random((size, size)) ** 3
        weights += weights.T
        # Every cut once: the last member is always outside.
        sides = [[bool(code >> member & 1) for member in range(size)] for code in range(1, 2 ** (size - 1))]
        costs = [weights[np.ix_(np.flatnonzero(side), np.flatnonzero(~np.array(side)))].sum() for side in sides]
        one, other = minimum_cut(weights)
        assert sorted([*one, *other]) == list(range(size)) and one and other
        assert weights[np.ix_(np.array(one), np.array(other))].sum() == pytest.approx(min(costs))


def test_absent_members_stay_and_get_their_clusters_average() -> None:
    strategy = gcfl(10, 30, 20, 20, 20)
    train(strategy, 1, everyone(*GROUPS))
    train(strategy, 2, {0: EAST, 4: (1, 3, 0)})
    # Of 0, 2, 4 two took part, with 10 and 20 nodes. Of 1 and 3 nobody did: they keep what they have.
    assert strategy.clusters == [[0, 2, 4], [1, 3]]
    third = [1 / 3, 0, 0, 0, 2 / 3]
    np.testing.assert_allclose(strategy.mixing, [third, [0] * 5, third, [0] * 5, third])
    np.testing.assert_allclose(strategy.instructions(3, [2, 3])["w"], [[[7, 7]], [[4, 5]]])


def test_a_cluster_is_halved_by_last_known_updates_once_all_members_were_heard() -> None:
    strategy = gcfl(1, 1, 1, 1)
    train(strategy, 1, {0: EAST, 1: WEST})
    train(strategy, 2, {0: EAST, 2: EAST})
    assert strategy.clusters == [[0, 1, 2, 3]]  # nothing is known of client 3
    train(strategy, 3, {3: WEST})
    assert strategy.clusters == [[0, 2], [1, 3]]
    # The last known update is the last one: client 2 turned before its cluster was judged.
    strategy = gcfl(1, 1, 1, 1)
    train(strategy, 1, {0: EAST, 1: WEST, 2: EAST})
    train(strategy, 2, {2: WEST})
    train(strategy, 3, {3: EAST})
    assert strategy.clusters == [[0, 3], [1, 2]]


def scaled(direction: Change, norm: float) -> Change:
    return tuple(norm * value for value in direction)


RISING, FALLING = (1.0, 2.0, 3.0, 4.0), (4.0, 3.0, 2.0, 1.0)
COURSES = [RISING, FALLING, RISING, FALLING]
DIRECTIONS = [EAST, EAST, WEST, WEST]
"""Updates alike are 0 and 1, 2 and 3; courses alike are 0 and 2, 1 and 3."""


def course_round(number: int) -> dict[int, Change]:
    return everyone(*(scaled(d, course[number]) for d, course in zip(DIRECTIONS, COURSES, strict=True)))


@pytest.mark.parametrize(("method", "halves"), [(gcfl, [[0, 1], [2, 3]]), (gcfl_plus, [[0, 2], [1, 3]])])
def test_gcfl_compares_updates_and_gcfl_plus_the_courses_of_their_norms(method: Any, halves: list[list[int]]) -> None:
    strategy = method(1, 1, 1, 1, first_split=4, **({"window": 4} if method is gcfl_plus else {}))
    for number in range(4):
        assert strategy.clusters == [[0, 1, 2, 3]]
        train(strategy, number + 1, course_round(number))
    assert strategy.clusters == halves


def test_gcfl_plus_waits_for_full_windows_and_begins_anew_after_a_split() -> None:
    strategy = gcfl_plus(1, 1, 1, 1, 1, 1, window=2)
    pulls = [EAST, WEST, EAST, WEST, EAST, WEST]
    norms = [3, 3, 3, 3, 1, 1]
    changes = everyone(*(scaled(*pair) for pair in zip(pulls, norms, strict=True)))
    seen = []
    for server_round in range(1, 5):
        train(strategy, server_round, changes)
        seen.append(strategy.clusters)
    halves = [[0, 1, 2, 3], [4, 5]]
    assert seen[:3] == [[[0, 1, 2, 3, 4, 5]], halves, halves]
    assert len(seen[3]) == 3 and [4, 5] in seen[3]


def test_gcfl_plus_needs_the_window_of_every_member() -> None:
    strategy = gcfl_plus(1, 1, 1, 1, window=2)
    train(strategy, 1, course_round(0))
    away = course_round(1)
    del away[3]
    train(strategy, 2, away)
    assert strategy.clusters == [[0, 1, 2, 3]]
    train(strategy, 3, {3: scaled(WEST, 3)})
    assert strategy.clusters == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("standardize", "distances"),
    [
        # Courses (1, 3), (2, 6) and (3, 3). Of paths through two values by two the straight one is the shortest, so
        # that warping changes nothing: the roots of 1 + 9, 4 + 0 and 1 + 9.
        (False, {(0, 1): 10**0.5, (0, 2): 2.0, (1, 2): 10**0.5}),
        # Standard deviations 1, 2 and 0: (1, 3), (1, 3), and (3, 3) as it is.
        (True, {(0, 1): 0.0, (0, 2): 2.0, (1, 2): 2.0}),
    ],
)
def test_courses_are_compared_by_dynamic_time_warping(
    standardize: bool, distances: dict[tuple[int, int], float]
) -> None:
    strategy = gcfl_plus(1, 1, 1, window=2, first_split=9, standardize=standardize)
    for norms in ((9, 9, 9), (1, 2, 3), (3, 6, 3)):  # the first has left the window
        train(strategy, 1, everyone(*(scaled(EAST, norm) for norm in norms)))
    weights = strategy.weights([0, 1, 2])
    for (i, j), distance in distances.items():
        assert weights[i, j] == weights[j, i] == pytest.approx(max(distances.values()) - distance, abs=1e-5)


def test_a_shifted_course_is_no_distance_away() -> None:
    strategy = gcfl_plus(1, 1, 1, window=4, first_split=9, standardize=False)
    for norms in zip((1, 5, 1, 1), (1, 1, 5, 1), (1, 1, 1, 1), strict=True):
        train(strategy, 1, everyone(*(scaled(EAST, norm) for norm in norms)))
    # Warping lays the peaks on each other; compared with the flat sequence a peak is 5 - 1 away.
    np.testing.assert_allclose(strategy.weights([0, 1, 2]), [[4, 4, 0], [4, 4, 0], [0, 0, 4]], atol=1e-5)


@given(data=st.data(), method=st.sampled_from([gcfl, gcfl_plus]), clients=st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_no_client_is_ever_lost(data: st.DataObject, method: Any, clients: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    examples = rng.integers(1, 50, clients)
    knobs = {"epsilon1": data.draw(st.sampled_from([0.3, 0.9, 5.0])), "min_cluster": data.draw(st.integers(1, 3))}
    strategy = method(*examples, **knobs, **({"window": 2} if method is gcfl_plus else {}))
    previous = strategy.clusters
    for server_round in range(1, 9):
        present = sorted(data.draw(st.sets(st.integers(0, clients - 1), min_size=1)))
        before = strategy.instructions(server_round, range(clients))["w"].copy()
        train(strategy, server_round, {client: tuple(rng.normal(size=3)) for client in present})
        clusters = strategy.clusters
        assert sorted(client for cluster in clusters for client in cluster) == list(range(clients))
        assert all(any(set(cluster) <= set(old) for old in previous) for cluster in clusters)
        assert len(clusters) == 1 or min(map(len, clusters)) >= knobs["min_cluster"]
        after = strategy.instructions(server_round, range(clients))["w"]
        for cluster in clusters:
            heard = [client for client in cluster if client in present]
            row = np.where(np.isin(range(clients), heard), examples, 0) / max(1, examples[heard].sum())
            np.testing.assert_allclose(strategy.mixing[cluster], [row] * len(cluster), atol=1e-12)
            if not heard:
                np.testing.assert_array_equal(after[cluster], before[cluster])
        previous = clusters


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        (GCFL, {"epsilon1": -1}),
        (GCFL, {"epsilon2": -0.1}),
        (GCFL, {"first_split": 0}),
        (GCFL, {"min_cluster": 0}),
        (GCFL, {"window": 5}),
        (GCFLPlus, {"window": 1}),
    ],
)
def test_settings_out_of_range_are_refused(method: type[GCFL], settings: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        method.Settings(**settings)
