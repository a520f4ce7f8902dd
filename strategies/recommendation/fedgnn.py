"""FedGNN (Wu et al., Nature Communications 2022): averages of protected gradients, and expanded local graphs.

The server's side of the paper's two algorithms:

- Algorithm 1, the round: sample users, average their gradients (`GradientMeans`), and step
  (`RecommenderStrategy` in `strategies/recommendation/recommender.py`). The server steps and sends the parameters,
  where the paper's server sends the averaged gradient. The local gradient is in `clients/recommendation/fedgnn.py`.
- Algorithm 2, graph expansion: `Expansion` in `strategies/recommendation/expansion.py`, every few rounds.

Pseudo items hide from the server which items a user rated. Local differential privacy (eq. 1,
`subfl_flower.privacy.mechanism`) hides exact gradients. What users tell the matcher passes the server in sealed boxes.
"""

from __future__ import annotations

from subfl_flower.clients.recommendation.fedgnn import FedGNNClient
from subfl_flower.strategies.recommendation.expansion import Expansion
from subfl_flower.strategies.recommendation.gradient_means import GradientMeans
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.strategies.recommendation.requested_rows import RequestedRows
from subfl_flower.strategies.recommendation.summed_biases import SummedBiases
from subfl_flower.strategies.recommendation.upload_watch import Audit, PrivacyAccount


class FedGNN(RecommenderStrategy):
    """Average protected gradients, and expand graphs every few rounds."""

    Settings = FedGNNClient.Settings
    counterpart = FedGNNClient

    Averaging = GradientMeans
    Parts = (SummedBiases, Expansion, RequestedRows, PrivacyAccount, Audit)

    @classmethod
    def needs_matcher(cls, settings: FedGNNClient.Settings) -> bool:
        """True where graphs are expanded."""
        return settings.max_neighbours > 0

    @property
    def weight_decays(self) -> dict[str, float]:
        """Weight decay of the item table, and of the graph network's weights."""
        network = [name for name in self.parameters if name.startswith("gnn.")]
        return super().weight_decays | dict.fromkeys(network, self.settings.network_weight_decay)
