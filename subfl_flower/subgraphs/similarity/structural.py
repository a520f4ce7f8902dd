r"""Structural distance: two clients are close if the nodes they share are near their other nodes.

SubPFed (Li, Bao and Tong, Computers, Materials & Continua 2026, 88(1):34), eq. 5: over the nodes n that i and j share,

.. math:: D_{ij} = \frac{\sum_n w_n \left(\sum_{h \in V_i} d_i(h, n) + \sum_{k \in V_j} d_j(k, n)\right)}
                        {\sum_n w_n (|V_i| + |V_j|)},

where :math:`d_i` is the number of hops in subgraph i. Nodes that n cannot reach count neither above nor below the line:
:math:`|V_i|` is the number of nodes that n reaches in subgraph i. The weight of a node is its degree,
:math:`w_n = deg_i(n) + deg_j(n)`. Hops and degrees ignore edge weights: the distance depends only on which nodes are
joined.

A client thus sends three numbers of a shared node, under a keyed hash of its id. The server, which lacks the key, sees
that two clients send the same node but not which one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import breadth_first_order

from subfl_flower.errors import SubflError
from subfl_flower.privacy.tokens import TOKEN_BYTES, comparable

LEAST_KEY_BYTES = 16

Kernel: TypeAlias = Literal["exp", "inverse", "literal"]


@dataclass(frozen=True, eq=False)
class Structure:
    """Data that a client sends on its S shareable nodes, in the order of their tokens.

    Attributes:
        tokens: uint8 `[S, 16]`, keyed hashes of the nodes' ids.
        distances: int64 `[S]`, hops to all nodes that the node reaches, summed.
        reach: int64 `[S]`, number of nodes that the node reaches, itself included.
        degrees: int64 `[S]`, number of neighbours in the client's subgraph.
    """

    tokens: np.ndarray
    distances: np.ndarray
    reach: np.ndarray
    degrees: np.ndarray


def describe_structure(
    edge_index: np.ndarray, num_nodes: int, shareable: np.ndarray, node_ids: np.ndarray, key: bytes
) -> Structure:
    """Data that a client sends on its subgraph.

    Each shareable node takes one breadth-first search, in the memory of one search. SciPy's `breadth_first_order` is
    linear in nodes and edges, where `dijkstra` and `shortest_path` keep a heap even with `unweighted=True`. It is
    faster from some hundred nodes on, and takes a third of their time on graphs of some thousand.

    Args:
        edge_index: int `[2, edges]`, local ids, both directions of every edge once, no self-loops.
        num_nodes: number of nodes of the subgraph.
        shareable: bool `[nodes]`, the nodes to describe.
        node_ids: int64 `[nodes]`, distinct ids that mean the same node for every client.
        key: secret of the clients, 16 to 64 bytes.

    Raises:
        SubflError: the key is too short to keep ids from being guessed, or too long for BLAKE2b.
    """
    row, column = edge_index
    adjacency = sp.csr_array((np.ones(len(row)), (row, column)), shape=(num_nodes, num_nodes))
    tokens = _tokens(node_ids[shareable], key)
    order = np.argsort(comparable(tokens))  # sorted by token, so that the order of rows does not reveal that of ids
    sources = np.flatnonzero(shareable)[order]
    hops = np.array([_hops(adjacency, source) for source in sources], dtype=np.int64).reshape(-1, 2)
    degrees = np.bincount(row, minlength=num_nodes)[sources]
    return Structure(tokens[order], hops[:, 0].copy(), hops[:, 1].copy(), degrees.astype(np.int64))


def _tokens(node_ids: np.ndarray, key: bytes) -> np.ndarray:
    """Keyed BLAKE2b hashes, uint8 `[ids, 16]`, of ids as eight little-endian bytes."""
    if not LEAST_KEY_BYTES <= len(key) <= hashlib.blake2b.MAX_KEY_SIZE:
        raise SubflError(
            f"the key that hides node ids has {len(key)} bytes, and must have "
            f"{LEAST_KEY_BYTES} to {hashlib.blake2b.MAX_KEY_SIZE}"
        )
    ids = (node_id.to_bytes(8, "little", signed=True) for node_id in node_ids.tolist())
    digests = b"".join(hashlib.blake2b(number, key=key, digest_size=TOKEN_BYTES).digest() for number in ids)
    return np.frombuffer(digests, dtype=np.uint8).reshape(-1, TOKEN_BYTES).copy()


def _hops(adjacency: sp.csr_array, source: int) -> tuple[int, int]:
    """Hops from `source` to all nodes that it reaches, summed, and the number of these nodes."""
    order, ancestor = breadth_first_order(adjacency, source)
    hops = (ancestor >= 0).astype(np.int64)  # to `ancestor`; neither the source nor a node out of reach has one
    ancestor[ancestor < 0] = source
    while (ancestor != source).any():  # doubles the hops in every pass: as cheap for long chains as for short
        hops += hops[ancestor]
        ancestor = ancestor[ancestor]
    return int(hops.sum()), len(order)


def check_structure(structure: Structure, client: str) -> None:
    """Refuse a structure that no subgraph has.

    Args:
        structure: as decoded from a message.
        client: its owner, for the sentence.

    Raises:
        ValueError: wrong shapes or types, a token twice, or impossible numbers.
    """
    tokens, reach = structure.tokens, structure.reach
    if tokens.dtype != np.uint8 or tokens.ndim != 2 or tokens.shape[1] != TOKEN_BYTES:
        raise ValueError(
            f"{client}: node tokens must be uint8 [nodes, {TOKEN_BYTES}], not {tokens.dtype} {list(tokens.shape)}"
        )
    numbers = {"distances": structure.distances, "reach": reach, "degrees": structure.degrees}
    for name, values in numbers.items():
        if values.dtype.kind not in "iu" or values.shape != (len(tokens),):
            raise ValueError(
                f"{client}: {name} must be integers, one for each of {len(tokens)} node tokens, "
                f"not {values.dtype} {list(values.shape)}"
            )
        if (values < 0).any():
            raise ValueError(f"{client}: {name} must not be negative, and one is {values.min()}")
    if len(np.unique(comparable(tokens))) < len(tokens):
        raise ValueError(f"{client}: a node token comes twice")
    if (reach < 1).any():
        raise ValueError(f"{client}: reach must be at least 1, because a node reaches itself")
    if (structure.degrees > reach - 1).any():
        raise ValueError(f"{client}: degrees must be at most reach - 1, because a node reaches its neighbours")
    if (structure.distances < reach - 1).any():
        raise ValueError(f"{client}: distances must be at least reach - 1, because every other node is a hop away")
    if (structure.distances > reach.astype(np.float64) * (reach - 1) / 2).any():
        raise ValueError(f"{client}: distances must be at most those along a path through all nodes that are reached")


def structural_distances(structures: Sequence[Structure | None], weighted: bool = True) -> np.ndarray:
    """Structural distances of all pairs of K clients (eq. 5), in mean hops.

    Args:
        structures: of every client; None where there is none.
        weighted: shared nodes are weighted by their degree, else equally. A pair whose shared nodes have no neighbour
            on either side weights them equally in any case.

    Returns:
        Symmetric float64 `[K, K]`: infinite for pairs without a shared node, 0 on the diagonal.

    Raises:
        ValueError: a structure that no subgraph has, named by its position in `structures`.
    """
    nothing = np.zeros(0, dtype=np.int64)
    absent = Structure(np.zeros((0, TOKEN_BYTES), dtype=np.uint8), nothing, nothing, nothing)
    present = [absent if structure is None else structure for structure in structures]
    for position, structure in enumerate(present):
        check_structure(structure, f"client {position}")
    incidence = _Incidence(present)
    result = np.full((len(present), len(present)), np.inf)
    alike = np.ones(len(incidence.reach))
    for weights in (alike, incidence.degrees) if weighted else (alike,):
        sizes = incidence.pair_sums(weights, incidence.reach)
        np.divide(incidence.pair_sums(weights, incidence.distances), sizes, out=result, where=sizes > 0)
    np.fill_diagonal(result, 0.0)
    return result


class _Incidence:
    """Incidence of clients and nodes: every value that clients send as an entry of a sparse [clients, nodes]."""

    def __init__(self, structures: list[Structure]) -> None:
        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(structure, name) for structure in structures])

        self.distances, self.reach, self.degrees = (
            joined(name).astype(np.float64) for name in ("distances", "reach", "degrees")
        )
        self._row = np.repeat(np.arange(len(structures)), [len(structure.tokens) for structure in structures])
        nodes, self._column = np.unique(comparable(joined("tokens")), return_inverse=True)
        self._shape = (len(structures), len(nodes))
        self._holds = self._matrix(np.ones(len(self._row)))

    def _matrix(self, values: np.ndarray) -> sp.csr_array:
        return sp.csr_array((values, (self._row, self._column)), shape=self._shape)

    def pair_sums(self, weights: np.ndarray, values: np.ndarray) -> np.ndarray:
        r""":math:`\sum_n (w_i(n) + w_j(n)) (v_i(n) + v_j(n))` over the nodes n that i and j share, `[K, K]`."""
        own = self._matrix(weights * values) @ self._holds.T
        half: np.ndarray = (own + self._matrix(weights) @ self._matrix(values).T).toarray()
        return half + half.T


def structural_weights(distances: np.ndarray, kernel: Kernel, gamma: float) -> np.ndarray:
    r"""Mixing weights from structural distances (eq. 6): row-stochastic `[K, K]`.

    D is taken relative to the largest finite distance between two clients. Before rows are divided by their sum, a
    weight is :math:`e^{-\gamma D}` (``exp``), :math:`1 / (1 + \gamma D)` (``inverse``), or the distance itself, as the
    equation is printed (``literal``, which gives the least similar clients the largest weight). The diagonal is 1, with
    ``literal`` 0 in rows that have another weight. Pairs without a shared node get 0. Where no distance is above zero
    and finite, the structure gives no information, and the matrix is the identity.

    Args:
        distances: as of `structural_distances`.
        kernel: see above.
        gamma: steepness with which weights fall with distance, at least 0; unused by ``literal``.

    Raises:
        SubflError: an unknown kernel.
    """
    if kernel not in get_args(Kernel):
        raise SubflError(f"the structural kernel must be one of {', '.join(get_args(Kernel))}, not {kernel!r}")
    others = np.isfinite(distances) & ~np.eye(len(distances), dtype=bool)
    largest = distances[others].max(initial=0.0)
    if largest == 0.0:
        return np.eye(len(distances))
    weights = np.zeros_like(distances)
    relative = distances[others] / largest
    if kernel == "literal":
        weights[others] = relative
        np.fill_diagonal(weights, weights.sum(1) == 0.0)
    else:
        weights[others] = np.exp(-gamma * relative) if kernel == "exp" else 1.0 / (1.0 + gamma * relative)
        np.fill_diagonal(weights, 1.0)
    return weights / weights.sum(1, keepdims=True)
