r"""PerFedRec's users (Luo, Xiao, Song, CIKM 2022): a mixture of the global, the cluster's and a local model.

A user trains from its cluster's model as in FedAvg. Where it agrees, it sends the server the direction of its embedding
(the user's side of its model, a vector of length 1, with noise on request), by which the server clusters users
(`clients/recommendation/cluster_embeddings.py`). It ranks items by a mixture of three models
(`clients/recommendation/mixture_of_models.py`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from subfl_flower.clients.recommendation.cluster_embeddings import ClusterEmbeddings
from subfl_flower.clients.recommendation.expansion import MatchedNeighbours
from subfl_flower.clients.recommendation.mixture_of_models import MixtureOfModels
from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.recommender_models import require_ranking_model
from subfl_flower.clients.recommendation.upload_transforms import Noise, PseudoItems
from subfl_flower.clients.recommendation.user_settings import (
    AuditSettings,
    ClusterSettings,
    ExpansionSettings,
    GradientSettings,
    MixtureSettings,
    PseudoItemSettings,
)
from subfl_flower.clients.recommendation.user_work import LocalTraining


class PerFedRecClient(RecommenderClient):
    """Train from a cluster's model, send an embedding, and mix three models."""

    protects_uploads: ClassVar[bool] = True

    class Settings(
        GradientSettings, MixtureSettings, ClusterSettings, PseudoItemSettings, ExpansionSettings, AuditSettings
    ):
        """Knobs of local training, clusters and the mixture, of upload protection, and of neighbours."""

        local_lr: float = Field(default=0.1, gt=0)
        server_optimizer: Literal["adam", "sgd"] = "sgd"
        server_lr: float = Field(default=1.0, gt=0)

    Work = LocalTraining
    Transforms = (PseudoItems, Noise)
    Neighbours = MatchedNeighbours
    Exchanges = (ClusterEmbeddings,)
    Predictor = MixtureOfModels

    phases = (*ClusterEmbeddings.phases, *MatchedNeighbours.phases)

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a model that does not rank: users are clustered by their side of a product, and scores are mixed."""
        require_ranking_model(model, method)
