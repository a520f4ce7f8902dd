"""Speed of FedAvg on rankings, as a ratio to the floor measured in the same process or the same run.

OMP_NUM_THREADS=1 .venv/bin/python benchmarks/ranking_speed.py --data-root "$SUBFL_DATA"
OMP_NUM_THREADS=1 .venv/bin/python benchmarks/ranking_speed.py --data-root "$SUBFL_DATA" --rounds 14 --repeats 3

Without --rounds: milliseconds of a user's local training. Floor and stack take turns to train the same users with the
same work: sampled items, the steps, the sum of uploads. Pseudo items, noise and messages are in neither.
With --rounds: whole rounds of ``subfl method=fedavg task=ranking`` in the runtimes ``inline`` and ``ray``, against
rounds of the floor, each measurement in a separate process (`speed.py`); evaluation is after the last round alone.
Without --data-root the ratings are synthetic, as many for each user as ML-100K has.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from ranking_floor import RankingFloorSettings, Server, floor_users
from rating_speed import MEAN_RATINGS, NUM_ITEMS, NUM_USERS, StepTiming, in_turns, synthetic_ratings
from rich.console import Console
from rich.table import Table
from speed import FLOOR, INLINE, RAY, Measurement, measure_interleaved
from torch import Tensor

from subfl_flower.clients.recommendation.fedavg import FedAvgRatingsClient
from subfl_flower.clients.recommendation.users import Chunk
from subfl_flower.data.ratings.datasets.movielens import MovieLens100KDataset
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.adam import adam_state_shapes
from subfl_flower.models.settings import LightGCNSettings, OptimizerSettings
from subfl_flower.node.state import MemoryStore
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import RatedUsers
from subfl_flower.seeding import client_generator
from subfl_flower.wire.contract import RunContext

RATIO_TARGET = 0.7
WARMUP = 3


class StackedTraining:
    """The local training of a stack of users, as a node does it."""

    def __init__(self, settings: RankingFloorSettings, ratings: Ratings, chunk: int = 256) -> None:
        model = LightGCNSettings(name="lightgcn", **_common(settings, LightGCNSettings))
        run = RunContext(
            settings=FedAvgRatingsClient.Settings(**_common(settings, FedAvgRatingsClient.Settings)),
            model=model,
            optimizer=OptimizerSettings(name="adam", weight_decay=0.0),
        )
        cohort = UserCohort(ratings, center=0.0, spread=1.0, device=torch.device("cpu"), chunk=chunk)
        self.client = FedAvgRatingsClient(run, cohort, MemoryStore())
        self.ratings = ratings
        self.items = torch.from_numpy(self.client.model.initial_of(0)["items"])
        shapes = self.client.model.personal_shapes
        self.state = {name: torch.zeros(len(ratings.user_ids), *s) for name, s in adam_state_shapes(shapes).items()}
        users = [self.client.model.initial_user(0, user) for user in ratings.user_ids.tolist()]
        self.state |= {name: torch.from_numpy(np.stack([user[name] for user in users])) for name in shapes}
        self.round = 0

    def __call__(self) -> tuple[Tensor, Tensor]:
        """Train all users, from the same rows in each call; return the sums and numbers of their changes of rows."""
        self.round += 1
        moved, touched = torch.zeros_like(self.items), torch.zeros(len(self.items))
        for positions in self.client.cohort.chunks(range(self.ratings.num_users)):
            chosen = slice(positions[0], positions[-1] + 1)
            own = {name: value[chosen] for name, value in self.state.items()}
            users = Chunk(positions, self.ratings.of_users(positions), own)
            graphs = self.graphs(users.ratings)
            found = self.client.work.work({"items": self.items}, self.items, graphs, users).told
            moved.index_add_(0, graphs.rows, found.items, alpha=-1)
            touched += torch.bincount(graphs.rows, minlength=len(touched))
        return moved, touched

    def graphs(self, ratings: Ratings) -> UserGraphs:
        """The users' local graphs with the items sampled in this round."""
        generators = [client_generator(0, user, self.round, "sampled items") for user in ratings.user_ids.tolist()]
        return self.client.model.local_graphs(RatedUsers(ratings), generators=generators, draws=self.client.work.draws)


