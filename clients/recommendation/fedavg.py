r"""FedAvg's users (McMahan et al., AISTATS 2017) of a recommender: they train all parameters on their own data.

A user takes `user_steps` full-batch steps from the received model. Shared parameters (the rows of the items that it
touches, and whatever else the model has) take plain gradient steps. Personal parameters take Adam steps and stay. The
user uploads the model difference, received - trained: a server that takes a plain step of length 1 by the mean of these
sets every parameter to the mean of the users' models. All protections of a gradient upload protect this one, too.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from subfl_flower.clients.recommendation.expansion import MatchedNeighbours
from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.recommender_models import require_ranking_model
from subfl_flower.clients.recommendation.upload_transforms import Noise, PseudoItems
from subfl_flower.clients.recommendation.user_settings import (
    AuditSettings,
    ExpansionSettings,
    GradientSettings,
    LocalTrainingSettings,
    PseudoItemSettings,
)
from subfl_flower.clients.recommendation.user_work import LocalTraining


class FedAvgRatingsClient(RecommenderClient):
    """Train the shared parameters, and upload their change."""

    protects_uploads: ClassVar[bool] = True

    class Settings(GradientSettings, LocalTrainingSettings, PseudoItemSettings, ExpansionSettings, AuditSettings):
        """Knobs of local training, of what hides an upload, and of neighbours."""

        server_optimizer: Literal["adam", "sgd"] = "sgd"
        server_lr: float = Field(default=1.0, gt=0)

    Work = LocalTraining
    Transforms = (PseudoItems, Noise)
    Neighbours = MatchedNeighbours

    phases = MatchedNeighbours.phases

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that does not rank; others cannot be computed with parameters that differ by user."""
        require_ranking_model(model, method)
