"""The bias row on all users' ratings: predictions without a model of taste."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field

from subfl_flower.clients.recommendation.central_ratings import CentralRatingsClient
from subfl_flower.clients.recommendation.recommender_models import require_rating_model
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.models.bias_row import BiasRow, bias_row
from subfl_flower.recommendation.tasks.rating_prediction import errors_by_user
from subfl_flower.wire.contract import MethodSettings


class BiasRowClient(CentralRatingsClient):
    """Predict mean + bias of the user + bias of the item, the same in every round."""

    class Settings(MethodSettings):
        """The baseline's knob.

        Attributes:
            shrinkage: how many ratings halve a bias.
        """

        shrinkage: float = Field(default=5.0, gt=0)

    settings: Settings

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that does not predict ratings; the model itself is not used."""
        require_rating_model(model, method)

    def train_centrally(self, server_round: int, local_epochs: int) -> dict[str, np.ndarray]:
        """No figures: there is no training in rounds."""
        return {}

    def figures(self, ratings: Ratings) -> dict[str, np.ndarray]:
        """Errors of the predictions, the sums of mean and biases."""
        held_out = ratings.roles != TRAIN
        predicted = self._row.predict(ratings.user_ids[ratings.users()[held_out]], ratings.items[held_out])
        return errors_by_user(ratings, held_out, predicted)

    @cached_property
    def _row(self) -> BiasRow:
        return bias_row(self.whole, self.settings.shrinkage)
