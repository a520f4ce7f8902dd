r"""Structural encoding of a node's surroundings, without any feature.

As in FedStar (Tan et al., "Federated learning on non-IID graphs via structural knowledge sharing", AAAI 2023), half of
an encoding describes walks and half degrees:

- the probabilities :math:`(A D^{-1})^k_{vv}`, k = 1, 2, ..., that a random walk from v is at v again after k steps
  (Dwivedi et al., "Graph neural networks with learnable structural and positional representations", ICLR 2022);
- v's degree, one-hot. FedStar has a column for each degree. Here they are buckets [2^(b-1), 2^b), so that the heavy
  tail of degrees has separate columns, and bucket 0 for nodes without neighbours.

**Cost.** With :math:`S = D^{-1/2} A D^{-1/2}`, which is symmetric and has the same diagonals of powers,
:math:`(S^{i+j})_{vv} = (S^i)_v \cdot (S^j)_v`, so that k steps take k/2 products. Exactly that is k/2 · edges · N
multiplications, worked in blocks of columns: below a second for a client of some thousand nodes. Above 4e9 of them the
rows of :math:`S^i` are projected on 512 random signs: k/2 · edges · 512 multiplications (seconds for ogbn-arxiv), and a
relative standard deviation of at most :math:`\sqrt{2/512}`, 6 %, for even k; for odd k it is that share of the
geometric mean of the probabilities at k - 1 and k + 1. Neither way has more than N · 128 values at once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse

from subfl_flower.seeding import shared_generator

_MOST_PRODUCTS = 4e9
_PROJECTIONS = 512
_BLOCK = 128  # columns at once


def structure_encoding(edge_index: np.ndarray, num_nodes: int, width: int) -> np.ndarray:
    """The encoding of every node: width // 2 columns of walks, then the others of degrees.

    It depends on the edges alone, not on their weights, and is the same wherever it is computed.

    Args:
        edge_index: [2, edges], both directions of every edge, without self-loops.
        num_nodes: N.
        width: columns, at least 2.

    Returns:
        float32 [N, width].
    """
    steps = width // 2
    return np.hstack(
        [landing_probabilities(edge_index, num_nodes, steps), degree_buckets(edge_index, num_nodes, width - steps)]
    )


def landing_probabilities(edge_index: np.ndarray, num_nodes: int, steps: int) -> np.ndarray:
    """Probabilities that a walk is where it began after 1, 2, ..., `steps` steps; zero without neighbours.

    Args:
        edge_index: [2, edges], both directions of every edge, without self-loops.
        num_nodes: N.
        steps: length of the longest walk.

    Returns:
        float32 [N, steps]; estimated where exact values would take too long.
    """
    walk = _symmetric_walk(edge_index, num_nodes)
    found = np.zeros((num_nodes, steps), dtype=np.float32)
    if (steps + 1) // 2 * walk.nnz * num_nodes > _MOST_PRODUCTS:
        for signs in _random_signs(num_nodes):
            found += _inner_products(walk, signs, steps, axis=1)
        return found
    for start in range(0, num_nodes, _BLOCK):
        count = min(_BLOCK, num_nodes - start)
        columns = np.eye(num_nodes, count, -start, dtype=np.float32)
        found[start : start + count] = _inner_products(walk, columns, steps, axis=0)
    return found


def degree_buckets(edge_index: np.ndarray, num_nodes: int, buckets: int) -> np.ndarray:
    """One-hot degrees, float32 [N, buckets]: 0, 1, 2-3, 4-7, and so on; the last bucket takes all larger ones."""
    degrees = np.bincount(edge_index[0], minlength=num_nodes)
    _, exponents = np.frexp(degrees)  # degree = m 2^e, 1/2 <= m < 1
    return np.eye(buckets, dtype=np.float32)[np.minimum(exponents, buckets - 1)]


def _symmetric_walk(edge_index: np.ndarray, num_nodes: int) -> scipy.sparse.csr_array:
    """S, float32 CSR [N, N]."""
    row, column = edge_index
    scale = 1 / np.sqrt(np.maximum(np.bincount(row, minlength=num_nodes), 1))
    values = (scale[row] * scale[column]).astype(np.float32)
    return scipy.sparse.coo_array((values, (row, column)), shape=(num_nodes, num_nodes)).tocsr()


def _inner_products(walk: scipy.sparse.csr_array, start: np.ndarray, steps: int, axis: int) -> np.ndarray:
    """Inner products of S^i X and S^j X along an axis, for i + j = 1, 2, ..., `steps`: [other axis, steps]."""
    products: list[np.ndarray] = []
    before = start
    while len(products) < steps:
        after = walk @ before
        products += [(before * after).sum(axis), (after * after).sum(axis)]
        before = after
    return np.stack(products[:steps], axis=1)


def _random_signs(num_nodes: int) -> Iterator[np.ndarray]:
    """Blocks [N, columns] of signs, scaled so that their rows are orthonormal in expectation; always the same."""
    rng = shared_generator(0, "structure encoding")
    for start in range(0, _PROJECTIONS, _BLOCK):
        shape = (num_nodes, min(_BLOCK, _PROJECTIONS - start))
        signs = 2 * rng.integers(0, 2, shape, dtype=np.int8) - 1
        yield signs * np.float32(_PROJECTIONS**-0.5)
