from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from subfl_flower.data.graph import NO_ROLE, TEST, TRAIN, ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.mending.hidden_neighbours import hide_neighbours, with_neighbours


def graph_of(edges: list[tuple[int, int]], roles: list[int], features: np.ndarray | None = None) -> ClientGraph:
    nodes = len(roles)
    both = sorted({*edges, *((b, a) for a, b in edges)})
    return ClientGraph(
        client_id=7,
        node_ids=10 * np.arange(nodes) + 3,
        features=np.arange(2 * nodes, dtype=np.float32).reshape(nodes, 2) if features is None else features,
        edge_index=np.array(both, dtype=np.int64).reshape(-1, 2).T,
        labels=np.arange(nodes) % 3,
        num_classes=3,
        roles=np.array(roles, dtype=np.int8),
        shareable=np.arange(nodes) % 2 == 0,
    )


def random_graph(nodes: int = 60, seed: int = 0) -> tuple[nx.Graph, ClientGraph]:
    drawn = nx.gnm_random_graph(nodes, 3 * nodes, seed=seed)
    return drawn, graph_of(list(drawn.edges), [TRAIN if node % 4 == 0 else TEST for node in range(nodes)])


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_what_is_hidden_against_networkx(share: float) -> None:
    drawn, graph = random_graph()
    impaired = hide_neighbours(graph, share, np.random.default_rng(1))
    visible = impaired.visible.tolist()
    hidden = set(drawn) - set(visible)
    assert len(hidden) == round(share * 60) and visible == sorted(visible)
    for v, node in enumerate(visible):
        lost = impaired.indices[impaired.indptr[v] : impaired.indptr[v + 1]].tolist()
        assert lost == sorted(set(drawn[node]) & hidden)
        assert impaired.missing[v] == len(lost)
    remains = nx.convert_node_labels_to_integers(drawn.subgraph(visible), ordering="sorted")
    edges = [tuple(edge) for edge in impaired.graph.edge_index.T.tolist()]
    assert edges == sorted(remains.to_directed().edges)


@pytest.mark.parametrize("sparse", [False, True])
def test_visible_nodes_keep_what_they_are(sparse: bool) -> None:
    _, graph = random_graph()
    features = sp.csr_array(graph.features) if sparse else graph.features
    impaired = hide_neighbours(graph_of([(0, 1)], graph.roles.tolist(), features), 0.5, np.random.default_rng(2))
    kept = impaired.graph
    found = kept.features.toarray() if sparse else kept.features
    assert sp.issparse(kept.features) == sparse
    np.testing.assert_array_equal(found[:, 0], 2 * impaired.visible)
    np.testing.assert_array_equal(kept.node_ids, 10 * impaired.visible + 3)
    np.testing.assert_array_equal(kept.labels, impaired.visible % 3)
    np.testing.assert_array_equal(kept.roles == TRAIN, impaired.visible % 4 == 0)
    np.testing.assert_array_equal(kept.shareable, impaired.visible % 2 == 0)
    assert (kept.client_id, kept.num_classes) == (7, 3)


def test_one_training_node_always_remains() -> None:
    graph = graph_of([(0, 1), (1, 2), (2, 3)], [TEST, TRAIN, TEST, TRAIN])
    hidden = set()
    for seed in range(40):
        impaired = hide_neighbours(graph, 0.75, np.random.default_rng(seed))
        assert impaired.graph.num_nodes == impaired.graph.num_train == 1
        hidden |= {0, 1, 2, 3} - set(impaired.visible.tolist())
    assert hidden == {0, 1, 2, 3}


@pytest.mark.parametrize(("share", "remain"), [(0.01, 2), (0.99, 1)])
def test_something_is_hidden_and_something_remains(share: float, remain: int) -> None:
    graph = graph_of([(0, 1), (1, 2)], [TEST, TEST, TEST])
    assert hide_neighbours(graph, share, np.random.default_rng(0)).graph.num_nodes == remain


def test_a_single_node_is_kept() -> None:
    impaired = hide_neighbours(graph_of([], [TRAIN]), 0.5, np.random.default_rng(0))
    assert impaired.visible.tolist() == [0]
    assert (impaired.missing.tolist(), impaired.indptr.tolist(), impaired.indices.tolist()) == ([0], [0, 0], [])


def test_the_generator_alone_decides() -> None:
    _, graph = random_graph()
    first, second, other = (hide_neighbours(graph, 0.3, np.random.default_rng(seed)).visible for seed in (5, 5, 6))
    assert first.tolist() == second.tolist() != other.tolist()


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_that_leaves_nothing_is_refused(share: float) -> None:
    with pytest.raises(SubflError, match=r"the share of hidden nodes is .*, and must be more than 0 and less than 1"):
        hide_neighbours(graph_of([(0, 1)], [TRAIN, TEST]), share, np.random.default_rng(0))


def test_new_neighbours_by_hand() -> None:
    graph = graph_of([(0, 1), (1, 2)], [TRAIN, TEST, TRAIN])
    new = np.array([[0.5, 0.5], [7, 8], [9, 10]], dtype=np.float32)
    mended = with_neighbours(graph, np.array([2, 0, 1]), new)
    assert mended.node_ids.tolist() == [3, 13, 23, 24, 25, 26]
    edges = [(0, 1), (0, 3), (0, 4), (1, 0), (1, 2), (2, 1), (2, 5), (3, 0), (4, 0), (5, 2)]
    assert [tuple(edge) for edge in mended.edge_index.T.tolist()] == edges
    np.testing.assert_array_equal(mended.features, np.concatenate([graph.features, new]))
    assert mended.labels is not None
    assert mended.labels.tolist() == [0, 1, 2, -1, -1, -1]
    assert mended.roles.tolist() == [TRAIN, TEST, TRAIN, NO_ROLE, NO_ROLE, NO_ROLE]
    assert mended.shareable.tolist() == [True, False, True, False, False, False]
    assert (mended.roles.dtype, mended.features.dtype, mended.edge_index.dtype) == (np.int8, np.float32, np.int64)
    assert (mended.client_id, mended.num_classes) == (7, 3)


@pytest.mark.parametrize(("new", "sparse"), [(1, True), (2, False)])
def test_features_stay_sparse_while_that_is_smaller(new: int, sparse: bool) -> None:
    graph = graph_of([(0, 1)], [TRAIN, TEST], sp.csr_array(np.eye(2, 10, dtype=np.float32)))
    # 2 entries and 10 of each new node, at two numbers an entry: 24 of 30, 44 of 40.
    mended = with_neighbours(graph, np.array([0, new]), np.full((new, 10), 3, dtype=np.float32))
    assert sp.issparse(mended.features) == sparse
    dense = mended.features.toarray() if sparse else mended.features
    np.testing.assert_array_equal(dense, np.concatenate([np.eye(2, 10), np.full((new, 10), 3)]))
    assert dense.dtype == np.float32


def test_a_graph_without_labels_keeps_none() -> None:
    graph = graph_of([(0, 1)], [NO_ROLE, NO_ROLE])
    unlabelled = ClientGraph(**{**vars(graph), "labels": None, "num_classes": 0})
    rng = np.random.default_rng(0)
    assert hide_neighbours(unlabelled, 0.5, rng).graph.labels is None
    assert with_neighbours(unlabelled, np.array([1, 0]), np.ones((1, 2), dtype=np.float32)).labels is None
