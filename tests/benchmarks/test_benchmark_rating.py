"""The floor of recommenders does the stated steps, and the measurement of steps measures the same work of both."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.recommendation.models.recommender import StackedRecommender
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import ReceivedModel

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("rating_floor")


@pytest.fixture
def speed(floor: ModuleType) -> ModuleType:
    return importlib.import_module("rating_speed")


def additive_ratings(num_users: int = 40, num_items: int = 30, rated: int = 20) -> Ratings:
    """Ratings that biases of users and items explain, of which a tenth validates and a fifth tests."""
    rng = np.random.default_rng(0)
    chosen = np.stack([np.sort(rng.choice(num_items, rated, replace=False)) for _ in range(num_users)])
    biases = 0.7 * rng.standard_normal(num_items)
    values = np.clip(3 + 0.7 * rng.standard_normal((num_users, 1)) + biases[chosen], 1, 5)
    return Ratings(
        user_ids=np.arange(num_users),
        offsets=np.arange(num_users + 1) * rated,
        items=chosen.ravel(),
        values=values.ravel().astype(np.float32),
        roles=rng.choice([TRAIN, VALIDATION, TEST], chosen.size, p=[0.7, 0.1, 0.2]).astype(np.int8),
        num_items=num_items,
        scale=(1.0, 5.0),
    )


def test_a_step_of_the_floor_by_hand(floor: ModuleType) -> None:
    """Without attention a user and its only item both become the mean of the two."""
    settings = floor.RatingFloorSettings(dim=2)
    server = floor.Server(3, settings)
    with torch.no_grad():
        server.items.copy_(torch.tensor([[0.0, 0, 0], [1.0, 2.0, 0.5], [0.0, 0, 0]]))
        server.conv.lin.weight.copy_(torch.eye(2))
        for vector in (server.conv.att_src, server.conv.att_dst, server.conv.bias):
            vector.zero_()
    user = floor.User(torch.tensor([1]), torch.tensor([1.0]), {}, settings)
    with torch.no_grad():
        user.embedding.copy_(torch.tensor([3.0, 0.0]))
    (loss,) = server.collect([user])

    # Both are (2, 1): the product is 5, with the item's bias 5.5, the error 4.5; its gradient 9 by what is predicted.
    assert loss == pytest.approx(4.5**2, rel=1e-5)
    # The product is |x_u + x_i|² / 4, whose gradient by x_i is (x_u + x_i) / 2.
    np.testing.assert_allclose(server.items.grad, [[0, 0, 0], [18, 9, 9], [0, 0, 0]], rtol=1e-5)
    assert float(server.bias.grad) == pytest.approx(9, rel=1e-5)
    np.testing.assert_allclose(user.embedding.detach(), [3 - settings.lr, -settings.lr], rtol=1e-4)  # Adam's first
    server.step(1)
    np.testing.assert_allclose(server.items.detach()[1], np.array([1, 2, 0.5]) - settings.lr, rtol=1e-4)


def test_the_floor_learns(floor: ModuleType) -> None:
    ratings = additive_ratings()
    seen: list[object] = []
    settings = floor.RatingFloorSettings(dim=4, lr=0.05, users_per_round=20)
    history = floor.run_rating_floor(ratings, 3.0, 1.0, 40, 0, settings, on_round=seen.append)

    assert seen == history
    assert [record.round for record in history] == list(range(1, 41))
    constant = float(np.std(ratings.values[ratings.roles == TEST]))
    assert history[0].test == pytest.approx(constant, rel=0.1)
    assert history[-1].test < 0.6 * constant
    assert history[-1].train_loss < 0.5 * history[0].train_loss


def test_a_user_without_training_ratings_is_left_out(floor: ModuleType) -> None:
    ratings = additive_ratings(num_users=3)
    ratings.roles[ratings.users() == 1] = TEST
    users = floor.floor_users(ratings, 3.0, 1.0, floor.RatingFloorSettings())
    assert len(users) == 2
    trains = ratings.roles == TRAIN
    assert users[1].items.tolist() == ratings.items[trains & (ratings.users() == 2)].tolist()


def test_the_floor_command_runs_rating_data_sets(floor: ModuleType, tmp_path: Path) -> None:
    command = importlib.import_module("floor")
    users = ("dataset.num_users=30", "dataset.num_items=40", "dataset.ratings_per_user=12")
    settings = ("method=fedgnn", "dataset=synthetic_ratings", "model.dim=4", "federation.rounds=3")
    command.main([*settings, *users, f"hydra.run.dir={tmp_path / 'run'}"])
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == [1, 2, 3]
    for record in records:
        assert set(record["seconds"]) == {"round", "client", "server", "transport"}
        assert 0 < record["test"] < 4


def test_a_stacked_step_sums_what_users_would_send(speed: ModuleType) -> None:
    ratings = additive_ratings(num_users=5)
    settings = RecommenderSettings(name="recommender", gnn="gat", dim=4)
    step = speed.StackedStep(settings, ratings, 3.0, 1.0)
    model = StackedRecommender(settings, ratings.num_items)
    shared = {name: torch.from_numpy(value) for name, value in model.initial_of(0).items()}
    before = {name: value.clone() for name, value in step.personal.items()}
    sums = step()

    expected = {name: torch.zeros(shape) for name, shape in model.shapes.items()}
    for user in range(5):
        graphs = UserGraphs.build(ratings.of_users([user]), 3.0, 1.0)
        own = {name: value[user : user + 1] for name, value in before.items()}
        found = model.gradients(ReceivedModel(shared, own, graphs))
        expected["items"][graphs.rows] += found.items
        for name, value in found.shared.items():
            expected[name] += value[0]
    assert sums.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(sums[name], value, atol=1e-5, rtol=1e-4)
    assert all((step.personal[name] != value).all() for name, value in before.items())


def test_synthetic_ratings_have_the_stated_shape(speed: ModuleType) -> None:
    ratings = speed.synthetic_ratings(500, 1000, 85)
    counts = ratings.counts(TRAIN)
    assert counts.mean() == pytest.approx(85, rel=0.03)  # a whole number a user, and few that want half of all items
    assert counts.min() >= 10
    assert np.median(counts) < 0.8 * counts.mean()
    assert (np.diff(ratings.items)[np.diff(ratings.users()) == 0] > 0).all()


def test_the_command_prints_a_ratio_for_each_case(speed: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    speed.main(["--kinds", "gcn", "none", "--dims", "4", "--users", "6", "--repeats", "2"])
    printed = capsys.readouterr().out
    assert "6 users" in printed
    for kind in ("gcn", "none"):
        row = next(line for line in printed.splitlines() if f"│ {kind} " in line)
        _, dim, floor_ms, stacked_ms, ratio, target = (cell.strip() for cell in row.strip("│").split("│"))
        assert (dim, target) == ("4", "<= 0.7")
        assert float(ratio) == pytest.approx(float(stacked_ms) / float(floor_ms), abs=0.02)
