"""Disturbance of a client's graph: its features, its edges, its training labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.disturbances.settings import DisturbanceSettings
from subfl_flower.data.graph import NO_ROLE, TRAIN, ClientGraph, FeatureMatrix
from subfl_flower.seeding import client_generator, shared_generator

_DRAWS = 200
"""Most draws of pairs of nodes for new edges, each of as many as are missing; then the graph has hardly any left."""


@dataclass(frozen=True)
class Disturber:
    """Disturbs the clients of a partition. What happens to one does not depend on how others are read.

    Attributes:
        settings: of the disturbances.
        seed: of the partition.
        num_clients: K.
    """

    settings: DisturbanceSettings
    seed: int
    num_clients: int

    @property
    def chosen(self) -> list[int]:
        """The clients that are disturbed, in the order of their draw."""
        order = shared_generator(self.seed, "disturbed clients").permutation(self.num_clients)
        return [int(client) for client in order[: max(1, round(self.settings.clients * self.num_clients))]]

    @property
    def homophilous(self) -> set[int]:
        """Those of `chosen` whose injected edges join nodes of one class."""
        chosen = self.chosen
        order = shared_generator(self.seed, "homophilous clients").permutation(chosen)
        return set(order[: round(self.settings.homophilous * len(chosen))].tolist())

    def of(self, graph: ClientGraph) -> tuple[ClientGraph, dict[str, int]]:
        """A client's graph, disturbed, and the numbers of things that were changed."""
        settings, done = self.settings, dict[str, int]()
        if settings.feature_noise and not isinstance(graph.features, np.ndarray):
            graph = replace(graph, features=graph.features.toarray())  # of all clients, so that all have one form
        if graph.client_id not in self.chosen:
            return graph, done
        features = graph.features
        if settings.feature_sparsity:
            before = _nonzero(features)
            features = sparser(features, settings.feature_sparsity, self._generator(graph, "sparse features"))
            done["features_zeroed"] = before - _nonzero(features)
        if settings.feature_noise:
            drawn = self._generator(graph, "noisy features").standard_normal(features.shape, dtype=np.float32)
            features = np.asarray(features + np.float32(settings.feature_noise) * drawn, dtype=np.float32)
            done["features_noised"] = features.size
        graph = self._with_labels(self._with_edges(replace(graph, features=features), done), done)
        return graph, done

    def _generator(self, graph: ClientGraph, purpose: str) -> np.random.Generator:
        return client_generator(self.seed, graph.client_id, 0, purpose)

    def _with_edges(self, graph: ClientGraph, done: dict[str, int]) -> ClientGraph:
        """Remove and add edges; shares are of the edges that the client had, and no removed one is added again."""
        settings = self.settings
        if not (settings.edge_noise or settings.edge_sparsity or settings.edge_injection):
            return graph
        forward = graph.edge_index[0] < graph.edge_index[1]
        edges = graph.edge_index[:, forward]
        count, taken = edges.shape[1], _codes(edges, graph.num_nodes)
        weights = None if graph.edge_weight is None else graph.edge_weight[forward]
        kept = np.ones(count, dtype=bool)
        if settings.edge_sparsity:
            order = self._generator(graph, "sparse edges").permutation(count)
            kept[order[: round(settings.edge_sparsity * count)]] = False
            done["edges_removed"] = int((~kept).sum())
        added = [edges[:, kept]]
        if settings.edge_noise:
            rng = self._generator(graph, "noisy edges")
            added.append(new_edges(graph.num_nodes, taken, round(settings.edge_noise * count), rng))
            taken = np.concatenate([taken, _codes(added[-1], graph.num_nodes)])
            done["edges_added"] = added[-1].shape[1]
        if settings.edge_injection and graph.labels is not None:
            rng, allowed = self._generator(graph, "injected edges"), self._allowed(graph)
            added.append(new_edges(graph.num_nodes, taken, round(settings.edge_injection * count), rng, allowed))
            done["edges_injected"] = added[-1].shape[1]
        if weights is not None:
            rng, new = self._generator(graph, "weights of new edges"), sum(part.shape[1] for part in added[1:])
            weights = np.concatenate([weights[kept], rng.choice(weights, new) if new else weights[:0]])
        return _with_undirected(graph, np.concatenate(added, axis=1), weights)

    def _allowed(self, graph: ClientGraph) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        """True for pairs of labelled nodes of one class, or for those of two."""
        labels, one_class = graph.labels, graph.client_id in self.homophilous
        assert labels is not None
        return lambda u, v: (
            (labels[u] >= 0) & (labels[v] >= 0) & ((labels[u] == labels[v]) if one_class else (labels[u] != labels[v]))
        )

    def _with_labels(self, graph: ClientGraph, done: dict[str, int]) -> ClientGraph:
        """Hide and replace labels of training nodes; a hidden one is not replaced."""
        settings, train = self.settings, np.flatnonzero(graph.roles == TRAIN)
        if graph.labels is None or not len(train) or not (settings.label_noise or settings.label_sparsity):
            return graph
        labels, roles = graph.labels.copy(), graph.roles.copy()
        if settings.label_sparsity:
            hidden = self._generator(graph, "sparse labels").permutation(train)
            hidden = hidden[: min(round(settings.label_sparsity * len(train)), len(train) - 1)]
            labels[hidden], roles[hidden] = -1, NO_ROLE
            done["labels_hidden"] = len(hidden)
            train = np.setdiff1d(train, hidden)
        if settings.label_noise and graph.num_classes > 1:
            rng = self._generator(graph, "noisy labels")
            changed = rng.permutation(train)[: round(settings.label_noise * len(train))]
            steps = rng.integers(1, graph.num_classes, len(changed))
            labels[changed] = (labels[changed] + steps) % graph.num_classes
            done["labels_changed"] = len(changed)
        return replace(graph, labels=labels, roles=roles)


