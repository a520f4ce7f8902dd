r"""The floor of rankings: FedAvg of LightGCN on users' stars in one plain PyTorch process, without a federation.

It is the first version that a competent user would write: a loop over the round's users, each with one parameter for
the item rows that it touches and one for its embedding; full-batch BPR steps by autograd, items sampled again for each
step, the message of a training item left out while it is scored; `torch.optim.SGD` of the rows, one `torch.optim.Adam`
a user for its embedding. The server sets each item's row to the mean of the models of the users who touched it. It
packs, sends, protects and records nothing, so a federation that is as fast has no overhead.

`floor.py` runs it where the task is to rank:

    OMP_NUM_THREADS=1 python benchmarks/floor.py method=fedavg task=ranking dataset=ml100k federation.rounds=30
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from user_floor import OnRound, UserFloorRound, run_user_floor

from subfl_flower.config import Config
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.prepared.ratings import prepare_ratings
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import LightGCNSettings
from subfl_flower.recommendation.tasks.ranking_metrics import draw_candidates, user_figures
from subfl_flower.tasks.choices import Ranking


@dataclass(frozen=True)
class RankingFloorSettings:
    """The model, a user's steps and the rounds, with the names and meanings of ``conf/``."""

    dim: int = 64
    layers: int = 1
    negatives: int = 1
    embedding_penalty: float = 1e-3
    user_steps: int = 5
    local_lr: float = 0.3
    user_lr: float = 0.01
    loss: Literal["mean", "sum"] = "sum"
    users_per_round: int = 128
    evaluate_every: int = 10


class Server:
    """State shared by all users: a row for each item, and for a round the sum and number of users' changes of it."""

    def __init__(self, num_items: int, settings: RankingFloorSettings) -> None:
        self.items = 0.1 * torch.randn(num_items, settings.dim)
        self.moved = torch.zeros_like(self.items)
        self.touched = torch.zeros(num_items)

    def collect(self, users: Sequence[User]) -> list[float]:
        """Train users and sum up their changes of rows; return every user's loss."""
        self.moved.zero_()
        self.touched.zero_()
        return [user.train(self) for user in users]

    def step(self, users: int) -> None:
        """Set each row to the mean of the models of the users who touched it."""
        self.items += self.moved / self.touched.clamp(min=1)[:, None]


