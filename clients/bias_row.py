"""The bias row on all users' ratings: what is known of anybody without a model of taste."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from pydantic import Field

from clients.central_recommender import CentralRatingPredictor
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.bias_row import BiasRow, bias_row
from subfl_flower.runtime.contract import MethodSettings


class BiasRowClient(CentralRatingPredictor):
    """Predicts mean + bias of the user + bias of the item, the same in every round."""

    class Settings(MethodSettings):
        """The baseline's knob.

        Attributes:
            shrinkage: how many ratings halve a bias.
        """

        shrinkage: float = Field(default=5.0, gt=0)

    settings: Settings

    def train_centrally(self, server_round: int, local_epochs: int) -> dict[str, np.ndarray]:
        """Nothing is trained in rounds."""
        return {}

    def predict(self, ratings: Ratings, chosen: np.ndarray) -> np.ndarray:
        """The sums of mean and biases."""
        return self._row.predict(ratings.user_ids[ratings.users()[chosen]], ratings.items[chosen])

    @cached_property
    def _row(self) -> BiasRow:
        return bias_row(self.whole, self.settings.shrinkage)
