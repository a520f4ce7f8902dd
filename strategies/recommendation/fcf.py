r"""FCF (Ammad-ud-din et al., 2019): the server steps the item table by the gradients of its users.

.. math:: x_i \leftarrow x_i - \gamma \sum_u f(u, i)

The step is Adam's, as in the paper, or this plain one (`server_optimizer`). The sum is divided by the number of uploads
that hold the row, or of all participants (`row_average`). A user's closed form is in
`clients/recommendation/fcf.py`.
"""

from __future__ import annotations

from subfl_flower.clients.recommendation.fcf import FCFClient
from subfl_flower.strategies.recommendation.gradient_means import GradientMeans
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.strategies.recommendation.summed_biases import SummedBiases


class FCF(RecommenderStrategy):
    """Average gradients, and step item rows and the global bias."""

    Settings = FCFClient.Settings
    counterpart = FCFClient

    Averaging = GradientMeans
    Parts = (SummedBiases,)
