"""Clusters of users by their uploaded embeddings (PerFedRec: Luo, Xiao, Song, CIKM 2022)."""

from __future__ import annotations

from typing import Any

import numpy as np

from subfl_flower.clients.recommendation.cluster_embeddings import EMBEDDING
from subfl_flower.clients.recommendation.user_parts import ITEMS
from subfl_flower.recommendation.user_clusters import cluster_users, projection, relabelled
from subfl_flower.runs.round_arrays import Clustering
from subfl_flower.seeding import round_generator
from subfl_flower.server.exchange import Exchange
from subfl_flower.strategies.recommendation.server_parts import HEADERS, Server, ServerPart
from subfl_flower.wire.array_format import Stack

NO_CLUSTER = -1


class UserClusters(ServerPart):
    """Ask for embeddings every few rounds, and cluster those who answered by k-means (settings: `ClusterSettings`).

    Attributes:
        labels: the cluster of each user [K]; `NO_CLUSTER` for users without an embedding so far.
        distances: of each user to its centroid [K].
        clustering: the last one; None before the first one since the start, or since a crash.
    """

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.labels = np.full(len(self.roster), NO_CLUSTER)
        self.distances = np.full(len(self.roster), np.inf)
        self.clustering: Clustering | None = None
        self._centroids: np.ndarray | None = None

    @property
    def formed(self) -> bool:
        """True after the first clustering."""
        return self._centroids is not None

    def before_round(self, server_round: int, exchange: Exchange) -> None:
        """Cluster users in rounds that do so; a user without an answer keeps its cluster."""
        since_start = server_round - self.settings.cluster_start
        if since_start < 0 or since_start % self.settings.cluster_every:
            return
        width = self.run.initial[ITEMS].shape[1]
        most = [width * np.dtype(np.float32).itemsize + HEADERS] * len(self.roster)
        answers = exchange.ask(EMBEDDING, _decoded(width), most, tolerant=True)
        known = [position for position, answer in enumerate(answers) if answer is not None and len(answer)]
        if not known:
            return
        embeddings = np.stack([answer for answer in answers if answer is not None and len(answer)])
        seed = int(round_generator(self.run.seed, server_round, "clusters").integers(2**31))
        found = cluster_users(embeddings, self.settings.clusters, seed, self._centroids, unit=True)
        if self._centroids is not None:
            found = relabelled(found, self.labels[known])
        self.labels[known], self._centroids = found.labels, found.centroids
        self.distances[known] = found.distances
        points = np.full((len(self.roster), 2), np.nan, dtype=np.float32)
        points[known] = projection(embeddings, unit=True)
        self.clustering = Clustering(np.array(self.roster.client_ids), self.labels.copy(), points)

    def report(self, prepared: Any | None, uploads: int) -> dict[str, Any]:
        """Number of users in each cluster."""
        sizes = np.bincount(self.labels[self.labels >= 0], minlength=self.settings.clusters)
        unclustered = int((self.labels == NO_CLUSTER).sum())
        return {"clusters": {"sizes": sizes.tolist(), "without": unclustered}}

    def state(self) -> Stack:
        """Centroids, and the cluster of each user."""
        kept = {"labels": self.labels, "distances": self.distances}
        return kept if self._centroids is None else {**kept, "centroids": self._centroids}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        self.labels, self.distances = np.array(state["labels"]), np.array(state["distances"])
        self._centroids = np.array(state["centroids"]) if "centroids" in state else None


def _decoded(width: int) -> Any:
    """Decoder of an answer: a user's embedding, float32 [width], or None where it has none or does not agree."""

    def decode(answer: Stack) -> np.ndarray:
        if not answer:
            return np.zeros(0, dtype=np.float32)
        embedding = answer[EMBEDDING]
        if embedding.dtype != np.float32 or embedding.shape != (width,) or not np.isfinite(embedding).all():
            raise ValueError(f"an embedding is {width} finite numbers")
        return embedding

    return decode
