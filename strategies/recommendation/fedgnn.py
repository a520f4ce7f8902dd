"""FedGNN (Wu et al., Nature Communications 2022): averaged gradients of users who hide, and expanded graphs.

The server never sees which items a user rated (pseudo items), a gradient as it was (local differential privacy, eq. 1
of the paper: `subfl_flower.privacy.mechanism`), or what users tell the matcher:
it carries sealed boxes between users and the matcher.
"""

from __future__ import annotations

from subfl_flower.clients.recommendation.fedgnn import FedGNNClient
from subfl_flower.strategies.recommendation.expansion import Expansion
from subfl_flower.strategies.recommendation.gradient_means import GradientMeans
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.strategies.recommendation.requested_rows import RequestedRows
from subfl_flower.strategies.recommendation.upload_watch import Audit, PrivacyAccount


class FedGNN(RecommenderStrategy):
    """Average protected gradients, and have graphs expanded every few rounds."""

    Settings = FedGNNClient.Settings
    counterpart = FedGNNClient

    Averaging = GradientMeans
    Parts = (Expansion, RequestedRows, PrivacyAccount, Audit)

    @classmethod
    def needs_matcher(cls, settings: FedGNNClient.Settings) -> bool:
        """True where graphs are expanded."""
        return settings.max_neighbours > 0

    @property
    def weight_decays(self) -> dict[str, float]:
        """The item table's, and that of the graph network's weights."""
        network = [name for name in self.parameters if name.startswith("gnn.")]
        return super().weight_decays | dict.fromkeys(network, self.settings.network_weight_decay)
