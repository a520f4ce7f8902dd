from __future__ import annotations

from itertools import combinations
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graph_of

from subfl_flower.data.datasets import DigitsDataset
from subfl_flower.data.partitions import OverlapRatePartition
from subfl_flower.data.partitions.metis import metis_parts
from subfl_flower.errors import SubflError


@settings(max_examples=30, deadline=None)
@given(st.integers(60, 150), st.integers(1, 3), st.sampled_from([0, 0.01, 0.1, 0.37, 0.5, 0.97, 1]), st.integers(0, 3))
def test_five_clients_share_one_set_and_divide_the_rest(nodes: int, parts: int, rate: float, seed: int) -> None:
    graph = graph_of(nx.connected_watts_strogatz_graph(nodes, 4, 0.2, seed=seed))
    partition = OverlapRatePartition(clients=5 * parts, rate=rate, seed=seed)
    assigned = partition.assign(graph)
    assert len(assigned) == 5 * parts and partition.overlapping is (rate > 0)
    for part, members in enumerate(metis_parts(graph, parts, seed, "parts")):
        clients = assigned[5 * part : 5 * part + 5]
        sets = [set(client.tolist()) for client in clients]
        shared = set.intersection(*sets)
        assert len(shared) == round(rate * members.size)
        assert all(one & other == shared for one, other in combinations(sets, 2))
        assert set.union(*sets) == set(members.tolist())
        own = [len(one) - len(shared) for one in sets]
        assert min(own) >= min(1, (members.size - len(shared)) // 5)
        assert all(client.dtype == np.int64 and (np.diff(client) > 0).all() for client in clients)


def test_at_rate_0_metis_finds_the_cliques_and_at_rate_1_everyone_holds_everything() -> None:
    graph = graph_of(nx.ring_of_cliques(5, 6))
    disjoint = OverlapRatePartition(clients=5, rate=0).assign(graph)
    assert sorted(nodes.tolist() for nodes in disjoint) == [list(range(6 * i, 6 * i + 6)) for i in range(5)]
    whole = OverlapRatePartition(clients=5, rate=1).assign(graph)
    assert [nodes.tolist() for nodes in whole] == [list(range(30))] * 5


def test_the_shared_set_is_drawn_anew_for_each_seed_and_part() -> None:
    graph = graph_of(nx.disjoint_union(nx.complete_graph(50), nx.complete_graph(50)))

    def shared(seed: int, part: int) -> set[int]:
        clients = OverlapRatePartition(clients=10, rate=0.3, seed=seed).assign(graph)[5 * part : 5 * part + 5]
        return {int(node) % 50 for node in set.intersection(*(set(nodes) for nodes in clients))}

    assert shared(1, 0) == shared(1, 0)
    assert len({frozenset(shared(seed, part)) for seed in (1, 2, 3) for part in (0, 1)}) == 6
    assert shared(1, 0) != set(range(15))  # a draw, not the first nodes


@pytest.mark.parametrize(
    ("nodes", "rate", "sizes"),
    [
        (7, 0.6, [4, 4, 5, 5, 5]),  # round(4.2) shared, three left for five
        (3, 0.2, [1, 1, 1, 2, 2]),  # round(0.6) shared, two left
        (1, 1.0, [1, 1, 1, 1, 1]),
        (5, 0.0, [1, 1, 1, 1, 1]),
        (6, 0.0, [1, 1, 1, 1, 2]),
    ],
)
def test_small_parts_leave_no_client_empty(nodes: int, rate: float, sizes: list[int]) -> None:
    assigned = OverlapRatePartition(clients=5, rate=rate).assign(graph_of(nx.path_graph(nodes)))
    assert sorted(client.size for client in assigned) == sizes
    assert np.unique(np.concatenate(assigned)).tolist() == list(range(nodes))


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_too_few_nodes_with_none_to_share_are_refused(rate: float) -> None:
    with pytest.raises(SubflError, match=rf"METIS part 0 is too small .* its 4 nodes partition\.rate={rate:g} shares"):
        OverlapRatePartition(clients=5, rate=rate).assign(graph_of(nx.path_graph(4)))


def test_digits_at_rate_a_tenth() -> None:
    graph = DigitsDataset().load(Path("nowhere"))
    assigned = OverlapRatePartition(clients=10, rate=0.1).assign(graph)
    holders = np.bincount(np.concatenate(assigned), minlength=1797)
    parts = [nodes.size for nodes in metis_parts(graph, 2, 1234, "parts")]
    shared = sum(round(0.1 * size) for size in parts)
    assert np.bincount(holders).tolist() == [0, 1797 - shared, 0, 0, 0, shared]
    assert min(map(len, assigned)) / max(map(len, assigned)) > 0.95  # METIS balances the rest
