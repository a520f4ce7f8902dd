"""Milliseconds of a user's step of the stacked recommender, as a ratio to the floor measured in the same process.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/rating_speed.py --data-root "$SUBFL_DATA"

The floor and the stack take turns to train the same users with the same work: gradients at the received parameters,
the users' steps, and the sum of the gradients for the server. Pseudo items, noise and messages are in neither. Without
--data-root the ratings are synthetic, as many for each user as ML-100K has.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rating_floor import RatingFloorSettings, Server, floor_users
from rich.console import Console
from rich.table import Table
from torch import Tensor

from subfl_flower.data.ratings.datasets.movielens import MovieLens100KDataset
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.settings import OptimizerSettings, RecommenderSettings
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import ReceivedModel

RATIO_TARGET = 0.7
KINDS = ("gat", "gcn", "ggnn", "none")
NUM_USERS, NUM_ITEMS, MEAN_RATINGS = 943, 1682, 85
NO_PENALTY = {"embedding_penalty": 0.0, "hidden_penalty": 0.0, "bias_penalty": 0.0}
"""Settings without penalties, as in the floor's loss."""


@dataclass(frozen=True)
class StepTiming:
    """Milliseconds of one user's step in every repeat; the properties are medians over them."""

    floors: tuple[float, ...]
    stacks: tuple[float, ...]

    @property
    def floor(self) -> float:
        """The floor's median."""
        return statistics.median(self.floors)

    @property
    def stacked(self) -> float:
        """The stack's median."""
        return statistics.median(self.stacks)

    @property
    def ratio(self) -> float:
        """The stack's share of the floor's time."""
        return self.stacked / self.floor

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest share of a repeat."""
        shares = [stacked / floor for floor, stacked in zip(self.floors, self.stacks, strict=True)]
        return min(shares), max(shares)


class StackedStep:
    """One step of a stack of users, as a node takes it."""

    def __init__(self, settings: RecommenderSettings, ratings: Ratings, center: float, spread: float) -> None:
        self.model = StackedRecommender(settings, ratings.num_items)
        self.graphs = UserGraphs.build(ratings, center, spread)
        self.optimizer = OptimizerSettings(name="adam")
        self.shared = {name: torch.from_numpy(value) for name, value in self.model.initial_of(0).items()}
        users = [self.model.initial_user(0, client_id) for client_id in self.graphs.client_ids]
        self.personal = {
            name: torch.from_numpy(np.stack([user[name] for user in users])) for name in self.model.personal_shapes
        }
        self.state = {
            name: torch.zeros(len(users), *shape)
            for name, shape in adam_state_shapes(self.model.personal_shapes).items()
        }

    def __call__(self) -> dict[str, Tensor]:
        """Let all users take their step; return the sums of their gradients for the server."""
        items = self.shared["items"]
        found = self.model.gradients(ReceivedModel(self.shared, self.personal, self.graphs))
        adam_step(self.personal, found.personal, self.state, self.optimizer)
        sums = {name: value.sum(0) for name, value in found.shared.items()}
        return sums | {"items": torch.zeros_like(items).index_add_(0, self.graphs.rows, found.items)}


def measure(settings: RecommenderSettings, ratings: Ratings, center: float, spread: float, repeats: int) -> StepTiming:
    """Time the floor and the stack of a rating recommender."""
    torch.manual_seed(0)
    floor_settings = RatingFloorSettings(dim=settings.dim)
    server, users = Server(ratings.num_items, floor_settings), floor_users(ratings, center, spread, floor_settings)
    stacked = StackedStep(settings, ratings, center, spread)
    return in_turns(lambda: server.collect(users), stacked, len(users), repeats)


def in_turns(floor: Callable[[], object], stacked: Callable[[], object], users: int, repeats: int) -> StepTiming:
    """Time the floor and the stack in turns, so that other load on the machine affects both equally.

    Args:
        floor: the work of all users, one after another.
        stacked: the same, of all at once.
        users: number of users.
        repeats: number of timings of each, after one that does not count.
    """
    pairs = [(_seconds(floor), _seconds(stacked)) for _ in range(repeats + 1)][1:]
    return StepTiming(*(tuple(1e3 * seconds / users for seconds in times) for times in zip(*pairs, strict=True)))


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def synthetic_ratings(num_users: int, num_items: int, mean: float) -> Ratings:
    """Random ratings: users of skewed activity, `mean` training ratings each on average, at least ten."""
    rng = np.random.default_rng(0)
    activity = rng.lognormal(sigma=1.0, size=num_users)
    counts = np.clip(10 + (mean - 10) * activity / activity.mean(), 10, num_items // 2).astype(np.int64)
    items = np.concatenate([np.sort(rng.choice(num_items, count, replace=False)) for count in counts])
    return Ratings(
        user_ids=np.arange(num_users),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        items=items,
        values=rng.integers(1, 6, len(items)).astype(np.float32),
        roles=np.zeros(len(items), dtype=np.int8),
        num_items=num_items,
        scale=(1.0, 5.0),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, help="where ml-100k is")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--dims", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--users", type=int, default=128, help="of one chunk, drawn from all")
    parser.add_argument("--repeats", type=int, default=10)
    arguments = parser.parse_args(argv)

    ratings, center, spread = _ratings(arguments.data_root)
    drawn = np.sort(np.random.default_rng(0).permutation(ratings.num_users)[: arguments.users])
    chunk = ratings.of_users(drawn)
    table = Table(title=f"A user's step, {len(drawn)} users with {chunk.counts(0).mean():.0f} training ratings each")
    for name in ("network", "dim", "floor ms", "stacked ms", "of floor", "target"):
        table.add_column(name, justify="left" if name == "network" else "right")
    for kind in arguments.kinds:
        for dim in arguments.dims:
            knobs = {"name": "recommender", "gnn": kind, "dim": dim, **NO_PENALTY}
            settings = RecommenderSettings.model_validate(knobs)
            found = measure(settings, chunk, center, spread, arguments.repeats)
            figures = (f"{found.floor:.3f}", f"{found.stacked:.3f}", f"{found.ratio:.2f}", f"<= {RATIO_TARGET}")
            table.add_row(kind, str(dim), *figures)
    Console().print(table)


def _ratings(root: Path | None) -> tuple[Ratings, float, float]:
    if root is None:
        return synthetic_ratings(NUM_USERS, NUM_ITEMS, MEAN_RATINGS), 3.0, 1.4
    settings = MovieLens100KDataset()
    ratings = settings.load(root, 0).ratings
    return ratings, *settings.scaling(ratings)


if __name__ == "__main__":
    main()
