r"""FedAvg's users (McMahan et al., AISTATS 2017), of a recommender: they train all parameters on their own data.

A user takes `user_steps` full-batch steps from what it received: plain gradient steps of what all share (the rows of
the items that it touches, and whatever else the model has), and Adam steps of what is personal and stays. It uploads
received - trained, the model difference, for which a server that takes a plain step of length 1 sets every parameter to
the mean of the users' models. Everything that hides a gradient upload (`clients.fedgnn`) hides this one, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from clients.fedgnn import FedGNNClient
from clients.recommender import ITEMS
from clients.recommender_models import require_ranking_model
from subfl_flower.models.adam import adam_step
from subfl_flower.models.lightgcn import LightGCN
from subfl_flower.models.user_graphs import RankingGraphs, UserGraphs
from subfl_flower.models.user_models import UserGradients


@dataclass(frozen=True, eq=False)
class Trained:
    """Users' own models.

    Attributes:
        items: [T, width], the rows that their graphs hold.
        stacks: the other shared parameters, each [U, ...].
        graphs: the local graphs, with what users know of neighbours now.
        differences: received - trained, where gradients stand else; the losses are those before the last step.
    """

    items: Tensor
    stacks: dict[str, Tensor]
    graphs: UserGraphs
    differences: UserGradients


class LocalTrainingClient(FedGNNClient):
    """Trains what it shares, and uploads by how much it changed."""

    class Settings(FedGNNClient.Settings):
        """Knobs of local training.

        Attributes:
            local_lr: learning rate of the plain gradient steps of what all share. What is not an item's own row
                (attributes' values, attention) is stepped by the gradient of the mean over a user's items, whatever
                `loss` says: all of them speak of it.
        """

        local_lr: float = Field(default=0.3, gt=0)
        user_lr: float | None = Field(default=0.01, gt=0)
        server_optimizer: Literal["adam", "sgd"] = "sgd"
        server_lr: float = Field(default=1.0, gt=0)
        server_lr_final: float = Field(default=1.0, gt=0, le=1)
        network_weight_decay: float = Field(default=0.0, ge=0)
        pseudo_items: Annotated[int, Field(ge=0)] | Literal["all"] = 0

    settings: Settings
    model: LightGCN

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """It ranks; users' models differ after the first step, and others are not worked with differing ones."""
        require_ranking_model(model, method)

    @property
    def draws(self) -> int:  # type: ignore[override]
        """Every step has sampled items of its own."""
        return self.settings.user_steps

    def own_steps(
        self, shared: Mapping[str, Tensor], items: Tensor, graphs: UserGraphs, own: dict[str, Tensor]
    ) -> UserGradients:
        """Train everything; received - trained in place of gradients."""
        return self.trained(shared, items, graphs, own).differences

    def trained(
        self,
        shared: Mapping[str, Tensor],
        items: Tensor,
        graphs: UserGraphs,
        own: dict[str, Tensor],
        rate: float | None = None,
    ) -> Trained:
        """The users' own models after their steps.

        Args:
            shared: as received, without a user axis.
            items: the item rows that the graphs point into.
            graphs: the users' local graphs.
            own: the users' state; what is personal is stepped in place.
            rate: learning rate of the plain gradient steps; None: `local_lr`.
        """
        users = len(graphs)
        rate = self.settings.local_lr if rate is None else rate
        start = {name: value.expand(users, *value.shape) for name, value in shared.items() if name != ITEMS}
        stacks = {name: value.clone() for name, value in start.items()}
        received = items.index_select(0, graphs.rows)
        rows = received.clone()
        personal = {name: own[name] for name in self.model.personal_shapes}
        for step in range(self.settings.user_steps):
            assert isinstance(graphs, RankingGraphs)
            places, drawn = graphs.of_draw(step)
            touched = rows.index_select(0, places)
            of_mean = self.model.step(stacks, touched, personal, drawn, train_neighbours=self.trains_neighbours)
            found = self._weighted(of_mean, drawn)
            with torch.no_grad():
                for name, value in personal.items():
                    found.personal[name].add_(value, alpha=self.settings.user_weight_decay)
                adam_step(personal, found.personal, own, self.optimizer)
                rows.index_add_(0, places, found.items, alpha=-rate)
                for name, value in stacks.items():
                    value.sub_(of_mean.shared[name], alpha=rate)
                graphs = self.step_neighbours(graphs, found, own)
        differences = replace(
            found, items=received - rows, shared={name: start[name] - value for name, value in stacks.items()}
        )
        return Trained(rows, stacks, graphs, differences)
