"""Predictions by one model: shared and personal parameters together."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from subfl_flower.clients.recommendation.user_parts import ITEMS, Prediction
from subfl_flower.clients.recommendation.users import Chunk
from subfl_flower.recommendation.models.mixture import Mixture


class OneModel(Prediction):
    """Predict by the received model, on the local graph with all neighbours."""

    @torch.no_grad()
    def figures(self, models: list[dict[str, Tensor]], chunk: Chunk) -> dict[str, np.ndarray]:
        """Each user's errors, or hit rates and NDCG, by the one model."""
        shared, users = models[0], self.users
        graphs = self.neighbourhood.expanded(users.graphs(chunk), chunk.own)
        given = (shared, shared[ITEMS], users.personal(chunk), graphs)
        found: dict[str, np.ndarray] = users.model.measured(*given, chunk.ratings, users.cohort)
        return found

    @torch.no_grad()
    def mixture(self, models: list[dict[str, Tensor]], chunk: Chunk) -> Mixture | None:
        """The one model; None where it does not rank."""
        shared, users = models[0], self.users
        graphs = self.neighbourhood.expanded(users.graphs(chunk), chunk.own)
        given = (shared, shared[ITEMS], users.personal(chunk), graphs)
        found = users.model.scorer(*given, users.cohort.item_attributes)
        return None if found is None else Mixture.of(chunk.ratings.user_ids, [found])
