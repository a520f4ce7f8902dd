r"""FedAvg on ratings (McMahan et al., AISTATS 2017): the server takes the mean of the users' models.

Users upload received - trained. A plain step of length 1 is then

.. math:: \theta \leftarrow \theta - \mathrm{mean}_u (\theta - \theta_u) = \mathrm{mean}_u \theta_u .

The mean of an item's row is over the users who touched it, or over all participants (`row_average`).
"""

from __future__ import annotations

from subfl_flower.clients.recommendation.fedavg import FedAvgRatingsClient
from subfl_flower.strategies.recommendation.expansion import Expansion
from subfl_flower.strategies.recommendation.gradient_means import GradientMeans
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.strategies.recommendation.upload_watch import Audit, PrivacyAccount


class FedAvgRatings(RecommenderStrategy):
    """Average the users' models."""

    Settings = FedAvgRatingsClient.Settings
    counterpart = FedAvgRatingsClient

    Averaging = GradientMeans
    Parts = (Expansion, PrivacyAccount, Audit)

    @classmethod
    def needs_matcher(cls, settings: FedAvgRatingsClient.Settings) -> bool:
        """True where graphs are expanded."""
        return settings.max_neighbours > 0
