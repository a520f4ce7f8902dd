"""The ranker file of a run scores items as they were measured at the best round."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_outcomes import Outcome, partition, recommend, run_inline
from test_fedgnn_deployed import MachinesGrid, deployed

from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.composition import composed_config, composed_job
from subfl_flower.data.graph import TEST
from subfl_flower.data.prepared.ratings import PreparedRatings, prepare_ratings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.ranker_file import Ranker
from subfl_flower.recommendation.tasks.ranking_metrics import user_figures
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.updates import Updates
from subfl_flower.simulation import simulate
from subfl_flower.strategies.recommendation.recommender import RecommenderStrategy
from subfl_flower.tasks.choices import Ranking
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.payload import unpack_choice

USERS, ITEMS, ROUNDS = 12, 40, 6
DATA = (
    *("dataset=synthetic_ratings", f"dataset.num_users={USERS}", f"dataset.num_items={ITEMS}"),
    "dataset.ratings_per_user=14",
)
SMALL = (
    *(*DATA, "task=ranking", "task.negatives=20", "model.dim=6", "method.users_per_round=8"),
    *("method.evaluate_every=1", f"federation.rounds={ROUNDS}"),
)
CLUSTERED = (
    *("method=perfedrec", *SMALL, "method.clusters=3", "method.cluster_start=2", "method.cluster_every=1"),
    *("method.agreeing=0.9", "method.user_lr=0.1", "method.local_lr=0.3", "seed=2"),
)
NEIGHBOURS = ("model.layers=2", "method.max_neighbours=3", "method.expansion_every=2", "method.embedding_noise=0.05")
RUNS = {
    "fedavg": ("method=fedavg", *SMALL),
    "fedgnn": ("method=fedgnn", *SMALL, *NEIGHBOURS, "method.pseudo_items=5"),
    "one model": ("method=perfedrec", *SMALL, "method.cluster_start=100"),
    "equal": (*CLUSTERED, *NEIGHBOURS),
    "uneven": (*CLUSTERED, "method.weights=[0.2,0.1,0.7]"),
    "validation": (*CLUSTERED, "method.weights=validation"),
    "parameters": (*CLUSTERED, "method.combination=parameters", "method.weights=[0.3,0.2,0.5]"),
}
BEST = 3
"""The round that is made the best one, whatever the figures; clusters change after it."""


class Measured:
    """Scores of users' items when they were measured, by round and user."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.scores: dict[int, dict[int, np.ndarray]] = {}
        measure, figures = RecommenderClient.measure, UserCohort.ranking_figures

        def measuring(client: RecommenderClient, batch: Batch) -> Result:
            self._of_round = self.scores.setdefault(batch.server_round, {})
            return measure(client, batch)

        def ranked(cohort: UserCohort, ratings: Ratings, scores: np.ndarray) -> dict[str, np.ndarray]:
            for user, own in zip(ratings.user_ids.tolist(), scores, strict=True):
                self._of_round.setdefault(user, own.copy())  # of several models the mixture is measured first
            return figures(cohort, ratings, scores)

        patch.setattr(RecommenderClient, "measure", measuring)
        patch.setattr(UserCohort, "ranking_figures", ranked)

    def at(self, server_round: int) -> np.ndarray:
        return np.stack([self.scores[server_round][user] for user in range(USERS)])


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Measured:
    take = RecommenderStrategy.take_evaluation

    def take_the_best(strategy: RecommenderStrategy, evaluation: Updates) -> None:
        monkeypatch.setattr(RecommenderStrategy, "_is_beaten", lambda *_: evaluation.server_round != BEST)
        take(strategy, evaluation)

    monkeypatch.setattr(RecommenderStrategy, "take_evaluation", take_the_best)
    return Measured(monkeypatch)


def prepared_for(name: str) -> PreparedRatings:
    config, _ = composed_config(list(RUNS[name]))
    return prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache)


def left_by(run: Outcome) -> dict[int, Ranker]:
    """The recommender that a simulation has left for each user."""
    rankers = [Ranker.read(path) for path in sorted((run.directory / "users").iterdir())]
    return {user: ranker.of_users([user]) for ranker in rankers for user in ranker.clients.tolist()}


def scores_by(found: dict[int, Ranker], ratings: Ratings) -> np.ndarray:
    assert sorted(found) == list(range(USERS))
    return np.concatenate([found[user].scores(ratings.of_users([user])) for user in range(USERS)])


