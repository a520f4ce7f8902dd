"""FedGNN's users (Wu et al., Nature Communications 2022): pseudo items, local differential privacy, graph expansion.

A user's side of the paper's two algorithms:

- Algorithm 1, the local gradient: a user trains on its local graph together with its neighbours
  (`GradientWork` in `clients/recommendation/user_work.py`). It hides which items it rated among pseudo items with
  gradients like those of the real ones. It clips the whole upload and adds noise to it (eq. 1,
  `subfl_flower.privacy.mechanism`).
- Algorithm 2, graph expansion: a user sends the matcher the tokens of its items and its embedding, in a sealed box that
  the server relays, and receives the embeddings of users with common items
  (`MatchedNeighbours` in `clients/recommendation/expansion.py`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from subfl_flower.clients.recommendation.expansion import MatchedNeighbours
from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.clients.recommendation.requested_rows import RequestedRows
from subfl_flower.clients.recommendation.summed_biases import SummedBiases
from subfl_flower.clients.recommendation.upload_transforms import Noise, PseudoItems
from subfl_flower.clients.recommendation.user_settings import (
    AuditSettings,
    BiasSettings,
    ExpansionSettings,
    GradientSettings,
    NetworkSettings,
    PerRound,
    RequestedRowsSettings,
    StepSettings,
)
from subfl_flower.clients.recommendation.user_work import GradientWork


class FedGNNClient(RecommenderClient):
    """Upload protected gradients, and learn from anonymous neighbours."""

    protects_uploads: ClassVar[bool] = True

    class Settings(
        GradientSettings,
        BiasSettings,
        NetworkSettings,
        StepSettings,
        RequestedRowsSettings,
        ExpansionSettings,
        AuditSettings,
    ):
        """Knobs of a user's steps, of biases, of upload protection, of requested rows, and of neighbours."""

        users_per_round: PerRound = "auto"
        user_lr: float | None = Field(default=0.03, gt=0)
        user_steps: int = Field(default=5, ge=1)
        server_lr_final: float = Field(default=0.02, gt=0, le=1)
        network_weight_decay: float = Field(default=0.003, ge=0)
        pseudo_items: Annotated[int, Field(ge=0)] | Literal["all"] = 1000

    Work = GradientWork
    Transforms = (PseudoItems, Noise)
    Neighbours = MatchedNeighbours
    Exchanges = (RequestedRows, SummedBiases)

    phases = (*MatchedNeighbours.phases, *RequestedRows.phases, *SummedBiases.phases)
