r"""FedSG: Wang et al., "FedSG: a personalized subgraph federated learning framework on multiple non-IID graphs", IEEE
Transactions on Emerging Topics in Computational Intelligence, 2024.

Clients differ in their graphs' topology and in their features, and these two kinds of data heterogeneity may be
independent. The paper therefore has a topology extractor and a feature extractor, with separate parameters that are
aggregated separately and personally.

**Only this description of the paper is public; the rest is our reading.** The network is
`models.decoupled.StackedDecoupled`. With :math:`h^t_i` and :math:`h^f_i` the embeddings of client i's extractors on one
random graph (`clients/subgraphs/fedsg.py`), each group of parameters has a separate mixing matrix,

.. math:: \theta^t_i \leftarrow \sum_j M^t_{ij} \theta^t_j, \quad
          \theta^f_i \leftarrow \sum_j M^f_{ij} \theta^f_j, \quad
          M^g_{ij} = \frac{\exp(\tau_g \cos(h^g_i, h^g_j))}{\sum_k \exp(\tau_g \cos(h^g_i, h^g_k))} .

The classifier reads both extractors; the setting ``classifier`` chooses the matrix that mixes it. With both τ zero all
clients get the same average, that of FedAvg with uniform weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from subfl_flower.clients.subgraphs.fedsg import FedSGClient
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy
from subfl_flower.strategies.subgraphs.similarity import softmax
from subfl_flower.subgraphs.models.decoupled import TOPOLOGY
from subfl_flower.subgraphs.models.stacked_gnn import CLASSIFIER
from subfl_flower.subgraphs.similarity.functional import cosine_similarity

FEATURE = "feature"


class FedSG(MixingStrategy):
    """Personal averages of two extractors, each by its similarity. An absent client is compared by its last upload."""

    Settings = FedSGClient.Settings
    counterpart = FedSGClient

    recorded_group = FEATURE

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """Entry `topology_mixing`: the topology extractor's last mixing matrix; `mixing` is the feature extractor's."""
        last = self.mixing_of(TOPOLOGY)
        return {} if last is None else {"topology_mixing": last.tolist()}

    def group(self, name: str) -> str:
        """The extractor that a parameter belongs to, or the classifier."""
        if name.startswith(CLASSIFIER):
            return CLASSIFIER
        return TOPOLOGY if name.startswith(TOPOLOGY) else FEATURE

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """The feature extractor's mixing matrix."""
        return self.mixing_matrices(updates)[FEATURE]

    def mixing_matrices(self, updates: Updates) -> Mapping[str, np.ndarray]:
        """Each extractor's softmax(τ S) over the replies; the plain average for a client without any upload so far."""
        of_features = self._weights(FEATURE, self.settings.tau_feature, updates.positions)
        of_topology = self._weights(TOPOLOGY, self.settings.tau_topology, updates.positions)
        of_classifier = {
            "feature": of_features,
            "topology": of_topology,
            "average": (of_features + of_topology) / 2,
        }[self.settings.classifier]
        return {FEATURE: of_features, TOPOLOGY: of_topology, CLASSIFIER: of_classifier}

    def _weights(self, group: str, tau: float, positions: np.ndarray) -> np.ndarray:
        """Mixing matrix M [K, A] of an extractor."""
        last = self.remembered[f"{group}_embedding"]
        scores = tau * cosine_similarity(last.values)[:, positions]
        scores[~last.known] = 0
        return softmax(scores)
