r"""FedSG: Wang et al., "FedSG: a personalized subgraph federated learning framework on multiple non-IID graphs", IEEE
Transactions on Emerging Topics in Computational Intelligence, 2024.

Clients differ in how their graphs are built and in what their features say, and one need not follow from the other. The
paper therefore has a topology extractor and a feature extractor, which are separate parameters and are aggregated
apart, each in a personal way.

**Only this description of the paper is public; how it is done is our reading.** The network is
`models.decoupled.StackedDecoupled`. With :math:`h^t_i` and :math:`h^f_i` what client i's extractors make of one random
graph (`clients.fedsg`), each group of parameters has a mixing matrix of its own,

.. math:: \theta^t_i \leftarrow \sum_j M^t_{ij} \theta^t_j, \quad
          \theta^f_i \leftarrow \sum_j M^f_{ij} \theta^f_j, \quad
          M^g_{ij} = \frac{\exp(\tau_g \cos(h^g_i, h^g_j))}{\sum_k \exp(\tau_g \cos(h^g_i, h^g_k))} .

The classifier reads both extractors; `FedSG.Settings.classifier` says whose matrix mixes it. With both τ zero all
clients get the same average, that of FedAvg with uniform weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from strategies.mixing import MixingStrategy
from strategies.similarity import softmax
from subfl_flower.models.decoupled import TOPOLOGY
from subfl_flower.models.stacked_gnn import CLASSIFIER, CONVOLUTION
from subfl_flower.runtime.messages import ArraySpec, Stack
from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.strategy import CohortStrategy, Updates
from subfl_flower.similarity.functional import cosine_similarity

FEATURE = "feature"


class FedSG(MixingStrategy):
    """Personal averages of two extractors, each by its own similarity. An absent client counts by what it sent last."""

    class Settings(MixingStrategy.Settings):
        """The aggregation.

        Attributes:
            tau_topology, tau_feature: sharpness of the softmax over the extractors' similarities; 0: the plain average.
            classifier: whose matrix mixes the classifier; ``average`` is the mean of both.
        """

        tau_topology: float = Field(default=5.0, ge=0)
        tau_feature: float = Field(default=20.0, ge=0)
        classifier: Literal["feature", "topology", "average"] = "average"

    settings: Settings

    recorded_group = FEATURE

    def __init__(self, settings: CohortStrategy.Settings, roster: Roster, initial: Stack) -> None:
        super().__init__(settings, roster, initial)
        (hidden,) = initial[f"{CONVOLUTION}1.bias"].shape
        self._known = {group: np.zeros((len(roster), hidden), np.float32) for group in (FEATURE, TOPOLOGY)}
        self._is_known = np.zeros(len(roster), dtype=bool)

    @property
    def expected(self) -> dict[str, ArraySpec]:
        """Adds the extractors' embeddings."""
        embeddings = {_embedding(group): ArraySpec(known.shape[1:], "float32") for group, known in self._known.items()}
        return {**super().expected, **embeddings}

    def state(self) -> Stack:
        """Adds the last known embeddings."""
        known = {_embedding(group): values for group, values in self._known.items()}
        return {**super().state(), **known, "is_known": self._is_known}

    def load_state(self, state: Stack) -> None:
        """Adds the last known embeddings."""
        super().load_state(state)
        self._known = {group: state[_embedding(group)] for group in self._known}
        self._is_known = state["is_known"]

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """`topology_mixing`: the topology extractor's last mixing matrix; `mixing` is the feature extractor's."""
        last = self.mixing_of(TOPOLOGY)
        return {} if last is None else {"topology_mixing": last.tolist()}

    def group(self, name: str) -> str:
        """The extractor that a parameter belongs to, or the classifier."""
        if name.startswith(CLASSIFIER):
            return CLASSIFIER
        return TOPOLOGY if name.startswith(TOPOLOGY) else FEATURE

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """The feature extractor's."""
        return self.mixing_matrices(updates)[FEATURE]

    def mixing_matrices(self, updates: Updates) -> Mapping[str, np.ndarray]:
        """softmax(τ S) over the replies for either extractor; the plain average for who has never sent anything."""
        for group, known in self._known.items():
            known[updates.positions] = updates.arrays[_embedding(group)]
        self._is_known[updates.positions] = True
        of_features = self._weights(FEATURE, self.settings.tau_feature, updates.positions)
        of_topology = self._weights(TOPOLOGY, self.settings.tau_topology, updates.positions)
        of_classifier = {
            "feature": of_features,
            "topology": of_topology,
            "average": (of_features + of_topology) / 2,
        }[self.settings.classifier]
        return {FEATURE: of_features, TOPOLOGY: of_topology, CLASSIFIER: of_classifier}

    def _weights(self, group: str, tau: float, positions: np.ndarray) -> np.ndarray:
        """M [K, A] of an extractor."""
        scores = tau * cosine_similarity(self._known[group])[:, positions]
        scores[~self._is_known] = 0
        return softmax(scores)


def _embedding(group: str) -> str:
    return f"{group}_embedding"
