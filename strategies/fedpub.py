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
        stacks = {name: updates.arrays[name] for name in self.initial}
        mixed = mix(matrix, stacks)
        everyone = len(updates.positions) == len(self.roster)
        replied: slice | np.ndarray = slice(None) if everyone else updates.positions
        for name, sent in stacks.items():
            used = sent != 0
            if sent.ndim < 3 or used.all():  # masks are on weight matrices; a bias of zero is a value like any other
                continue
            if not mixed[name].flags.writeable:
                mixed[name] = mixed[name].copy()
            if self.settings.missing == "owners":
                share = mix(matrix, {name: used.astype(np.float32)})[name]
                # Where nobody sent a weight its sum is zero, too.
                mixed[name] /= np.maximum(share, np.finfo(np.float32).tiny)
            if name == "conv1.weight" and "wanted_features" in updates.arrays:
                used |= updates.arrays["wanted_features"].astype(bool)[:, :, None]
            mixed[name][replied] *= used
        return mixed


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of every row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalised: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return normalised
