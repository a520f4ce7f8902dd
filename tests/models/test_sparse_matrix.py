from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from tiny_clients import dense_operator

from subfl_flower.models.sparse import SparseMatrix, block_diagonal, normalised_adjacency


def test_normalised_adjacency_of_a_path_by_hand() -> None:
    # 0 - 1 - 2 and the isolated node 3: degrees with self-loops 2, 3, 2, 1.
    edges = np.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    a, b = 1 / 6**0.5, 1 / 2
    expected = [[b, a, 0, 0], [a, 1 / 3, a, 0], [0, a, b, 0], [0, 0, 0, 1]]
    found = normalised_adjacency(edges, 4)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-6)


def test_normalised_adjacency_is_the_dense_formula() -> None:
    graph = nx.gnp_random_graph(40, 0.1, seed=1)
    edges = np.array([*graph.edges, *((b, a) for a, b in graph.edges)]).T
    found = normalised_adjacency(edges, 40).toarray()
    np.testing.assert_allclose(found, dense_operator(edges, 40), atol=1e-7)
    np.testing.assert_array_equal(found, found.T)


@pytest.mark.parametrize("shape", [(5, 8), (8, 5), (3, 1)])
def test_product_and_gradient_are_those_of_the_dense_matrix(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    dense = np.where(rng.random(shape) < 0.4, rng.standard_normal(shape), 0).astype(np.float32)
    values = torch.randn(shape[1], 3, generator=torch.Generator().manual_seed(0))
    scale = torch.randn(shape[0], 3, generator=torch.Generator().manual_seed(1))
    outcomes = []
    for matrix in (SparseMatrix(sp.coo_array(dense)), torch.from_numpy(dense)):
        leaf = values.clone().requires_grad_()
        product = matrix @ leaf
        (product**2 * scale).sum().backward()
        outcomes.append((product.detach(), leaf.grad))
    (product, gradient), (expected, expected_gradient) = outcomes
    torch.testing.assert_close(product, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    torch.testing.assert_close(SparseMatrix(sp.csr_array(dense)) @ values, expected)  # without a gradient


def test_a_symmetric_matrix_needs_no_second_copy() -> None:
    dense = dense_operator(np.array([[0, 1, 1, 2], [1, 0, 2, 1]]), 3).astype(np.float32)
    leaf = torch.eye(3).requires_grad_()
    scale = torch.arange(9.0).view(3, 3)
    ((SparseMatrix(sp.csr_array(dense), symmetric=True) @ leaf) * scale).sum().backward()
    torch.testing.assert_close(leaf.grad, torch.from_numpy(dense.T) @ scale)


def test_block_diagonal_pads_every_block_to_one_shape() -> None:
    blocks = [np.array([[1.0, 2.0], [0.0, 3.0]]), np.zeros((1, 3)), np.array([[4.0, 5.0, 6.0]] * 3), np.zeros((0, 0))]
    padded = [np.zeros((3, 4)) for _ in blocks]
    for block, place in zip(blocks, padded, strict=True):
        place[: block.shape[0], : block.shape[1]] = block
    found = block_diagonal([sp.csr_array(block) for block in blocks], (3, 4))
    np.testing.assert_array_equal(found.toarray(), sp.block_diag(padded).toarray())