def sparser(features: FeatureMatrix, share: float, rng: np.random.Generator) -> FeatureMatrix:
    """Features of which a share of each row's nonzero entries, rounded, is zero; which ones is drawn."""
    matrix = sp.csr_array(features)
    matrix.eliminate_zeros()
    counts = np.diff(matrix.indptr)
    order = np.lexsort((rng.random(matrix.nnz), np.repeat(np.arange(len(counts)), counts)))
    place = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], counts)
    lost = place < np.repeat(np.rint(share * counts), counts)
    matrix.data[order[lost]] = 0
    matrix.eliminate_zeros()
    return matrix.toarray() if isinstance(features, np.ndarray) else matrix


def new_edges(
    num_nodes: int,
    taken: np.ndarray,
    count: int,
    rng: np.random.Generator,
    allowed: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """Uniformly drawn pairs u < v of nodes that are no edges yet, int64 [2, count], each once.

    Args:
        num_nodes: N.
        taken: pairs that are edges, as u·N + v.
        count: number of pairs; fewer are returned where hardly any other pair is left.
        rng: draws them.
        allowed: from two arrays of nodes, True for the pairs that may be drawn; None: all may.
    """
    found = np.empty(0, dtype=np.int64)
    for _ in range(_DRAWS if num_nodes > 1 else 0):
        if len(found) >= count:
            break
        u = rng.integers(0, num_nodes, 2 * count + 16)
        v = (u + rng.integers(1, num_nodes, len(u))) % num_nodes
        u, v = np.minimum(u, v), np.maximum(u, v)
        if allowed is not None:
            fits = allowed(u, v)
            u, v = u[fits], v[fits]
        codes = u * num_nodes + v
        codes = codes[~np.isin(codes, taken) & ~np.isin(codes, found)]
        _, firsts = np.unique(codes, return_index=True)
        found = np.concatenate([found, codes[np.sort(firsts)]])
    found = found[:count]
    return np.stack([found // num_nodes, found % num_nodes]) if num_nodes else np.empty((2, 0), dtype=np.int64)


def homophily(graph: ClientGraph) -> float | None:
    """Share of the edges between labelled nodes whose ends have one class; None without such an edge."""
    if graph.labels is None:
        return None
    ends = graph.labels[graph.edge_index]
    ends = ends[:, (ends >= 0).all(axis=0)]
    return float((ends[0] == ends[1]).mean()) if ends.shape[1] else None


def _with_undirected(graph: ClientGraph, edges: np.ndarray, weights: np.ndarray | None) -> ClientGraph:
    """The graph with other edges [2, E] and their weights [E], in both directions, sorted."""
    both = np.concatenate([edges, edges[::-1]], axis=1)
    order = np.lexsort((both[1], both[0]))
    weight = None if weights is None else np.concatenate([weights, weights])[order].astype(np.float32)
    return replace(graph, edge_index=np.ascontiguousarray(both[:, order]), edge_weight=weight)


def _codes(edges: np.ndarray, num_nodes: int) -> np.ndarray:
    codes: np.ndarray = edges[0] * num_nodes + edges[1]
    return codes


def _nonzero(features: FeatureMatrix) -> int:
    return int(np.count_nonzero(features if isinstance(features, np.ndarray) else features.data))
