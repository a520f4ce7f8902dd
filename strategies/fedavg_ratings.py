r"""FedAvg on ratings (McMahan et al., AISTATS 2017): the server takes the mean of the users' models.

Users upload received - trained, and with a plain step of length 1

.. math:: \theta \leftarrow \theta - \mathrm{mean}_u (\theta - \theta_u) = \mathrm{mean}_u \theta_u,

of an item's row over the users who touched it, or over all participants (`row_average`).
"""

from __future__ import annotations

from clients.fedavg_ratings import FedAvgRatingsClient
from strategies.expansion import Expansion
from strategies.gradient_means import GradientMeans
from strategies.recommender import RecommenderStrategy
from strategies.upload_watch import Audit, PrivacyAccount


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