class User:
    """One user: its training items, those that it samples from, its embedding and its optimiser."""

    def __init__(self, position: int, items: Tensor, num_items: int, settings: RankingFloorSettings) -> None:
        self.position = position
        self.items = items
        free = torch.ones(num_items, dtype=torch.bool)
        free[items] = False
        self.others = free.nonzero()[:, 0]
        self.embedding = nn.Parameter(0.1 * torch.randn(settings.dim))
        self.optimizer = torch.optim.Adam([self.embedding], lr=settings.user_lr)
        self.settings = settings

    def train(self, server: Server) -> float:
        """Take the user's steps and add its changes of rows to the server; return the loss before the last step."""
        settings = self.settings
        shape = (settings.user_steps, len(self.items), settings.negatives)
        sampled = self.others[torch.randint(len(self.others), shape)]
        touched, places = torch.unique(torch.cat([self.items, sampled.reshape(-1)]), return_inverse=True)
        own, others = places[: len(self.items)], places[len(self.items) :].view(shape)
        received = server.items[touched]
        rows = nn.Parameter(received.clone())
        optimizer = torch.optim.SGD([rows], lr=settings.local_lr)
        for step in range(settings.user_steps):
            loss, penalty = self.loss(rows[own], rows[others[step]])
            objective = loss + settings.embedding_penalty * penalty
            if settings.loss == "mean":
                objective = objective / len(own)
            optimizer.zero_grad()
            self.optimizer.zero_grad()
            objective.backward()
            optimizer.step()
            self.optimizer.step()
        server.moved.index_add_(0, touched, rows.detach() - received)
        server.touched[touched] += 1
        return loss.item() / len(own)

    def loss(self, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
        """BPR and the squared norms, sums over training items with rows [n, dim] and sampled rows [n, m, dim]."""
        even, odd = 1 + self.settings.layers // 2, (self.settings.layers + 1) // 2
        messages = (positive.sum(0) - positive) / math.sqrt(max(len(positive) - 1, 1))
        hidden = (even * self.embedding + odd * messages) / (self.settings.layers + 1)
        margins = (hidden[:, None] * negative).sum(2) - (hidden * positive).sum(1, keepdim=True)
        norms = positive.square().sum() + negative.square().sum() / negative.shape[1]
        return F.softplus(margins).mean(1).sum(), norms + len(positive) * self.embedding.square().sum()

    @torch.no_grad()
    def scores(self, server: Server) -> Tensor:
        """Scores of all items, from all of the user's training items."""
        even, odd = 1 + self.settings.layers // 2, (self.settings.layers + 1) // 2
        message = server.items[self.items].sum(0) / math.sqrt(len(self.items))
        return server.items @ ((even * self.embedding + odd * message) / (self.settings.layers + 1))


def run_ranking_floor(
    ratings: Ratings,
    task: Ranking,
    rounds: int,
    seed: int,
    settings: RankingFloorSettings | None = None,
    on_round: OnRound = lambda _: None,
) -> list[UserFloorRound]:
    """Train on all users who have a pair to learn from, a few in every round, one after another.

    Figures are means over all of these users, after every few rounds and after the last.

    Args:
        ratings: ratings of all users.
        task: the task, which defines the figures.
        rounds: number of rounds.
        seed: seed of initialisation, sampled items and participation.
        settings: settings of model, steps and rounds.
        on_round: called after every round.
    """
    settings = settings or RankingFloorSettings()
    torch.manual_seed(seed)
    server = Server(ratings.num_items, settings)
    users = floor_users(ratings, settings)
    measured = ratings.of_users([user.position for user in users])
    candidates = draw_candidates(measured, task.negatives, task.seed)

    def figures(server_round: int, drawn: Sequence[User]) -> tuple[float | None, float | None]:
        if server_round % settings.evaluate_every and server_round != rounds:
            return None, None
        scores = torch.stack([user.scores(server) for user in users]).numpy()
        found = user_figures(scores, measured, task, candidates)
        return float(np.nanmean(found["validation"])), float(np.nanmean(found["test"]))

    return run_user_floor(server, users, settings.users_per_round, rounds, figures, on_round)


def run_configured(config: Config, on_round: OnRound) -> None:
    """Run a configuration of ``method=fedavg``, without protection, attributes and neighbours.

    Raises:
        SubflError: its data cannot be prepared.
    """
    assert isinstance(config.dataset, RatingDatasetSettings)
    assert isinstance(config.partition, UsersPartition)
    assert isinstance(config.model, LightGCNSettings)
    assert isinstance(config.task, Ranking)
    ratings = prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache).whole()
    known = {**config.method.knobs, **config.model.model_dump()}
    chosen = {name: known[name] for name in RankingFloorSettings.__dataclass_fields__ if known.get(name) is not None}
    chosen.setdefault("users_per_round", max(1, round(config.federation.fraction * ratings.num_users)))
    settings = RankingFloorSettings(**chosen)
    run_ranking_floor(ratings, config.task, config.federation.rounds, config.seed, settings, on_round)


def floor_users(ratings: Ratings, settings: RankingFloorSettings) -> list[User]:
    """One `User` for each user with training items and with other items to compare them with."""
    users = []
    for position in range(ratings.num_users):
        own = slice(ratings.offsets[position], ratings.offsets[position + 1])
        items = torch.from_numpy(ratings.items[own][ratings.roles[own] == TRAIN])
        if 0 < len(items) < ratings.num_items:
            users.append(User(position, items, ratings.num_items, settings))
    return users
