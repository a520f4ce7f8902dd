"""Predictions by one model: shared and personal parameters together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.user_parts import Prediction
from subfl_flower.clients.recommendation.users import Chunk
from subfl_flower.recommendation.models.mixture import Mixture
from subfl_flower.recommendation.models.user_models import ReceivedModel


class OneModel(Prediction):
    """Predict by the received model, on the local graph with all neighbours."""

    @torch.no_grad()
    def figures(self, models: list[dict[str, Tensor]], chunk: Chunk) -> dict[str, np.ndarray]:
        """Each user's errors, or hit rates and NDCG, by the one model."""
        found: dict[str, np.ndarray] = self.users.model.measured(
            self._received(models[0], chunk), chunk.ratings, self.users.cohort
        )
        return found

    @torch.no_grad()
    def mixture(self, models: list[dict[str, Tensor]], chunk: Chunk) -> Mixture | None:
        """The one model; None where it does not rank."""
        found = self.users.model.scorer(self._received(models[0], chunk), self.users.cohort.item_attributes)
        return None if found is None else Mixture.of(chunk.ratings.user_ids, [found])

    def _received(self, shared: dict[str, Tensor], chunk: Chunk) -> ReceivedModel:
        graphs = self.neighbourhood.expanded(self.users.graphs(chunk), chunk.own)
        return ReceivedModel(shared, self.users.personal(chunk), graphs)
