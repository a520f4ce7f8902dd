r"""Clusters of similar users, and the clusters' participation in a round: PerFedRec.

Luo, Xiao and Song, "Personalized federated recommendation via joint representation learning, user clustering, and
model adaptation", CIKM 2022 (arXiv 2208.09375). The server clusters users by k-means over their embeddings, keeps a
model for each cluster, and lets every cluster take part in a round in proportion to its size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from threadpoolctl import threadpool_limits

from subfl_flower.errors import SubflError

_FIRST_STARTS = 10


@dataclass(frozen=True, eq=False)
class UserClusters:
    """N users in k clusters.

    Attributes:
        labels: int64 `[N]`, each user's cluster, 0 to k - 1.
        centroids: float64 `[k, d]`, finite, also those of clusters without a user.
        distances: float64 `[N]`, Euclidean, of each user's row to its cluster's centroid.
    """

    labels: np.ndarray
    centroids: np.ndarray
    distances: np.ndarray


def cluster_users(
    embeddings: np.ndarray, k: int, seed: int, previous: np.ndarray | None = None, *, unit: bool
) -> UserClusters:
    """Cluster users by k-means (Lloyd's algorithm, Euclidean), on one thread so that sums have one order.

    With at most k different rows every one of them is a cluster. A cluster without a user keeps its previous centroid;
    where there is none, its centroid is the mean of all rows.

    Args:
        embeddings: `[N, d]`, a row a user.
        k: clusters, at least 1.
        seed: of the first clustering's ten starts (k-means++), of which the one of least inertia is kept.
        previous: `[k, d]`, initial centroids of a later clustering, from a single start, so that clusters keep their
            numbers as far as users keep their positions. If two are equal, it starts like the first clustering, because
            k-means seldom finds k groups from there.
        unit: True scales rows to length 1 first; a row of zeros stays as it is.

    Raises:
        SubflError: no rows, a row that is not finite, or previous centroids that are not finite or of another shape.
    """
    rows = _rows(embeddings, unit)
    if previous is not None and (previous.shape != (k, rows.shape[1]) or not np.isfinite(previous).all()):
        raise SubflError(f"previous centroids must be finite and of shape {(k, rows.shape[1])}, not {previous.shape}")
    different, row_of = np.unique(rows, axis=0, return_inverse=True)
    if len(different) <= k:
        own, centroids = _own_clusters(rows, different, k, previous)
        labels = own[row_of.reshape(-1)]
    else:
        start: dict[str, Any] = {"n_init": _FIRST_STARTS, "random_state": seed}
        if previous is not None and len(np.unique(previous, axis=0)) == k:
            start = {"n_init": 1, "init": previous.astype(np.float64)}
        from sklearn.cluster import KMeans  # takes a second to import, and most runs cluster nobody

        with threadpool_limits(1):
            fitted = KMeans(k, **start).fit(rows)
        labels, centroids = fitted.labels_.astype(np.int64), fitted.cluster_centers_
    return UserClusters(labels, centroids, np.linalg.norm(rows - centroids[labels], axis=1))


def _rows(embeddings: np.ndarray, unit: bool) -> np.ndarray:
    """The embeddings as finite float64 `[N, d]`, N at least 1, scaled if `unit`."""
    if embeddings.ndim != 2 or not len(embeddings):
        raise SubflError(f"user embeddings must be one row a user, at least one, not of shape {embeddings.shape}")
    finite = np.isfinite(embeddings).all(axis=1)
    if not finite.all():
        raise SubflError(f"user embeddings must be finite, and row {finite.argmin()} (counted from 0) is not")
    rows = embeddings.astype(np.float64)
    if not unit:
        return rows
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    scaled: np.ndarray = rows / np.where(lengths > 0, lengths, 1)
    return scaled


def _own_clusters(
    rows: np.ndarray, different: np.ndarray, k: int, previous: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The cluster of each of at most k different rows, the one with a near previous centroid, and all centroids."""
    if previous is None:
        own, centroids = np.arange(len(different)), np.tile(rows.mean(0), (k, 1))
    else:
        _, own = linear_sum_assignment(cdist(different, previous))
        centroids = previous.astype(np.float64)
    centroids[own] = different
    return own, centroids


def relabelled(clusters: UserClusters, previous_labels: np.ndarray) -> UserClusters:
    """Renumber clusters so that as many users as possible keep their label.

    Among numberings that are equally good for users, take one in which most clusters keep their number.

    Args:
        clusters: as of `cluster_users`.
        previous_labels: int `[N]`, 0 to k - 1; -1 for users who had none.
    """
    k = len(clusters.centroids)
    had_label = previous_labels >= 0
    kept = np.zeros((k, k))
    np.add.at(kept, (clusters.labels[had_label], previous_labels[had_label]), 1)
    # A user outweighs all clusters' numbers together.
    _, number = linear_sum_assignment(kept * (k + 1) + np.eye(k), maximize=True)
    return UserClusters(
        number[clusters.labels].astype(np.int64), clusters.centroids[np.argsort(number)], clusters.distances
    )


def representatives(
    distances: np.ndarray,
    labels: np.ndarray,
    count: int,
    generator: np.random.Generator,
    *,
    share: float,
    available: np.ndarray,
    taken: np.ndarray,
) -> np.ndarray:
    """A round's users: representatives of each cluster, the rest drawn from all others, users without label included.

    Every cluster has representatives in proportion to its available users (largest remainders, equal ones by lot). The
    users nearest to the centroid would be the same few in every round, and would alone determine their cluster's model.
    Therefore those taken least often come first, and of these the nearest: representatives change from round to round,
    further and further out, until all users of the cluster have been taken.

    Args:
        distances: `[N]`, of each user to its cluster's centroid; anything for users without a label.
        labels: int `[N]`, each user's cluster; -1 for none.
        count: users of the round, at least 0.
        generator: draws lots and the rest.
        share: of the round's users (rounded) who represent their cluster, 0 to 1; fewer where too few have a label.
        available: int `[A]`, different positions of users who can take part.
        taken: int `[N]`, number of rounds that each user took part in so far.

    Returns:
        min(count, A) different positions, ascending.
    """
    count = min(count, len(available))
    labelled = available[labels[available] >= 0]
    nearest = _in_proportion(
        labelled,
        labels[labelled],
        (labelled, distances[labelled], taken[labelled]),
        min(round(share * count), len(labelled)),
        generator,
    )
    others = np.setdiff1d(available, nearest)
    drawn = generator.choice(others, count - len(nearest), replace=False)
    return np.sort(np.concatenate([nearest, drawn]))


def proportional(
    labels: np.ndarray, count: int, generator: np.random.Generator, *, available: np.ndarray
) -> np.ndarray:
    """A round's users drawn at random, of each cluster in proportion to its available users.

    Remainders as in `representatives`. Users without a label (-1) are drawn as if they were a cluster.

    Returns:
        min(count, A) different positions, ascending.
    """
    lots = generator.permutation(len(available))
    return np.sort(_in_proportion(available, labels[available], (lots,), min(count, len(available)), generator))


def _in_proportion(
    users: np.ndarray, labels: np.ndarray, keys: tuple[np.ndarray, ...], count: int, generator: np.random.Generator
) -> np.ndarray:
    """Choose `count` of the users, of each label in proportion, those first in the order of `keys`.

    Args:
        users: positions.
        labels: of these users.
        keys: of these users, as for `numpy.lexsort`.
        count: at most the number of users.
        generator: decides between equal remainders.
    """
    _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    order = np.lexsort((*keys, group))
    place = np.arange(len(users)) - (np.cumsum(sizes) - sizes)[group[order]]  # within the group
    return users[order][place < _seats(sizes, count, generator)[group[order]]]


def _seats(sizes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` seats in proportion to `sizes` (Hamilton's method of largest remainders); no group gets more than it is.

    Args:
        sizes: int64 `[groups]`, each at least 1.
        count: at most the sum of the sizes.
        generator: decides between equal remainders.
    """
    seats, remainders = np.divmod(count * sizes, max(sizes.sum(), 1))
    first = np.lexsort((generator.permutation(len(sizes)), -remainders))
    seats[first[: count - seats.sum()]] += 1
    return seats


def projection(embeddings: np.ndarray, *, unit: bool) -> np.ndarray:
    """Users in the plane of their first two principal components, float32 `[N, 2]`; 0 where there is no such component.

    Of each component the largest loading by absolute value is positive, which fixes the sign.

    Args:
        embeddings: `[N, d]`, a row a user.
        unit: as in `cluster_users`.

    Raises:
        SubflError: no rows, or a row that is not finite.
    """
    rows = _rows(embeddings, unit)
    points = np.zeros((len(rows), 2), dtype=np.float32)
    if (rows != rows[0]).any():
        from sklearn.decomposition import PCA

        components = min(2, *rows.shape)
        with threadpool_limits(1):
            points[:, :components] = PCA(components, svd_solver="full").fit_transform(rows)
    return points
