"""The floor of rankings does the stated steps, and the measurement gives floor and stack the same work."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.tasks.choices import Ranking

FOLDER = Path(__file__).parents[2] / "benchmarks"
TASK = Ranking(name="ranking", negatives=20, cutoffs=(5,))


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("ranking_floor")


@pytest.fixture
def speed(floor: ModuleType) -> ModuleType:
    return importlib.import_module("ranking_speed")


def two_tastes(num_users: int = 60, num_items: int = 60, rated: int = 14) -> Ratings:
    """Users of two kinds, each of whom takes items of one half only; one validates and one tests."""
    rng = np.random.default_rng(0)
    half = num_items // 2
    chosen = np.stack(
        [np.sort(rng.choice(half, rated, replace=False)) + half * (user % 2) for user in range(num_users)]
    )
    roles = np.stack([rng.permutation([VALIDATION, TEST] + [TRAIN] * (rated - 2)) for _ in range(num_users)])
    return Ratings(
        user_ids=np.arange(num_users),
        offsets=np.arange(num_users + 1) * rated,
        items=chosen.ravel(),
        values=np.ones(chosen.size, dtype=np.float32),
        roles=roles.ravel().astype(np.int8),
        num_items=num_items,
        scale=(1.0, 5.0),
    )


def all_but_one(num_users: int, num_items: int) -> Ratings:
    """Users who have all items in training but one, which is then what is sampled whoever draws."""
    missing = np.random.default_rng(1).integers(num_items, size=num_users)
    items = np.concatenate([np.setdiff1d(np.arange(num_items), one) for one in missing])
    return Ratings(
        user_ids=np.arange(num_users),
        offsets=np.arange(num_users + 1) * (num_items - 1),
        items=items,
        values=np.ones(len(items), dtype=np.float32),
        roles=np.full(len(items), TRAIN, dtype=np.int8),
        num_items=num_items,
        scale=(1.0, 5.0),
    )


def test_a_step_of_the_floor_by_hand(floor: ModuleType) -> None:
    """Of two items in training each is scored by the other's message; the third is what both are held against."""
    settings = floor.RankingFloorSettings(dim=1, user_steps=1, local_lr=0.5, embedding_penalty=0.25)
    server = floor.Server(3, settings)
    server.items.copy_(torch.tensor([[1.0], [2.0], [-1.0]]))
    user = floor.User(0, torch.tensor([0, 1]), 3, settings)
    with torch.no_grad():
        user.embedding.fill_(3.0)
    (loss,) = server.collect([user])

    # h = (3 + the other item) / 2: 2.5 for item 0 and 2 for item 1; a margin is h (e_2 - e_i).
    first, second = 2.5 * (-1 - 1), 2.0 * (-1 - 2)
    assert loss == pytest.approx((math.log1p(math.exp(first)) + math.log1p(math.exp(second))) / 2, rel=1e-5)
    slope, other_slope = (1 / (1 + math.exp(-margin)) for margin in (first, second))
    gradients = [
        -2.5 * slope + 0.5 * other_slope * (-1 - 2) + 2 * 0.25 * 1,  # as what is scored, as a message, the penalty
        -2.0 * other_slope + 0.5 * slope * (-1 - 1) + 2 * 0.25 * 2,
        2.5 * slope + 2.0 * other_slope + 2 * 2 * 0.25 * -1,
    ]
    np.testing.assert_allclose(server.moved[:, 0], [-0.5 * gradient for gradient in gradients], rtol=1e-5)
    assert server.touched.tolist() == [1, 1, 1]
    # The embedding's gradient is positive (the penalty of 3 outweighs the slopes): Adam's first step is a whole rate.
    assert float(user.embedding.detach()) == pytest.approx(3 - settings.user_lr, rel=1e-5)
    server.touched.copy_(torch.tensor([2.0, 1.0, 0.0]))
    server.step(2)
    moved = [1 - 0.5 * gradients[0] / 2, 2 - 0.5 * gradients[1], -1 - 0.5 * gradients[2]]
    np.testing.assert_allclose(server.items[:, 0], moved, rtol=1e-5)


@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_the_floor_moves_what_the_stack_moves(floor: ModuleType, speed: ModuleType, layers: int) -> None:
    settings = floor.RankingFloorSettings(dim=4, layers=layers, negatives=2, user_steps=3, local_lr=0.05)
    ratings = all_but_one(num_users=5, num_items=7)
    stack = speed.StackedTraining(settings, ratings, chunk=2)
    server, users = floor.Server(7, settings), floor.floor_users(ratings, settings)
    server.items.copy_(stack.items)
    with torch.no_grad():
        for user, embedding in zip(users, stack.state["user"], strict=True):
            user.embedding.copy_(embedding)
    server.collect(users)
    moved, touched = stack()

    torch.testing.assert_close(moved, server.moved, atol=1e-5, rtol=1e-4)
    assert moved.abs().min() > 1e-4
    assert touched.tolist() == server.touched.tolist() == [5] * 7
    torch.testing.assert_close(stack.state["user"], torch.stack([user.embedding.detach() for user in users]))


