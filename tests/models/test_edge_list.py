"""Sums and softmax over the edges of two clients, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch

from subfl_flower.models.edge_list import EdgeList
from subfl_flower.models.sparse import SparseMatrix


def operator(nodes: int, *edges: tuple[int, int]) -> scipy.sparse.csr_array:
    """Edges (i, j) from j to i, with values that must not count."""
    row, column = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    values = np.full(len(row), 7, dtype=np.float32)
    return scipy.sparse.coo_array((values, (row, column)), shape=(nodes, nodes)).tocsr()


def two_clients() -> EdgeList:
    """Client 0: node 0 hears 0, 1 and 2, and node 2 hears 1; client 1: node 1 hears 0. Both have 3 nodes' room."""
    return EdgeList([operator(3, (0, 0), (0, 1), (0, 2), (2, 1)), operator(2, (1, 0))], 3)


NODES = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0]])


def test_edges_are_in_the_order_of_the_nodes_that_they_lead_to() -> None:
    edges = two_clients()
    assert edges.counts == (4, 1)
    assert edges.at_sources(NODES).squeeze(1).tolist() == [1, 2, 3, 2, 4]
    assert edges.at_targets(NODES).squeeze(1).tolist() == [1, 1, 1, 3, 5]
    messages = torch.tensor([[1.0], [10.0], [100.0], [7.0], [9.0]])
    assert edges.summed(messages).squeeze(1).tolist() == [111, 0, 7, 0, 9, 0]


def test_a_softmax_over_the_edges_of_each_node_by_hand() -> None:
    """exp of 0, log 2, log 5 are 1, 2, 5 and sum to 8; a node's only edge has the share 1, whatever its score."""
    scores = torch.tensor([[0.0, 0.0], [np.log(2), 0.0], [np.log(5), 0.0], [-3.0, 90.0], [200.0, -200.0]])
    found = two_clients().softmax(scores.float())
    thirds = [1 / 3] * 3
    np.testing.assert_allclose(found[:, 0], [1 / 8, 2 / 8, 5 / 8, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(found[:, 1], [*thirds, 1, 1], rtol=1e-6)


def test_the_largest_value_of_each_nodes_edges_by_hand() -> None:
    values = torch.tensor([[1.0, -5.0], [3.0, -7.0], [2.0, -6.0], [-4.0, 0.0], [8.0, 8.0]], requires_grad=True)
    found = two_clients().largest(values)
    assert found.tolist() == [[3, -5]] * 3 + [[-4, 0], [8, 8]] and not found.requires_grad


def test_large_scores_stay_finite() -> None:
    scores = torch.tensor([[1000.0], [1000.0], [-1000.0], [0.0], [0.0]])
    assert two_clients().softmax(scores).squeeze(1).tolist() == [0.5, 0.5, 0, 1, 1]


def test_gradients_of_a_softmax_by_hand() -> None:
    """With shares a = (1/8, 2/8, 5/8), the gradient of the second one is a_2 (e_2 - a) = (-2/64, 12/64, -10/64)."""
    scores = torch.tensor([[0.0], [np.log(2)], [np.log(5)], [1.0], [1.0]], dtype=torch.float32, requires_grad=True)
    two_clients().softmax(scores)[1].sum().backward()
    assert scores.grad is not None
    np.testing.assert_allclose(scores.grad.squeeze(1), [-2 / 64, 12 / 64, -10 / 64, 0, 0], atol=1e-7)


def test_gradients_flow_back_to_the_nodes() -> None:
    nodes = NODES.clone().requires_grad_()
    edges = two_clients()
    edges.at_sources(nodes).sum().backward()
    assert nodes.grad is not None and nodes.grad.squeeze(1).tolist() == [1, 2, 1, 1, 0, 0]
    nodes.grad = None
    edges.at_targets(nodes).sum().backward()
    assert nodes.grad is not None and nodes.grad.squeeze(1).tolist() == [3, 0, 1, 0, 1, 0]
    messages = torch.zeros(5, 1, requires_grad=True)
    (edges.summed(messages) * NODES).sum().backward()
    assert messages.grad is not None and messages.grad.squeeze(1).tolist() == [1, 1, 1, 3, 5]


def test_clients_without_an_edge_have_none() -> None:
    edges = EdgeList([operator(2)], 2)
    assert edges.counts == (0,) and edges.softmax(torch.zeros(0, 3)).shape == (0, 3)
    assert edges.summed(torch.zeros(0, 3)).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_transpose_is_a_matrix_with_rows_and_columns_exchanged(symmetric: bool) -> None:
    dense = np.array([[0, 2.0, 1], [2, 0, 0], [1 if symmetric else 4, 0, 3]], dtype=np.float32)
    wide = dense if symmetric else dense[:2]
    matrix = SparseMatrix(scipy.sparse.csr_array(wide), symmetric=symmetric)
    assert matrix.T.shape == wide.T.shape and matrix.shape == wide.shape
    values = torch.arange(2.0 * len(wide)).view(-1, 2).requires_grad_()
    product = matrix.T @ values
    np.testing.assert_array_equal(product.detach(), wide.T @ values.detach().numpy())
    product.sum().backward()
    assert values.grad is not None
    np.testing.assert_array_equal(values.grad, wide @ np.ones((wide.shape[1], 2)))
