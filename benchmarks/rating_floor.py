r"""The floor of recommenders: federated rating prediction in one plain PyTorch process, without a federation.

It is the first version that a competent user would write: a loop over the round's users; for each user its star graph,
one of PyG's ``GATConv`` on it, the dot product of hidden user and items with their biases, the mean squared error, its
gradient by the user's rows of the item table and by the shared weights, and one step of the user's `torch.optim.Adam`.
The server averages the gradients and takes a step of Adam, too. It packs, sends, protects and records nothing, so a
federation that is as fast has no overhead.

`floor.py` runs it where the data set is one of ratings:

    OMP_NUM_THREADS=1 python benchmarks/floor.py method=fedgnn dataset=ml100k federation.rounds=30
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch_geometric.nn import GATConv
from user_floor import OnRound, UserFloorRound, run_user_floor

from subfl_flower.config import Config
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.prepared.ratings import prepare_ratings
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import RecommenderSettings

_HELD_OUT = (VALIDATION, TEST)


@dataclass(frozen=True)
class RatingFloorSettings:
    """Width, learning rates, and number of users in a round."""

    dim: int = 32
    lr: float = 0.01
    users_per_round: int = 128


class Server(nn.Module):
    """State shared by all users: a row (embedding | bias) for each item, a bias and the graph network."""

    def __init__(self, num_items: int, settings: RatingFloorSettings) -> None:
        super().__init__()
        rows = 0.1 * torch.randn(num_items, settings.dim + 1)
        rows[:, -1] = 0
        self.items = nn.Parameter(rows)
        self.bias = nn.Parameter(torch.zeros(()))
        self.conv = GATConv(settings.dim, settings.dim)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=settings.lr)

    def collect(self, users: Sequence[User]) -> list[float]:
        """Let users take their steps and sum up their gradients; return every user's loss."""
        self.optimizer.zero_grad()
        self.items.grad = torch.zeros_like(self.items)
        return [user.train(self) for user in users]

    @torch.no_grad()
    def step(self, users: int) -> None:
        """Step along the mean of the gradients of `users` users."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad /= users
        self.optimizer.step()


class User:
    """One user: its ratings, its star graph, its embedding and bias, and their optimiser.

    Node 0 of the graph is the user, node k its k-th item; every edge goes both ways.
    """

    def __init__(
        self, items: Tensor, targets: Tensor, held_out: dict[int, tuple[Tensor, Tensor]], settings: RatingFloorSettings
    ) -> None:
        self.items = items
        self.targets = targets
        self.held_out = held_out
        self.embedding = nn.Parameter(0.1 * torch.randn(settings.dim))
        self.bias = nn.Parameter(torch.zeros(()))
        self.optimizer = torch.optim.Adam([self.embedding, self.bias], lr=settings.lr)
        ends = torch.arange(1, len(items) + 1)
        out = torch.stack([torch.zeros_like(ends), ends])
        self.edge_index = torch.cat([out, out.flip(0)], dim=1)

    def train(self, server: Server) -> float:
        """Take the user's step and add its gradients to the server; return the loss before it."""
        rows = server.items[self.items].detach().requires_grad_()
        self.optimizer.zero_grad()
        hidden = server.conv(torch.cat([self.embedding[None], rows[:, :-1]]), self.edge_index)
        predictions = hidden[1:] @ hidden[0] + rows[:, -1] + self.bias + server.bias
        loss = F.mse_loss(predictions, self.targets)
        loss.backward()
        self.optimizer.step()
        assert server.items.grad is not None
        assert rows.grad is not None
        server.items.grad.index_add_(0, self.items, rows.grad)
        return loss.item()

    @torch.no_grad()
    def predict(self, server: Server, items: Tensor) -> Tensor:
        """Predictions in normalised units for `items`, none of which the user has rated in training."""
        nodes = torch.cat([self.embedding[None], server.items[self.items, :-1], server.items[items, :-1]])
        hidden = server.conv(nodes, self.edge_index)
        asked = hidden[1 + len(self.items) :]
        return asked @ hidden[0] + server.items[items, -1] + self.bias + server.bias


def run_rating_floor(
    ratings: Ratings,
    center: float,
    spread: float,
    rounds: int,
    seed: int,
    settings: RatingFloorSettings | None = None,
    on_round: OnRound = lambda _: None,
) -> list[UserFloorRound]:
    """Train on all users that have training ratings, a few in every round, one after another.

    Args:
        ratings: ratings of all users.
        center: number subtracted from a rating.
        spread: number that a rating is then divided by.
        rounds: number of rounds.
        seed: seed of initialisation and of participation.
        settings: width, learning rates, users in a round.
        on_round: called after every round.
    """
    settings = settings or RatingFloorSettings()
    torch.manual_seed(seed)
    server = Server(ratings.num_items, settings)
    users = floor_users(ratings, center, spread, settings)

    def errors(server_round: int, drawn: Sequence[User]) -> tuple[float, float]:
        scaling = (center, spread, ratings.scale)
        validation, test = (root_mean_squared_error(server, drawn, role, *scaling) for role in _HELD_OUT)
        return validation, test

    return run_user_floor(server, users, settings.users_per_round, rounds, errors, on_round)


def run_configured(config: Config, on_round: OnRound) -> None:
    """Run a configuration, whatever its method.

    Raises:
        SubflError: its data cannot be prepared.
    """
    assert isinstance(config.dataset, RatingDatasetSettings)
    assert isinstance(config.partition, UsersPartition)
    assert isinstance(config.model, RecommenderSettings)
    prepared = prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache)
    settings = RatingFloorSettings(
        dim=config.model.dim,
        lr=config.optimizer.lr,
        users_per_round=max(1, round(config.federation.fraction * prepared.num_clients)),
    )
    whole, scaling = prepared.whole(), (prepared.center, prepared.spread)
    run_rating_floor(whole, *scaling, config.federation.rounds, config.seed, settings, on_round)


def floor_users(ratings: Ratings, center: float, spread: float, settings: RatingFloorSettings) -> list[User]:
    """One `User` for each user with training ratings."""
    users = []
    for position in range(ratings.num_users):
        own = slice(ratings.offsets[position], ratings.offsets[position + 1])
        items, values, roles = (torch.from_numpy(part[own]) for part in (ratings.items, ratings.values, ratings.roles))
        training = roles == TRAIN
        if training.any():
            held_out = {role: (items[roles == role], values[roles == role]) for role in _HELD_OUT}
            users.append(User(items[training], (values[training] - center) / spread, held_out, settings))
    return users


def root_mean_squared_error(
    server: Server, users: Sequence[User], role: int, center: float, spread: float, scale: tuple[float, float]
) -> float:
    """Error over all users' ratings of a role, in rating units; predictions are clipped to the scale."""
    squares = []
    for user in users:
        items, values = user.held_out[role]
        predictions = (center + spread * user.predict(server, items)).clamp(*scale)
        squares.append((predictions - values).square())
    return float(torch.cat(squares).mean().sqrt())