def measure_training(ratings: Ratings, settings: RankingFloorSettings, repeats: int) -> StepTiming:
    """Time the floor and the stack on all these users."""
    torch.manual_seed(0)
    server, users = Server(ratings.num_items, settings), floor_users(ratings, settings)
    return in_turns(lambda: server.collect(users), StackedTraining(settings, ratings), len(users), repeats)


def measure_rounds(
    overrides: Sequence[str], users: int, rounds: int, repeats: int, folder: Path
) -> dict[str, Measurement]:
    """Time whole rounds of the floor and both runtimes, each with `users` users."""
    chosen = [
        "method=fedavg",
        *overrides,
        "task=ranking",
        f"method.users_per_round={users}",
        "method.evaluate_every=1000000",
        f"federation.rounds={rounds}",
        "record.client_models=false",
    ]
    found = measure_interleaved(chosen, ((INLINE, 1), (RAY, 1)), repeats, WARMUP, folder)
    return {name: one for (name, _), one in found.items()}


def _common(settings: RankingFloorSettings, model: type[BaseModel]) -> dict[str, Any]:
    """The floor's settings that `model` has under the same names."""
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__ if name in model.model_fields}


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="where ml-100k is")
    parser.add_argument("--users", type=int, nargs="+", default=[128, NUM_USERS], help="in a round")
    parser.add_argument("--rounds", type=int, help="measure whole rounds, so many")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args(argv)
    table = _rounds_table(arguments) if arguments.rounds else _training_table(arguments)
    Console().print(table)


def _training_table(arguments: argparse.Namespace) -> Table:
    table = _table("A user's local training", ("users", "floor ms", "stacked ms", "of floor", "spread", "target"))
    ratings = _ratings(arguments.data_root)
    for count in arguments.users:
        drawn = np.sort(np.random.default_rng(0).permutation(ratings.num_users)[:count])
        found = measure_training(ratings.of_users(drawn), RankingFloorSettings(), arguments.repeats)
        low, high = found.spread
        figures = (f"{found.floor:.3f}", f"{found.stacked:.3f}", f"{found.ratio:.2f}", f"{low:.2f}–{high:.2f}")
        table.add_row(str(len(drawn)), *figures, f"<= {RATIO_TARGET}")
    return table


def _rounds_table(arguments: argparse.Namespace) -> Table:
    table = _table("Whole rounds", ("users", "runtime", "ms a round", "of floor", "client", "server", "peak MiB"))
    overrides = ["dataset=synthetic_ratings", f"dataset.num_users={NUM_USERS}", f"dataset.num_items={NUM_ITEMS}"]
    overrides += [f"dataset.ratings_per_user={MEAN_RATINGS}"]
    if arguments.data_root is not None:
        overrides = ["dataset=ml100k", f"data.root={arguments.data_root.absolute()}"]
    with tempfile.TemporaryDirectory(prefix="subfl-speed-") as folder:
        for users in arguments.users:
            found = measure_rounds(overrides, users, arguments.rounds, arguments.repeats, Path(folder))
            for name, one in found.items():
                table.add_row(str(users), name, *_figures(one, found))
    return table


def _figures(one: Measurement, found: Mapping[str, Measurement]) -> tuple[str, ...]:
    parts = {name: sorted(values)[len(values) // 2] for name, values in one.parts.items()}
    return (
        f"{1e3 * one.median():.0f}",
        f"{one.median() / found[FLOOR].median():.2f}",
        *(f"{1e3 * parts[name]:.0f}" for name in ("client", "server")),
        f"{one.memory / 2**20:.0f}",
    )


def _table(title: str, heads: Sequence[str]) -> Table:
    table = Table(title=title)
    for head in heads:
        table.add_column(head, justify="right")
    return table


def _ratings(root: Path | None) -> Ratings:
    if root is None:
        return synthetic_ratings(NUM_USERS, NUM_ITEMS, MEAN_RATINGS)
    return MovieLens100KDataset(split="leave_one_out").load(root, 0).ratings


if __name__ == "__main__":
    main()
