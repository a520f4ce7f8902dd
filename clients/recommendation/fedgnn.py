"""FedGNN's users (Wu et al., Nature Communications 2022): pseudo items, local differential privacy, graph expansion.

A user hides which items it rated among pseudo items with gradients like those of the real ones, clips the whole upload
and adds noise to it (eq. 1 of the paper, `subfl_flower.privacy.mechanism`), and, where the method expands graphs, tells
the matcher through the server in a sealed box which items it has, and is told the embeddings of users with common ones.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from subfl_flower.clients.recommendation.expansion import MatchedNeighbours
from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.requested_rows import RequestedRows
from subfl_flower.clients.recommendation.upload_transforms import Noise, PseudoItems
from subfl_flower.clients.recommendation.user_settings import (
    AuditSettings,
    ExpansionSettings,
    GradientSettings,
    NetworkSettings,
    RequestedRowsSettings,
    StepSettings,
)
from subfl_flower.clients.recommendation.user_work import GradientWork


class FedGNNClient(RecommenderClient):
    """Upload protected gradients, and learn from anonymous neighbours."""

    protects_uploads: ClassVar[bool] = True

    class Settings(
        GradientSettings, NetworkSettings, StepSettings, RequestedRowsSettings, ExpansionSettings, AuditSettings
    ):
        """Knobs of a user's steps, of what hides an upload, of rows that are asked for, and of neighbours."""

        user_lr: float | None = Field(default=0.03, gt=0)
        user_steps: int = Field(default=5, ge=1)
        server_lr_final: float = Field(default=0.02, gt=0, le=1)
        network_weight_decay: float = Field(default=0.003, ge=0)
        pseudo_items: Annotated[int, Field(ge=0)] | Literal["all"] = 1000

    Work = GradientWork
    Transforms = (PseudoItems, Noise)
    Neighbours = MatchedNeighbours
    Exchanges = (RequestedRows,)

    phases = (*MatchedNeighbours.phases, *RequestedRows.phases)
