"""Weights of undirected edges by hand, for sources that list an edge more than once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch_geometric.utils import to_undirected

from subfl_flower.data.cleaning import undirected_edges
from subfl_flower.data.edge_weights import EdgeWeightRule, weighted_edges
from subfl_flower.errors import SubflError

Entry = tuple[int, int, float]
RULES: tuple[EdgeWeightRule, ...] = ("unique", "sum", "mean", "max")


def weights_of(entries: list[Entry], rule: EdgeWeightRule, num_nodes: int = 5) -> dict[tuple[int, int], float]:
    """The weight of each pair of nodes; both directions must agree, and stand in order."""
    edges = np.array([entry[:2] for entry in entries], dtype=np.int64).reshape(-1, 2).T
    weight = np.array([entry[2] for entry in entries], dtype=float)
    found, values = weighted_edges(edges, weight, num_nodes, rule, "payments")
    assert found.dtype == np.int64 and values.dtype == np.float32 and values.shape == (found.shape[1],)
    np.testing.assert_array_equal(found, undirected_edges(edges, num_nodes))
    both = dict(zip(zip(*found.tolist(), strict=True), values.tolist(), strict=True))
    assert all(both[b, a] == value for (a, b), value in both.items())
    return {(a, b): value for (a, b), value in both.items() if a < b}


@pytest.mark.parametrize("rule", RULES)
def test_a_pair_that_is_listed_once_keeps_its_weight(rule: EdgeWeightRule) -> None:
    assert weights_of([(3, 1, 0.5), (0, 4, 2), (1, 0, 8)], rule) == {(1, 3): 0.5, (0, 4): 2, (0, 1): 8}


@pytest.mark.parametrize("rule", RULES)
def test_an_undirected_graph_listed_in_both_directions_is_not_counted_twice(rule: EdgeWeightRule) -> None:
    assert weights_of([(0, 1, 3), (1, 0, 3), (1, 2, 0.25), (2, 1, 0.25)], rule) == {(0, 1): 3, (1, 2): 0.25}


SEVERAL: list[Entry] = [(0, 1, 1), (0, 1, 4), (1, 0, 7), (2, 3, 0.5), (1, 2, 6), (2, 1, 6)]
"""0 pays 1 twice and is paid once; 2 pays 3 alone; 1 and 2 pay each other alike."""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("sum", {(0, 1): 12, (2, 3): 0.5, (1, 2): 12}),
        ("mean", {(0, 1): 4, (2, 3): 0.5, (1, 2): 6}),
        ("max", {(0, 1): 7, (2, 3): 0.5, (1, 2): 6}),
    ],
)
def test_entries_of_a_directed_graph_become_one_weight(
    rule: EdgeWeightRule, expected: dict[tuple[int, int], float]
) -> None:
    assert weights_of(SEVERAL, rule) == expected


def test_repeated_entries_of_an_undirected_graph_are_added_up_within_a_direction() -> None:
    """In doubles 1 + 1e16 + 1 is less than 1 + 1 + 1e16; an order of entries must not make a graph directed."""
    entries = [(0, 1, 1), (0, 1, 1e16), (0, 1, 1), (1, 0, 1), (1, 0, 1), (1, 0, 1e16), (1, 2, 5), (2, 1, 5)]
    assert 1 + 1e16 + 1 != 1 + 1 + 1e16
    assert weights_of(entries, "sum") == {(0, 1): pytest.approx(1e16, rel=1e-6), (1, 2): 5}


def test_one_pair_with_a_direction_alone_makes_the_graph_directed() -> None:
    assert weights_of([(0, 1, 3), (1, 0, 3), (1, 2, 5)], "sum") == {(0, 1): 6, (1, 2): 5}


def test_sums_of_a_directed_graph_are_those_of_pyg() -> None:
    """In a graph without a pair in both directions; `to_undirected` adds both up always."""
    rng = np.random.default_rng(0)
    edges = np.sort(rng.integers(0, 12, (2, 60)), axis=0)
    edges = edges[:, edges[0] < edges[1]]
    weight = rng.random(edges.shape[1]).astype(np.float32)
    expected, values = to_undirected(torch.from_numpy(edges), torch.from_numpy(weight), reduce="sum")
    found, ours = weighted_edges(edges, weight, 12, "sum", "payments")
    np.testing.assert_array_equal(found, expected.numpy())
    np.testing.assert_allclose(ours, values.numpy(), rtol=1e-6)
    assert len(ours) < 2 * len(weight)


def test_self_loops_are_left_out_whatever_they_weigh() -> None:
    assert weights_of([(0, 0, -1), (2, 2, float("nan")), (0, 1, 2)], "unique") == {(0, 1): 2}


@pytest.mark.parametrize("rule", RULES)
def test_without_edges_there_are_no_weights(rule: EdgeWeightRule) -> None:
    assert weights_of([], rule) == {} == weights_of([(1, 1, 3)], rule) == weights_of([], rule, num_nodes=0)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.5, 1.0, 3.0])), max_size=20))
def test_entries_twice_and_turned_round_change_neither_mean_nor_largest(entries: list[Entry]) -> None:
    turned = entries + [(b, a, value) for a, b, value in entries]
    for rule in ("mean", "max"):
        found = weights_of(entries, rule)
        assert weights_of(turned, rule) == pytest.approx(found)
        by_pair: dict[tuple[int, int], list[float]] = {}
        for a, b, value in entries:
            if a != b:
                by_pair.setdefault((min(a, b), max(a, b)), []).append(value)
        of = max if rule == "max" else np.mean
        assert found == pytest.approx({pair: of(values) for pair, values in by_pair.items()})


def test_different_weights_of_a_pair_are_refused_by_default() -> None:
    with pytest.raises(SubflError) as refused:
        weights_of([*SEVERAL, (4, 0, 1), (0, 4, 2)], "unique")
    assert str(refused.value) == (
        "payments: 2 pairs of nodes are joined by edges of different weights, the first are 0 and 1 (1.0 and 4.0); "
        "choose dataset.edge_weights=sum, mean, max or ignore"
    )
    assert weights_of([(0, 1, 0.1), (1, 0, float(np.float32(0.1)))], "unique") == {(0, 1): pytest.approx(0.1)}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("wrong", [0.0, -2.0, float("nan"), float("inf"), 1e300, 1e-60])
def test_weights_must_be_positive_and_finite_in_single_precision(rule: EdgeWeightRule, wrong: float) -> None:
    with pytest.raises(SubflError) as refused:
        weights_of([(0, 1, 1), (3, 3, wrong), (4, 2, wrong), (0, 2, wrong)], rule)
    assert str(refused.value) == (
        f"payments: 2 edge weights are not positive finite numbers, the first is {wrong} of edge 2, "
        "from node 4 to node 2; dataset.edge_weights=ignore leaves weights out"
    )


def test_a_sum_that_is_too_large_is_refused() -> None:
    with pytest.raises(SubflError, match=r"the edge weights of 1 pairs of nodes add up to more than 3.4e\+38"):
        weights_of([(0, 1, 3e38), (0, 1, 3e38), (1, 2, 1)], "sum")
    assert weights_of([(0, 1, 3e38), (0, 1, 3e38)], "mean") == {(0, 1): pytest.approx(3e38)}


def test_each_edge_needs_a_weight() -> None:
    with pytest.raises(SubflError, match=r"^payments: edge weights have the shape \[2\]; expected \[3\]"):
        weighted_edges(np.zeros((2, 3), dtype=np.int64), np.ones(2), 1, "sum", "payments")
