r"""Personal averages by client similarity: the part that FED-PUB and SubPFed share.

With S_ij the similarity of clients i and j, client i averages with the weights
:math:`\alpha_{ij} = \exp(\tau S_{ij}) / \sum_k \exp(\tau S_{ik})` (FED-PUB, eq. 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from subfl_flower.clients.subgraphs.description import EMBEDDING, LABELS, MEAN_DEGREE, MEAN_NODES
from subfl_flower.server.updates import Remembered, Updates
from subfl_flower.strategies.subgraphs.mixing import average_weights
from subfl_flower.subgraphs.similarity.functional import cosine_similarity
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.roster import Roster

LEAST_CENTRED = 4
"""Fewest clients whose embeddings are centred: two centred vectors always have the cosine -1, three on average -1/2."""

_UPLOADS = {"functional": EMBEDDING, "label": LABELS}
_STATE = "similarity."


class SimilarityWeights:
    """softmax(τ S), S the cosine of what `similarity` names. An absent client is compared by its last upload.

    Args:
        settings: the method's: ``similarity``, ``tau`` and ``community_threshold``; see `FedPUBClient`.
        roster: the clients.
        remembered: the last uploads of all clients, by name.
    """

    def __init__(self, settings: Any, roster: Roster, remembered: Mapping[str, Remembered]) -> None:
        self._settings, self._num_clients, self._overlapping = settings, len(roster), roster.overlapping
        self._remembered = remembered.get(_UPLOADS.get(settings.similarity, ""))
        # Means over the clients at the start: the random graph's size must not change during the run.
        self._means = np.array(
            [np.nanmean(roster.num_nodes), np.nansum(roster.num_edges) / np.nansum(roster.num_nodes)]
        )

    @property
    def tau(self) -> float:
        """Effective sharpness of the softmax."""
        if self._settings.tau == "auto":
            return 5.0 if self._overlapping else 3.0
        return float(self._settings.tau)

    @property
    def announcements(self) -> dict[str, float]:
        """The clients' mean number of nodes and mean degree, for an Erdős–Rényi graph of similar size."""
        mean_nodes, mean_degree = self._means.tolist()
        return {MEAN_NODES: mean_nodes, MEAN_DEGREE: mean_degree}

    def matrix(
        self,
        updates: Updates,
        received: Stack,
        num_examples: np.ndarray,
        normalised: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """M [K, A] over the replies (eq. 3); FedAvg's average for a client that has never sent anything.

        Args:
            updates: of A clients.
            received: parameters that all clients were sent, each [K, ...].
            num_examples: training examples [K].
            normalised: from plain cosines [n, A] to rows of M, which sum to one; None: the softmax of τ times the
                cosine, of centred embeddings where the settings say so.
        """
        average = average_weights(num_examples[updates.positions])
        matrix = np.tile(average, (self._num_clients, 1))
        if self._settings.similarity == "none":
            return matrix
        described = self._described(updates, received)
        similarity = cosine_similarity(self._centred(described) if normalised is None else described.values)
        scores = similarity.copy()
        if self._settings.community_threshold is not None:
            outside = similarity <= self._settings.community_threshold
            np.fill_diagonal(outside, False)
            scores[outside] = -np.inf
        scores = scores[:, updates.positions]
        # An absent client may have no participant in its community; it then keeps its parameters.
        alone = np.isneginf(scores).all(1)
        matrix[alone & described.known] = 0
        weighted = described.known & ~alone
        matrix[weighted] = (normalised or self._softmax)(scores[weighted])
        return matrix

    def _softmax(self, cosines: np.ndarray) -> np.ndarray:
        scores = np.full_like(cosines, -np.inf)
        np.multiply(self.tau, cosines, where=np.isfinite(cosines), out=scores)
        return softmax(scores)

    def _centred(self, described: Remembered) -> np.ndarray:
        """The rows by which clients are compared, without their mean where the settings say so.

        Models that start alike have embeddings that are nearly parallel, because all of them first learn the classes'
        frequencies. Without the mean the cosine compares what a client's model does differently from the others'.
        """
        known = described.known
        if not self._settings.centred or self._settings.similarity != "functional" or known.sum() < LEAST_CENTRED:
            return described.values
        centred: np.ndarray = described.values - described.values[known].mean(0)
        return centred

    def _described(self, updates: Updates, received: Stack) -> Remembered:
        """The rows [K, width] by which clients are compared."""
        if self._settings.similarity not in _UPLOADS:
            rows = self._flat(updates, received)
            if self._remembered is None:
                self._remembered = Remembered(self._num_clients, rows.shape[1:])
            self._remembered.take_in(updates.positions, rows)
        assert self._remembered is not None, "the contract wants what clients are compared by to be remembered"
        return self._remembered

    def _flat(self, updates: Updates, received: Stack) -> np.ndarray:
        """The replying clients' parameters, or their change in the round: [A, width]."""
        parts = []
        for name in received:
            sent = np.asarray(updates.arrays[name])
            if self._settings.similarity == "gradient":
                before = received[name][updates.positions]
                # A weight matrix's zero was pruned, not learnt.
                sent = np.where(sent != 0, sent - before, 0) if sent.ndim > 2 else sent - before
            parts.append(sent.reshape(len(sent), -1))
        return np.concatenate(parts, axis=1)

    def state(self) -> Stack:
        """The size of the random graph, and the compared rows where no upload is remembered."""
        kept = {f"{_STATE}means": self._means}
        if self._remembered is not None and self._settings.similarity not in _UPLOADS:
            kept |= {f"{_STATE}{key}": value for key, value in self._remembered.state().items()}
        return kept

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        self._means = state[f"{_STATE}means"]
        if f"{_STATE}values" in state:
            rows = {key: state[f"{_STATE}{key}"] for key in ("values", "known")}
            self._remembered = Remembered(self._num_clients, rows["values"].shape[1:])
            self._remembered.load_state(rows)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of every row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalised: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return normalised