def test_the_floor_learns_what_users_turn_to(floor: ModuleType) -> None:
    seen: list[object] = []
    settings = floor.RankingFloorSettings(dim=8, users_per_round=30, evaluate_every=15)
    history = floor.run_ranking_floor(two_tastes(), TASK, 40, 0, settings, on_round=seen.append)

    assert seen == history
    assert [record.round for record in history if record.test is not None] == [15, 30, 40]
    # Of 20 candidates about 9 are of the user's half: who knows the half hits with 5 places more often than 5 / 20.
    assert history[-1].test > 0.4 and history[-1].validation > 0.4
    assert history[-1].train_loss < 0.7 * history[0].train_loss


def test_users_without_a_pair_are_left_out(floor: ModuleType) -> None:
    ratings = two_tastes(num_users=3)
    ratings.roles[ratings.users() == 1] = TEST
    users = floor.floor_users(ratings, floor.RankingFloorSettings())
    assert [user.position for user in users] == [0, 2]
    own = ratings.items[(ratings.users() == 2) & (ratings.roles == TRAIN)]
    assert users[1].items.tolist() == own.tolist()
    assert users[1].others.tolist() == sorted(set(range(60)) - set(own.tolist()))
    assert floor.floor_users(all_but_one(1, 4), floor.RankingFloorSettings())[0].others.numel() == 1


def test_the_floor_command_takes_its_settings_from_the_configuration(
    floor: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = importlib.import_module("floor")
    taken: list[object] = []
    run = floor.run_ranking_floor

    def watched(ratings: Ratings, task: Ranking, rounds: int, seed: int, settings: object, on_round: object) -> object:
        taken.append(settings)
        return run(ratings, task, rounds, seed, settings, on_round)

    monkeypatch.setattr(floor, "run_ranking_floor", watched)
    users = ("dataset.num_users=30", "dataset.num_items=60", "dataset.ratings_per_user=12", "task.negatives=20")
    rates = ("method.local_lr=0.2", "method.user_lr=0.02", "method.loss=mean", "method.user_steps=2")
    rounds = ("method.users_per_round=null", "federation.fraction=0.5", "method.evaluate_every=2")
    model = ("model.dim=4", "model.layers=2", "model.negatives=3", "model.embedding_penalty=0.01")
    run_of = ("method=fedavg", "task=ranking", "dataset=synthetic_ratings", "federation.rounds=3")
    command.main([*run_of, *users, *rates, *rounds, *model, f"hydra.run.dir={tmp_path / 'run'}"])
    assert taken == [floor.RankingFloorSettings(4, 2, 3, 0.01, 2, 0.2, 0.02, "mean", 15, 2)]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(record["round"], record["test"] is None) for record in records] == [(1, True), (2, False), (3, False)]
    assert all(set(record["seconds"]) == {"round", "client", "server", "transport"} for record in records)


def test_the_stack_samples_anew_in_each_call_and_starts_from_the_same_rows(speed: ModuleType) -> None:
    stack = speed.StackedTraining(speed.RankingFloorSettings(dim=4), two_tastes(num_users=4))
    before = stack.items.clone()
    (first, _), (second, _) = stack(), stack()
    assert torch.equal(stack.items, before)
    assert not torch.equal(first, second)


def test_the_command_prints_a_ratio_for_each_number_of_users(
    speed: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    speed.main(["--users", "4", "6", "--repeats", "3"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "<= 0.7" in line]
    for count, line in zip(("4", "6"), lines, strict=True):
        users, floor_ms, stacked_ms, ratio, spread, _ = (cell.strip() for cell in line.strip("│").split("│"))
        assert users == count
        assert float(ratio) == pytest.approx(float(stacked_ms) / float(floor_ms), abs=0.01)
        low, high = map(float, spread.split("–"))
        assert 0 < low <= high


def test_whole_rounds_are_of_the_users_asked_for(
    speed: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[tuple[list[str], tuple[tuple[str, int], ...], int, int]] = []

    def measured(
        overrides: list[str], runtimes: tuple[tuple[str, int], ...], repeats: int, warmup: int, folder: Path
    ) -> dict:
        asked.append((overrides, runtimes, repeats, warmup))
        return {}

    monkeypatch.setattr(speed, "measure_interleaved", measured)
    speed.measure_rounds(["dataset=ml100k"], users=128, rounds=9, repeats=2, folder=tmp_path)
    ((overrides, runtimes, repeats, warmup),) = asked
    assert {"method=fedavg", "task=ranking", "dataset=ml100k", "method.users_per_round=128"} < set(overrides)
    assert (runtimes, repeats, warmup) == ((("inline", 1), ("ray", 1)), 2, speed.WARMUP)
