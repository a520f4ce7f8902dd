"""FedMF (Chai et al., IEEE Intelligent Systems 2020): the server steps by sums of gradients, and sees only these.

It tells users who takes part in a round, sums their masked uploads, and averages over participants. If one of them is
missing, the sum cannot be read, and the round makes no step.
"""

from __future__ import annotations

from subfl_flower.clients.recommendation.fedmf import FedMFClient
from subfl_flower.strategies.recommendation.gradient_means import MaskedSum
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.strategies.recommendation.summed_biases import SummedBiases


class FedMF(RecommenderStrategy):
    """Average a masked sum, and step item rows and the global bias."""

    Settings = FedMFClient.Settings
    counterpart = FedMFClient

    Averaging = MaskedSum
    Parts = (SummedBiases,)
