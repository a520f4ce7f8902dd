from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_clients import FEATURES, chunk_of, dense_features, dense_operator, tiny_client

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


@pytest.mark.parametrize("sparse", [False, True])
def test_feature_support_is_what_a_client_has_anywhere(sparse: bool) -> None:
    graph = tiny_client(0, 6, lacking=[1, 4], sparse=sparse)
    cancelling = tiny_client(1, 2, sparse=False)
    cancelling.features[:] = [[1, 0, 0, 0, 0, -2], [-1, 0, 0, 0, 0, 2]]  # sums to zero, and is there
    assert chunk_of(graph).feature_support.tolist() == [[True, False, True, True, False, True]]
    assert chunk_of(cancelling).feature_support.tolist() == [[True, False, False, False, False, True]]
