r"""FED-PUB: Baek et al., "Personalized subgraph federated learning", ICML 2023 (arXiv 2206.10206).

Clients whose models answer alike on a random graph are probably of one community. With h_i the functional embedding
that client i sends, and S_ij the cosine of h_i and h_j, every client gets an average of its own (eq. 3):

.. math:: \bar\theta_i = \sum_j \alpha_{ij} \theta_j, \quad
          \alpha_{ij} = \frac{\exp(\tau S_{ij})}{\sum_k \exp(\tau S_{ik})} .

Clients send only the weights that their private mask keeps and that their training reaches. The paper leaves open
what a missing weight counts for in the average; see `FedPub.Settings.missing`.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from strategies.fedavg import average_weights
from strategies.mixing import MixingStrategy, mix
from subfl_flower.runtime.messages import Stack
from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.strategy import CohortStrategy, Updates
from subfl_flower.similarity.functional import cosine_similarity

# Entries of a client's weights that are mixed at once.
_BLOCK = 4096


class FedPub(MixingStrategy):
    """Similarity-weighted averages, one a client."""

    class Settings(MixingStrategy.Settings):
        """The aggregation.

        Attributes:
            tau: sharpness of the softmax; ``auto`` is the paper's 3 for disjoint and 5 for overlapping subgraphs.
            similarity: ``none`` replaces the personal averages by FedAvg's: the ablation.
            missing: ``owners`` averages a weight over the clients that sent it, ``zero`` counts it as zero.
        """

        tau: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
        similarity: Literal["functional", "none"] = "functional"
        missing: Literal["owners", "zero"] = "owners"

    settings: Settings

    def __init__(self, settings: CohortStrategy.Settings, roster: Roster, initial: Stack) -> None:
        super().__init__(settings, roster, initial)
        self._embeddings: np.ndarray | None = None
        self._has_embedding = np.zeros(len(roster), dtype=bool)

    @property
    def tau(self) -> float:
        """The softmax's sharpness in force."""
        if self.settings.tau == "auto":
            return 5.0 if self.roster.overlapping else 3.0
        return self.settings.tau

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """softmax(τ S) over the replies; a client that was absent is placed by its last embedding."""
        average = average_weights(self.roster.num_examples[updates.positions], "examples")
        matrix = np.tile(average, (len(self.roster), 1))
        if self.settings.similarity == "none":
            return matrix
        embeddings = updates.arrays["functional_embedding"]
        if self._embeddings is None:
            self._embeddings = np.zeros((len(self.roster), embeddings.shape[1]), dtype=embeddings.dtype)
        self._embeddings[updates.positions] = embeddings
        self._has_embedding[updates.positions] = True
        similarity = cosine_similarity(self._embeddings)[:, updates.positions]
        matrix[self._has_embedding] = softmax(self.tau * similarity)[self._has_embedding]
        return matrix

    def mixed(self, matrix: np.ndarray, updates: Updates) -> Stack:
        """Each client's average; what a client does not use is not sent back to it."""
        mixed: Stack = {}
        for name in self.initial:
            sent = updates.arrays[name]
            # Masks are on weight matrices; a bias of zero is a value like any other.
            if sent.ndim < 3 or all(client.all() for client in sent):
                mixed |= mix(matrix, {name: sent})
                continue
            wanted = updates.arrays.get("wanted_features") if name == "conv1.weight" else None
            mixed[name] = self._mixed_where_used(matrix.astype(np.float32), sent, wanted, updates.positions)
        return mixed

    def _mixed_where_used(
        self, matrix: np.ndarray, sent: np.ndarray, wanted_rows: np.ndarray | None, positions: np.ndarray
    ) -> np.ndarray:
        """M times a pruned weight matrix, for each client only the entries that it uses; by blocks that stay in cache.

        Args:
            matrix: M [K, A].
            sent: [A, rows, columns], zero where pruned.
            wanted_rows: [A, rows], 1 where a client also wants what others know of a row that it did not send.
            positions: of the A clients among the K.
        """
        everyone = len(positions) == len(matrix)
        mixed = np.empty((len(matrix), *sent.shape[1:]), dtype=np.float32)
        step = max(1, _BLOCK // sent.shape[2])
        for rows in (slice(start, start + step) for start in range(0, sent.shape[1], step)):
            used = (sent[:, rows] != 0).astype(np.float32)
            block = mix(matrix, {"": sent[:, rows]})[""]
            if self.settings.missing == "owners":
                share = mix(matrix, {"": used})[""]
                # Where nobody sent a weight its sum is zero, too.
                block = block / np.maximum(share, np.finfo(np.float32).tiny)
            if wanted_rows is not None:
                np.maximum(used, wanted_rows[:, rows, None], out=used)
            if everyone:
                np.multiply(block, used, out=mixed[:, rows])
            else:
                mixed[:, rows] = block
                mixed[positions, rows] *= used
        return mixed


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of every row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalised: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return normalised
