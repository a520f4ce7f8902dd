"""The server's learning rate over a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_rounds import strategy_of, toy_roster

from subfl_flower.clients.recommendation.user_parts import IDS, ITEMS, ROWS
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.privacy.mechanism import GaussianL2, LaplaceL1, LaplaceLinf, LdpSettings, NoNoise
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.recommendation.fedgnn import FedGNN
from subfl_flower.wire.ragged import Ragged

MODEL = RecommenderSettings(name="recommender", dim=1, shrinkage=0)
INITIAL = {
    "items": np.zeros((3, 2), np.float32),
    "gnn.weight": np.zeros(2, np.float32),
    "bias": np.zeros(1, np.float32),
}


def server(rounds: int, privacy: LdpSettings | None = None, **knobs: Any) -> FedGNN:
    chosen = {"server_optimizer": "sgd", "server_lr": 0.4, "network_lr": 0.2, "network_weight_decay": 0.0, **knobs}
    return strategy_of(
        FedGNN, toy_roster(1, 1), INITIAL, chosen, num_rounds=rounds, model=MODEL, privacy=privacy or NoNoise()
    )


def ones(server_round: int) -> Updates:
    """Two users' gradients, all entries one; the first sends rows 0 and 2, the second row 2."""
    return Updates(
        server_round=server_round,
        positions=np.array([0, 1]),
        arrays={"gnn.weight": np.ones((2, 2), np.float32), "bias": np.ones((2, 1), np.float32)},
        ragged={
            IDS: Ragged(np.array([0, 2, 2], np.int32), np.array([2, 1])),
            ROWS: Ragged(np.ones((3, 2), np.float32), np.array([2, 1])),
        },
        metrics={},
        failures={},
        bytes_up=np.zeros(2, np.int64),
        bytes_down=np.zeros(2, np.int64),
        client_seconds=0.0,
    )


def shares(strategy: FedGNN, steps: int) -> list[float]:
    """By which part of its first rate each step moves the table, the network and the bias, all alike."""
    found = []
    for step in range(1, steps + 1):
        before = {name: value.clone() for name, value in strategy.parameters.items()}
        strategy.aggregate(ones(step))
        moved = {name: (before[name] - value).numpy() for name, value in strategy.parameters.items()}
        assert not moved[ITEMS][1].any()  # nobody sent it
        found.append(float(moved[ITEMS][0, 0]) / 0.4)
        np.testing.assert_allclose(moved[ITEMS][[0, 2]], 0.4 * found[-1], rtol=1e-5)
        np.testing.assert_allclose(moved["gnn.weight"], 0.2 * found[-1], rtol=1e-5)
        np.testing.assert_allclose(moved["bias"], 0.2 * found[-1], rtol=1e-5)
    return found


ROOT = 2**-0.5


@pytest.mark.parametrize(
    ("rounds", "final", "expected"),
    [
        # Halfway between 1 and the last share in the middle; cos 45° and cos 135° at a quarter and three of them. What
        # comes after the last round stays there.
        (5, 0.2, [1, 0.6 + 0.4 * ROOT, 0.6, 0.6 - 0.4 * ROOT, 0.2, 0.2, 0.2]),
        # cos 60° and cos 120° at a third and two of them.
        (4, 0.02, [1, 0.02 + 0.98 * 0.75, 0.02 + 0.98 * 0.25, 0.02]),
        (2, 0.5, [1, 0.5, 0.5]),
        (1, 0.2, [1, 0.2]),
        (5, 1, [1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_rate_falls_along_a_cosine(rounds: int, final: float, expected: list[float]) -> None:
    assert shares(server(rounds, server_lr_final=final), len(expected)) == pytest.approx(expected, rel=1e-5)


def test_where_the_length_of_a_run_is_not_known_the_rate_stays() -> None:
    assert shares(server(0, server_lr_final=0.1), 3) == pytest.approx([1, 1, 1], rel=1e-5)


def test_without_a_rate_of_its_own_the_network_has_the_servers() -> None:
    strategy = server(3, network_lr=None, server_lr_final=0.5)
    strategy.aggregate(ones(1))
    strategy.aggregate(ones(2))
    # Steps of 0.4 and of 0.75 times that.
    for value in (strategy.parameters["gnn.weight"], strategy.parameters["bias"], strategy.parameters[ITEMS][0]):
        np.testing.assert_allclose(value, -0.7, rtol=1e-5)


@pytest.mark.parametrize(
    ("privacy", "noise", "share"),
    [
        (GaussianL2(noise_multiplier=0.03), 0.04, 1),
        (GaussianL2(noise_multiplier=0.4, clip=7), 0.04, 0.1),
        (GaussianL2(noise_multiplier=0.4), None, 1),
        (LaplaceL1(epsilon=2.0, clip=3), 0.04, 0.04 / 2**-0.5),  # scale 3, deviation 3 root 2, in units of 6
        (LaplaceLinf(noise=0.5, clip=0.25), 2**0.5 / 2, 0.5),
        (NoNoise(), 0.04, 1),
    ],
)
def test_noise_above_that_of_the_full_rate_lowers_it(privacy: LdpSettings, noise: float | None, share: float) -> None:
    knobs = {"server_lr_final": 1.0, "full_rate_noise": noise}
    assert shares(server(3, privacy=privacy, **knobs), 2) == pytest.approx([share, share], rel=1e-5)