def assert_as_measured(found: dict[int, Ranker], run: Outcome, measured: Measured, ratings: Ratings) -> None:
    """The scores of the best round, to the last digits, and thereby its figures; and those of no other round."""
    scores = scores_by(found, ratings)
    np.testing.assert_allclose(scores, measured.at(BEST), atol=1e-6)
    others = set(range(1, ROUNDS + 1)) - {BEST}
    assert all(np.abs(scores - measured.at(other)).max() > 1e-3 for other in others)
    task = composed_config(list(RUNS["fedavg"]))[0].task
    assert isinstance(task, Ranking)
    figures, record = user_figures(scores, ratings, task), run.rounds[BEST - 1]["clients"]
    for name in ("validation", "test"):
        np.testing.assert_allclose(figures[name], np.array(record[name], dtype=float), atol=1e-9, err_msg=name)


def models_of(found: dict[int, Ranker]) -> int:
    (number,) = {ranker.mixture.models.shape[1] for ranker in found.values()}
    return int(number)


# Simulations ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_what_is_left_scores_items_as_they_were_measured(name: str, tmp_path: Path, measured: Measured) -> None:
    run = run_inline(tmp_path / "run", *RUNS[name], "runtime.nodes=4", "runtime.chunk=2")
    found = left_by(run)
    assert_as_measured(found, run, measured, prepared_for(name).whole())
    assert models_of(found) == (1 if name in ("fedavg", "fedgnn", "parameters") else 3)
    assert all(ranker.card.method == RUNS[name][0].removeprefix("method=") for ranker in found.values())
    if "method.cluster_start=2" not in RUNS[name]:
        return
    clusters = [of_round.labels for _, of_round in sorted(RunDirectory(run.directory).clusters().items())]
    assert (clusters[BEST - 2] != clusters[-1]).any()  # those of the best round, the second that has any
    tables = {table.tobytes() for ranker in found.values() for table in ranker.mixture.tables}
    assert len(tables) == 4  # the global model and three clusters'
    if name == "validation":
        assert len({ranker.mixture.weights.tobytes() for ranker in found.values()}) > 1


def test_a_resumed_run_leaves_what_an_unbroken_one_leaves(tmp_path: Path, measured: Measured) -> None:
    overrides = (*RUNS["validation"], "record.checkpoint_every=2")
    unbroken = run_inline(tmp_path / "unbroken", *overrides)
    run_inline(tmp_path / "broken", *overrides, f"federation.rounds={BEST + 1}")
    job = composed_job([f"resume={tmp_path / 'broken'}", f"federation.rounds={ROUNDS}"])
    simulate(job.config, job.directory, resume=True)
    found = left_by(Outcome(tmp_path / "broken"))
    ratings = prepared_for("validation").whole()
    np.testing.assert_allclose(scores_by(found, ratings), scores_by(left_by(unbroken), ratings), atol=1e-6)
    assert_as_measured(found, unbroken, measured, ratings)


def test_the_last_round_counts_where_none_is_known_to_be_the_best(tmp_path: Path, measured: Measured) -> None:
    run = run_inline(tmp_path / "run", *RUNS["uneven"], f"method.evaluate_every={ROUNDS}")
    scores = scores_by(left_by(run), prepared_for("uneven").whole())
    assert run.summary["best_round"] == ROUNDS and list(measured.scores) == [ROUNDS]
    np.testing.assert_allclose(scores, measured.at(ROUNDS), atol=1e-6)


# Recommendations ------------------------------------------------------------------------------------------------------


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def best_items(scores: np.ndarray, ratings: Ratings) -> list[int]:
    """All items that may be recommended to one user, best first."""
    taken = set(ratings.items[ratings.roles != TEST].tolist())
    return sorted(set(range(ITEMS)) - taken, key=lambda item: (-scores[item], item))


