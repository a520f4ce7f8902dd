r"""Personal averages by how alike clients are: the part that FED-PUB and SubPFed have in common.

With S_ij the similarity of clients i and j, client i averages with the weights
:math:`\alpha_{ij} = \exp(\tau S_{ij}) / \sum_k \exp(\tau S_{ik})` (FED-PUB, eq. 3).
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from strategies.fedavg import average_weights
from strategies.mixing import MixingStrategy
from subfl_flower.runtime.messages import ArraySpec, Stack
from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.strategy import CohortStrategy, Updates
from subfl_flower.similarity.functional import cosine_similarity

_UPLOADS = {"functional": "functional_embedding", "label": "label_distribution"}


class SimilarityStrategy(MixingStrategy):
    """softmax(τ S), S the cosine of what `similarity` names. An absent client counts by what it sent last."""

    class Settings(MixingStrategy.Settings):
        """The aggregation.

        Attributes:
            tau: sharpness of the softmax; ``auto`` is FED-PUB's 3 for disjoint and 5 for overlapping subgraphs.
            similarity: ``functional`` compares what models answer on a random graph; ``parameter`` what they are,
                ``gradient`` what they learnt in the round, ``label`` their class frequencies. ``none`` is FedAvg's
                average for everyone.
            community_threshold: a client averages only with clients of a larger similarity (and with itself); 0.5 are
                FED-PUB's explicit communities (App. C.8). null: with everyone.
        """

        tau: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
        similarity: Literal["functional", "parameter", "gradient", "label", "none"] = "functional"
        community_threshold: float | None = Field(default=None, ge=-1, le=1)

    settings: Settings

    def __init__(self, settings: CohortStrategy.Settings, roster: Roster, initial: Stack) -> None:
        super().__init__(settings, roster, initial)
        # Of the clients that are there at the start: a random graph of this size must not change on the way.
        self._means = np.array(
            [np.nanmean(roster.num_nodes), np.nansum(roster.num_edges) / np.nansum(roster.num_nodes)]
        )
        self._described: np.ndarray | None = None
        self._is_described = np.zeros(len(roster), dtype=bool)

    @property
    def expected(self) -> dict[str, ArraySpec]:
        """Adds what clients are compared by, where they send it beside their parameters."""
        expected = super().expected
        if self.settings.similarity == "functional":
            expected[_UPLOADS["functional"]] = ArraySpec((self._embedding_width,), "float32")
        elif self.settings.similarity == "label":
            expected[_UPLOADS["label"]] = ArraySpec((self.roster.num_classes,), "float32")
        return expected

    @property
    def _embedding_width(self) -> int:
        assert self.network is not None
        return self.network.embedding_width

    @property
    def tau(self) -> float:
        """The softmax's sharpness in force."""
        if self.settings.tau == "auto":
            return 5.0 if self.roster.overlapping else 3.0
        return self.settings.tau

    @property
    def announcements(self) -> dict[str, float]:
        """The clients' mean number of nodes and mean degree: the size of an Erdős–Rényi graph that is like them."""
        mean_nodes, mean_degree = self._means.tolist()
        return {"mean_nodes": mean_nodes, "mean_degree": mean_degree}

    def state(self) -> Stack:
        """Adds what clients were described by, and the size of their random graph."""
        kept = {**super().state(), "is_described": self._is_described, "means": self._means}
        return kept if self._described is None else {**kept, "described": self._described}

    def load_state(self, state: Stack) -> None:
        """Adds what clients were described by."""
        super().load_state(state)
        self._is_described, self._described = state["is_described"], state.get("described")
        self._means = state["means"]

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """softmax(τ S) over the replies; FedAvg's average for a client that has never sent anything."""
        average = average_weights(self.roster.num_examples[updates.positions], "examples")
        matrix = np.tile(average, (len(self.roster), 1))
        if self.settings.similarity == "none":
            return matrix
        sent = self._descriptions(updates)
        if self._described is None:
            self._described = np.zeros((len(self.roster), sent.shape[1]), dtype=sent.dtype)
        self._described[updates.positions] = sent
        self._is_described[updates.positions] = True
        similarity = cosine_similarity(self._described)
        scores = self.tau * similarity
        if self.settings.community_threshold is not None:
            outside = similarity <= self.settings.community_threshold
            np.fill_diagonal(outside, False)
            scores[outside] = -np.inf
        scores = scores[:, updates.positions]
        # An absent client may have no participant in its community; it then keeps its parameters.
        alone = np.isneginf(scores).all(1)
        matrix[alone & self._is_described] = 0
        weighted = self._is_described & ~alone
        matrix[weighted] = softmax(scores[weighted])
        return matrix

    def _descriptions(self, updates: Updates) -> np.ndarray:
        """What the replying clients are compared by, [A, width]."""
        kind = self.settings.similarity
        if kind in _UPLOADS:
            return updates.arrays[_UPLOADS[kind]]
        parts = []
        for name in self.initial:
            sent = updates.arrays[name]
            if kind == "gradient":
                received = self.parameters[name][updates.positions]
                # A weight matrix's zero was pruned, not learnt.
                sent = np.where(sent != 0, sent - received, 0) if sent.ndim > 2 else sent - received
            parts.append(sent.reshape(len(sent), -1))
        return np.concatenate(parts, axis=1)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax of every row."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    normalised: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return normalised
