"""Disturbed clients: noise and sparsity of features, edges and labels, and injected edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from subfl_flower.data.datasets import DigitsDataset, StochasticBlockModelDataset
from subfl_flower.data.disturbances.disturbed import Disturber, homophily, new_edges, sparser
from subfl_flower.data.disturbances.settings import DisturbanceSettings
from subfl_flower.data.graph import NO_ROLE, TRAIN, ClientGraph
from subfl_flower.data.partitions import MetisPartition, OverlappingPartition
from subfl_flower.data.prepared.partition import PreparedPartition, prepare

SIX = ClientGraph(
    client_id=0,
    node_ids=np.arange(6),
    features=np.array([[1, 2, 3, 4], [0, 5, 0, 6], [0, 0, 0, 0], [7, 0, 0, 0], [1, 1, 1, 1], [2, 2, 0, 2]], np.float32),
    edge_index=np.array([[0, 0, 1, 1, 2, 3, 4, 5], [1, 5, 0, 2, 1, 4, 3, 0]]),
    labels=np.array([0, 0, 1, 1, 2, 2]),
    num_classes=3,
    roles=np.array([0, 0, 0, 0, 1, 2], np.int8),
    shareable=np.zeros(6, dtype=bool),
)
"""Six nodes with the edges 0-1, 0-5, 1-2 and 3-4; nodes 0 to 3 train, 4 validates and 5 tests."""


def disturbed(graph: ClientGraph = SIX, seed: int = 7, **amounts: float) -> tuple[ClientGraph, dict[str, int]]:
    return Disturber(DisturbanceSettings(**amounts), seed, 1).of(graph)


def edges(graph: ClientGraph) -> set[tuple[int, int]]:
    """Undirected edges; each must be there in both directions, sorted and once."""
    pairs = list(map(tuple, graph.edge_index.T.tolist()))
    assert pairs == sorted(set(pairs)) and {(v, u) for u, v in pairs} == set(pairs)
    assert all(u != v for u, v in pairs)
    return {(u, v) for u, v in pairs if u < v}


def test_a_share_of_each_rows_nonzero_features_becomes_zero() -> None:
    """Half of 4, 2, 0, 1, 4 and 3 nonzero entries: 2, 1, 0, 0 (0.5 rounds to even), 2 and 2 (1.5)."""
    for features in (SIX.features, sp.csr_array(SIX.features)):
        found = sparser(features, 0.5, np.random.default_rng(0))
        assert isinstance(found, np.ndarray) == isinstance(features, np.ndarray)
        dense = found if isinstance(found, np.ndarray) else found.toarray()
        assert dense.dtype == np.float32
        assert np.count_nonzero(dense, axis=1).tolist() == [2, 1, 0, 1, 2, 1]
        kept = dense != 0
        np.testing.assert_array_equal(dense[kept], np.asarray(SIX.features)[kept])
    np.testing.assert_array_equal(sparser(SIX.features, 1.0, np.random.default_rng(0)), np.zeros((6, 4)))


def test_noise_of_features_has_the_standard_deviation_in_units_of_the_features() -> None:
    big = replace(SIX, features=np.ones((6, 20_000), np.float32))
    found, done = disturbed(big, feature_noise=0.25)
    assert isinstance(found.features, np.ndarray) and done == {"features_noised": 120_000}
    noise = found.features - 1
    assert noise.mean() == pytest.approx(0, abs=0.004) and noise.std() == pytest.approx(0.25, rel=0.01)
    twice = disturbed(big, feature_noise=0.5)[0].features - 1
    np.testing.assert_allclose(twice, 2 * noise, atol=1e-6)


def test_half_of_the_edges_are_removed_and_others_added_that_were_none() -> None:
    removed, done = disturbed(edge_sparsity=0.5)
    assert len(edges(removed)) == 2 and edges(removed) < edges(SIX) and done == {"edges_removed": 2}
    added, done = disturbed(edge_noise=0.75)
    assert edges(added) > edges(SIX) and len(edges(added)) == 7 and done == {"edges_added": 3}
    both, _ = disturbed(edge_noise=0.75, edge_sparsity=0.5)
    assert edges(both) - edges(SIX) == edges(added) - edges(SIX)  # none of those that were removed
    assert edges(both) & edges(SIX) == edges(removed)


def test_injected_edges_join_one_class_in_homophilous_clients_and_two_in_the_others() -> None:
    """Of one class only 2-3 and 4-5 are no edges yet; 0-1 is one."""
    assert homophily(SIX) == 1 / 4
    same, done = disturbed(edge_injection=0.5, homophilous=1.0)
    assert edges(same) - edges(SIX) == {(2, 3), (4, 5)} and done == {"edges_injected": 2}
    assert homophily(same) == 3 / 6
    other, _ = disturbed(edge_injection=0.5, homophilous=0.0)
    assert homophily(other) == 1 / 6
    most, done = disturbed(edge_injection=10.0, homophilous=1.0)  # 40 are asked for, and there are 2
    assert edges(most) == edges(same) and done == {"edges_injected": 2}


def test_training_labels_are_hidden_or_replaced_and_others_never() -> None:
    hidden, done = disturbed(label_sparsity=0.5)
    lost = hidden.roles != SIX.roles
    assert done == {"labels_hidden": 2} and lost.sum() == 2 and not lost[4:].any()
    assert (hidden.roles[lost] == NO_ROLE).all() and (hidden.labels[lost] == -1).all()
    assert (hidden.labels[~lost] == SIX.labels[~lost]).all()
    changed, done = disturbed(label_noise=1.0)
    assert done == {"labels_changed": 4}
    assert (changed.labels[:4] != SIX.labels[:4]).all() and (changed.labels[4:] == SIX.labels[4:]).all()
    assert ((changed.labels >= 0) & (changed.labels < 3)).all() and (changed.roles == SIX.roles).all()
    both, done = disturbed(label_sparsity=0.5, label_noise=0.5)
    assert done == {"labels_hidden": 2, "labels_changed": 1}
    assert (
        both.labels[both.roles != TRAIN] == np.where(both.roles == NO_ROLE, -1, SIX.labels)[both.roles != TRAIN]
    ).all()
    assert disturbed(label_sparsity=1.0)[0].num_train == 1  # a client without training nodes would be refused


def test_every_other_class_is_as_likely() -> None:
    many = replace(
        SIX,
        node_ids=np.arange(30_000),
        features=np.zeros((30_000, 1), np.float32),
        labels=np.ones(30_000, dtype=np.int64),
        roles=np.zeros(30_000, np.int8),
        shareable=np.zeros(30_000, dtype=bool),
    )
    counts = np.bincount(disturbed(many, label_noise=0.5)[0].labels, minlength=3)
    assert counts[1] == 15_000 and counts[0] == pytest.approx(7500, abs=300)


def test_edges_of_a_weighted_graph_keep_their_weights_and_new_ones_get_some_of_them() -> None:
    weight = np.array([1, 2, 1, 3, 3, 4, 4, 2], np.float32)  # 0-1: 1, 0-5: 2, 1-2: 3, 3-4: 4
    found, _ = disturbed(replace(SIX, edge_weight=weight), edge_noise=1.0, edge_sparsity=0.25)
    of = {tuple(pair): float(w) for pair, w in zip(found.edge_index.T.tolist(), found.edge_weight, strict=True)}
    assert all(of[u, v] == of[v, u] for u, v in of)
    before = {(0, 1): 1.0, (0, 5): 2.0, (1, 2): 3.0, (3, 4): 4.0}
    assert all(of[pair] == before[pair] for pair in edges(found) & before.keys())
    assert set(of.values()) <= {1.0, 2.0, 3.0, 4.0}


@given(st.integers(0, 12), st.integers(0, 40), st.integers(0, 2**20))
def test_new_edges_are_new_different_and_as_many_as_there_can_be(num_nodes: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    everything = np.array([u * num_nodes + v for v in range(num_nodes) for u in range(v)], dtype=np.int64)
    taken = everything[rng.random(len(everything)) < 0.5]
    found = new_edges(num_nodes, taken, count, rng)
    codes = found[0] * num_nodes + found[1]
    assert (found[0] < found[1]).all() and len(set(codes.tolist())) == len(codes)
    assert not np.isin(codes, taken).any()
    assert len(codes) == min(count, len(everything) - len(taken))


def test_new_edges_are_drawn_uniformly() -> None:
    """Of 5 nodes with 2 edges each of the other 8 pairs is drawn as often."""
    taken, counts = np.array([0 * 5 + 1, 2 * 5 + 3]), np.zeros(25)
    for seed in range(4000):
        pair = new_edges(5, taken, 1, np.random.default_rng(seed))
        counts[pair[0, 0] * 5 + pair[1, 0]] += 1
    assert np.count_nonzero(counts) == 8
    assert (np.abs(counts[counts > 0] - 500) < 5 * np.sqrt(500)).all()


# Partitions -----------------------------------------------------------------------------------------------------------

SBM = StochasticBlockModelDataset(nodes_per_community=60, train_fraction=0.5)
ALL = DisturbanceSettings(
    **dict.fromkeys(("feature_noise", "feature_sparsity", "edge_noise", "edge_sparsity"), 0.25),
    **dict.fromkeys(("edge_injection", "label_noise", "label_sparsity"), 0.25),
    clients=0.5,
)


@pytest.fixture(scope="module")
def of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PreparedPartition]:
    folder = tmp_path_factory.mktemp("prepared")
    return lambda settings=None, **partition: prepare(
        SBM, MetisPartition(clients=6, **partition), folder, folder, disturbance=settings
    )


def same(one: ClientGraph, other: ClientGraph) -> bool:
    arrays = ("features", "edge_index", "labels", "roles", "cross_edges")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)


def test_nothing_asked_for_is_the_entry_of_before(of: Callable[..., PreparedPartition]) -> None:
    assert of(DisturbanceSettings(homophilous=0.1, clients=0.2)).directory == of().directory
    assert "disturbed" not in of().data and "homophily" not in of().data["clients"][0]


def test_half_of_the_clients_are_disturbed_and_the_whole_graph_and_test_labels_are_not(
    of: Callable[..., PreparedPartition],
) -> None:
    before, after = of(), of(ALL)
    assert after.directory != before.directory
    changed = [not same(before.client(c), after.client(c)) for c in range(6)]
    assert sum(changed) == 3 == after.data["disturbed"]["clients"]
    assert same_graph(before, after)
    for c in range(6):
        one, two = before.client(c), after.client(c)
        held_out = one.roles > TRAIN
        np.testing.assert_array_equal(one.roles[held_out], two.roles[held_out])
        np.testing.assert_array_equal(one.labels[held_out], two.labels[held_out])
        np.testing.assert_array_equal(one.node_ids, two.node_ids)
    total = sum(client["changes"] for client in after.data["clients"])
    assert total == sum(n for name, n in after.data["disturbed"].items() if name != "clients") > 0
    # Rows of a report are told apart, and a run does not go on with other data.
    prints = [entry.data["fingerprints"] for entry in (before, after)]
    assert prints[0]["data"] == prints[1]["data"] and prints[0]["partition"] != prints[1]["partition"]


def same_graph(one: PreparedPartition, other: PreparedPartition) -> bool:
    (graph, roles), (again, others) = one.graph(), other.graph()
    return (
        np.array_equal(graph.edge_index, again.edge_index)
        and np.array_equal(graph.labels, again.labels)
        and np.array_equal(roles, others)
    )


def test_the_partitions_seed_decides_and_knobs_do_not_disturb_one_another(
    of: Callable[..., PreparedPartition],
) -> None:
    one, more = of(DisturbanceSettings(edge_noise=0.5)), of(DisturbanceSettings(edge_noise=0.5, label_noise=0.5))
    for c in range(6):
        np.testing.assert_array_equal(one.client(c).edge_index, more.client(c).edge_index)
    other = of(DisturbanceSettings(edge_noise=0.5), seed=99)
    assert other.directory != one.directory


def test_clients_of_half_homophilous_edges_differ_in_homophily(of: Callable[..., PreparedPartition]) -> None:
    """The topology skew: three clients gain edges of one class, three of two."""
    before, after = of(), of(DisturbanceSettings(edge_injection=0.5))
    gained = [
        homophily(after.client(c)) - homophily(before.client(c))  # type: ignore[operator]
        for c in range(6)
    ]
    assert sum(change < 0 for change in gained) == 3
    assert np.std([homophily(after.client(c)) for c in range(6)]) > np.std(  # type: ignore[arg-type]
        [homophily(before.client(c)) for c in range(6)]  # type: ignore[arg-type]
    )


def test_clients_that_share_nodes_are_disturbed_each_for_itself(tmp_path: Path) -> None:
    found = prepare(
        DigitsDataset(),
        OverlappingPartition(clients=5),
        tmp_path,
        tmp_path,
        disturbance=DisturbanceSettings(label_noise=0.5),
    )
    labels = [dict(zip(g.node_ids.tolist(), g.labels.tolist(), strict=True)) for g in map(found.client, range(4))]
    assert any(labels[0][n] != labels[1][n] for n in labels[0].keys() & labels[1].keys())


@pytest.mark.parametrize(
    ("key", "value"),
    [("feature_noise", -0.1), ("feature_sparsity", 1.1), ("label_noise", 2), ("clients", 0), ("edge_nois", 0.1)],
)
def test_settings_out_of_range_and_unknown_ones_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValidationError, match=key):
        DisturbanceSettings(**{key: value})
