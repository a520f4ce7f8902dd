"""Distances of generated neighbours to the true ones, compared with means that need no generator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.subgraphs.mending.hidden_neighbours import Impaired


@dataclass(frozen=True)
class Distances:
    """Mean Euclidean distances of generated vectors to the nearest hidden neighbour.

    Attributes:
        vectors: number of vectors that the means are over; without any, the means are NaN.
        generated: distance of generated vectors.
        mean_feature: distance of the visible nodes' mean feature.
        neighbour_mean: distance of the mean of the node's visible neighbours, or of all nodes where it has none.
    """

    vectors: int
    generated: float
    mean_feature: float
    neighbour_mean: float


def distances(impaired: Impaired, features: FeatureMatrix, counts: np.ndarray, generated: np.ndarray) -> Distances:
    """Distances of generated vectors to the nearest of a node's hidden neighbours.

    Args:
        impaired: the visible part of a graph, and the neighbours that its nodes have lost.
        features: of the hidden nodes, in the rows that `impaired.indices` names.
        counts: int64 [k], number of vectors of each node, 0 where it has lost no neighbour.
        generated: [counts.sum(), F], those of node 0 first.
    """
    mean, neighbour_means = _feature_means(impaired.graph)
    found = np.zeros((counts.sum(), 3))
    starts = np.concatenate([[0], np.cumsum(counts)])
    for v in np.flatnonzero(counts):
        hidden = _dense(features[impaired.indices[impaired.indptr[v] : impaired.indptr[v + 1]]])
        own = slice(starts[v], starts[v + 1])
        found[own, 0] = cdist(generated[own], hidden).min(1)
        found[own, 1:] = cdist(np.stack([mean, neighbour_means[v]]), hidden).min(1)
    means = found.mean(0) if len(found) else np.full(3, np.nan)
    return Distances(len(found), *means.tolist())


def _feature_means(graph: ClientGraph) -> tuple[np.ndarray, np.ndarray]:
    """The mean of all nodes' features [F], and each node's mean over neighbours [n, F], over all where it has none."""
    row, column = graph.edge_index
    degrees = np.bincount(row, minlength=graph.num_nodes)
    averaging = sp.coo_array((1.0 / degrees[row], (row, column)), shape=(graph.num_nodes,) * 2).tocsr()
    of_all = np.asarray(graph.features.mean(0)).ravel()
    of_neighbours = _dense(averaging @ graph.features)
    of_neighbours[degrees == 0] = of_all
    return of_all, of_neighbours


def _dense(features: FeatureMatrix) -> np.ndarray:
    dense: np.ndarray = features.toarray() if isinstance(features, sp.sparray) else features
    return dense
