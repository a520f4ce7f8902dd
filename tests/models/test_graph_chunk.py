from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_clients import FEATURES, chunk_of, dense_features, dense_operator, tiny_client

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.models.sparse import SparseMatrix


@pytest.mark.parametrize("kinds", [(False, False), (True, True), (True, False), (False, True)])
def test_inputs_are_each_clients_operator_times_its_features(kinds: tuple[bool, bool]) -> None:
    graphs = [tiny_client(5, 3, sparse=kinds[0]), tiny_client(2, 6, sparse=kinds[1])]
    chunk = chunk_of(*graphs)
    assert (chunk.client_ids, chunk.num_nodes, chunk.width, len(chunk)) == ((5, 2), (3, 6), 6, 2)
    if isinstance(chunk.inputs, SparseMatrix):
        found = (chunk.inputs @ torch.eye(2 * FEATURES)).numpy()
    else:
        found = torch.block_diag(*chunk.inputs).numpy()
    for c, graph in enumerate(graphs):
        expected = np.zeros((6, 2 * FEATURES))
        product = dense_operator(graph.edge_index, graph.num_nodes) @ dense_features(graph)
        expected[: graph.num_nodes, c * FEATURES : (c + 1) * FEATURES] = product
        np.testing.assert_allclose(found[6 * c : 6 * c + 6], expected, atol=1e-6)


def test_means_are_over_the_nodes_of_a_role_and_no_number_without_such_nodes() -> None:
    graphs = [tiny_client(0, 5, roles=[0, 0, 1, 1, -1]), tiny_client(1, 2, roles=[0, 2])]
    chunk, values = chunk_of(*graphs), torch.tensor([[1.0, 2, 3, 5, 100], [7, 8, 100, 100, 100]])
    assert chunk.mean(values, TRAIN).tolist() == [1.5, 7]
    validation, test = chunk.mean(values, VALIDATION).tolist(), chunk.mean(values, TEST).tolist()
    assert validation[0] == 4 and np.isnan(validation[1])
    assert np.isnan(test[0]) and test[1] == 8


def test_unlabelled_nodes_and_padding_get_a_class_that_exists_and_no_weight() -> None:
    graph = replace(tiny_client(0, 3, roles=[0, -1, 1]), labels=np.array([2, -1, 1]))
    chunk = chunk_of(graph, tiny_client(1, 4))
    assert chunk.labels[0].tolist() == [2, 0, 1, 0]
    assert not any(members[0, [1, 3]].any() for members in chunk.members)


@pytest.mark.parametrize("sparse", [False, True])
def test_feature_support_is_what_a_client_has_anywhere(sparse: bool) -> None:
    graph = tiny_client(0, 6, lacking=[1, 4], sparse=sparse)
    cancelling = tiny_client(1, 2, sparse=False)
    cancelling.features[:] = [[1, 0, 0, 0, 0, -2], [-1, 0, 0, 0, 0, 2]]  # sums to zero, and is there
    assert chunk_of(graph).feature_support.tolist() == [[True, False, True, True, False, True]]
    assert chunk_of(cancelling).feature_support.tolist() == [[True, False, False, False, False, True]]
