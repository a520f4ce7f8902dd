r"""FedGTA: Li et al., "FedGTA: topology-aware averaging for federated graph learning", VLDB 2024: the server's side.

Client i averages over the clients whose mixed moments m are similar to its own, by their smoothing confidences H
(`clients/subgraphs/fedgta.py`):

.. math:: M_{ij} = \frac{[\cos(m_i, m_j) > \varepsilon] H_j}{\sum_k [\cos(m_i, m_k) > \varepsilon] H_k} .

With ε = -1 all clients receive one average, weighted by confidence. With ε = 1 none has a partner but itself.
"""

from __future__ import annotations

import numpy as np

from subfl_flower.clients.subgraphs.fedgta import CONFIDENCE, MOMENTS, FedGTAClient
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_weights
from subfl_flower.subgraphs.similarity.functional import cosine_similarity


class FedGTA(MixingStrategy):
    """Average over clients with similar moments, by confidence. An absent client is compared by its last upload."""

    Settings = FedGTAClient.Settings
    counterpart = FedGTAClient

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """M [K, A]; the plain average for a client that has never sent moments.

        A client none of whose partners replied keeps its parameters. Where all partners' confidence is zero, they
        count alike.
        """
        moments, confidence = self.remembered[MOMENTS], self.remembered[CONFIDENCE].values[updates.positions, 0]
        partners = cosine_similarity(moments.values) > self.settings.threshold
        np.fill_diagonal(partners, True)
        partners = partners[:, updates.positions]
        weights = partners * np.maximum(confidence, 0).astype(np.float64)
        without = ~weights.any(1)
        weights[without] = partners[without]
        weights[~moments.known] = average_weights(self.roster.num_examples[updates.positions])
        total = weights.sum(1, keepdims=True)
        matrix: np.ndarray = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
        return matrix