@pytest.mark.parametrize("name", ["fedavg", "fedgnn", "equal"])
def test_a_runs_users_are_recommended_what_they_score_highest(
    name: str, tmp_path: Path, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    run_inline(tmp_path / "run", *RUNS[name], "runtime.nodes=2")
    prepared, scores = prepared_for(name), measured.at(BEST)
    for client in (0, 3, 10):
        ratings = prepared.ratings([client])
        items = best_items(scores[client], ratings)
        assert set(ratings.items[ratings.roles == TEST].tolist()) <= set(items)
        capsys.readouterr()
        out = tmp_path / f"{client}.csv"
        assert recommend([str(tmp_path / "run"), f"client={client}", "n=100", f"out={out}"]) == 0
        found = rows(out)
        assert list(found[0]) == ["item", "score"]
        assert [row["item"] for row in found] == [prepared.item_names()[item] for item in items]
        np.testing.assert_allclose([float(row["score"]) for row in found], scores[client][items], atol=6e-5)
        said = capsys.readouterr().out
        assert f"'s recommender of round {ROUNDS} (synthetic_ratings)" in said
        assert "a score is no rating: it has no unit, and only the order of a user's items by it counts" in said
        assert "predicted" not in said


def test_a_machine_has_what_its_user_scores_by_and_no_more(
    tmp_path: Path, measured: Measured, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "users"
    assert partition([*RUNS["equal"][:1], *DATA, "task=ranking", f"out={out}"]) == 0
    folders = sorted(out.glob("client-*"))
    grid = MachinesGrid(folders, None, together=3)
    run = deployed(grid, tmp_path / "run", *RUNS["uneven"], "runtime.node_timeout=5")
    place = f"runs/{run.summary['run_id']}/model.safetensors"
    found = {user: Ranker.read(folder / place) for user, folder in enumerate(folders)}
    ratings = prepared_for("uneven").whole()
    assert_as_measured(found, run, measured, ratings)
    starts = set()
    for user, ranker in found.items():
        assert ranker.clients.tolist() == [user] and len(ranker.mixture.tables) <= 2
        starts.add(ranker.mixture.tables[-1].tobytes())
    assert len(starts) > 2
    exports = [ask for ask in grid.asked if ask.metadata.message_type == "query.export"]
    assert len(exports) == USERS - 2
    for ask in exports:
        users: Any = ask.content.config_records["run"]["clients"]
        received = unpack_choice(ask.content)
        own = {table.tobytes() for user in users for table in found[user].mixture.tables}
        assert {table.tobytes() for table in received.values["items"]} == own
    capsys.readouterr()
    assert recommend([str(folders[3]), "n=100", f"out={tmp_path / 'out.csv'}"]) == 0
    recommendations = rows(tmp_path / "out.csv")
    assert list(recommendations[0]) == ["item", "score"]
    items = best_items(measured.at(BEST)[3], ratings.of_users([3]))
    assert [int(row["item"]) for row in recommendations] == items
    assert "only the order of a user's items by it counts" in capsys.readouterr().out


@pytest.mark.parametrize("method", ["fedavg", "perfedrec"])
def test_attributes_are_in_what_is_left(method: str, tmp_path: Path, measured: Measured) -> None:
    rng = np.random.default_rng(4)
    lines = ["user,item,rating,timestamp"]
    for user in range(USERS):
        lines += [f"u{user},i{item:02},{rng.integers(1, 6)},{item}" for item in rng.choice(ITEMS, 12, replace=False)]
    tables = {
        "path": lines,
        "users": ["user,age", *(f"u{user},{user % 3}" for user in range(USERS))],
        "items": ["item,genre", *(f"i{item:02},{'a|b' if item % 2 else 'c'}" for item in range(ITEMS))],
    }
    given = []
    for name, content in tables.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([*content, ""]))
        given.append(f"dataset.{name}={tmp_path / name}.csv")
    options = [option for option in RUNS["fedavg" if method == "fedavg" else "uneven"] if "dataset" not in option]
    overrides = (*options, "dataset=custom_ratings", *given, "model.attributes=true", "model.layers=2")
    run = run_inline(tmp_path / "run", *overrides)
    config, _ = composed_config(list(overrides))
    ratings = prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache).whole()
    assert ratings.num_items == ITEMS
    scores = measured.at(BEST)
    np.testing.assert_allclose(scores_by(left_by(run), ratings), scores, atol=1e-6)
    assert recommend([str(tmp_path / "run"), "client=2", "n=100", f"out={tmp_path / 'out.csv'}"]) == 0
    items = best_items(scores[2], ratings.of_users([2]))
    assert [row["item"] for row in rows(tmp_path / "out.csv")] == [f"i{item:02}" for item in items]
