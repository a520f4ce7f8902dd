"""FedOpt's steps by hand: Adam, Yogi and Adagrad, limits, absent clients, a checkpoint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.strategies.subgraphs.fedopt import FedOpt

INITIAL = {"w": np.array([1.0, -2.0], np.float32)}
KNOBS = {"server_lr": 0.5, "beta1": 0.5, "beta2": 0.75, "tau": 1.0}


def fedopt(*num_examples: int, **settings: Any) -> FedOpt:
    return strategy_of(FedOpt, toy_roster(*num_examples), INITIAL, {**KNOBS, **settings})


def after(strategy: FedOpt, *means: list[float]) -> list[float]:
    """The model that clients are sent after rounds in which both change by these vectors in the mean."""
    for mean in means:
        before = strategy.instructions(1, [0])["w"][0]
        strategy.aggregate(replies([0, 1], 2, w=[before + 2 * np.array(mean), before]))
    return np.asarray(strategy.instructions(2, [1])["w"][0]).tolist()


# The mean change is (2, -4): m = (1, -2), and Δ² = (4, 16). v starts at 1.
FIRST_SECOND = {
    # v = 3/4 + (1, 4) = (1.75, 4.75)
    "adam": (1.75, 4.75),
    # v = 1 - 1/4 · (4, 16) · sign(1 - (4, 16)) = (2, 5)
    "yogi": (2.0, 5.0),
    # v = 1 + (4, 16)
    "adagrad": (5.0, 17.0),
}


@pytest.mark.parametrize("optimizer", FIRST_SECOND)
def test_a_step_is_that_of_the_papers_algorithm(optimizer: str) -> None:
    found = after(fedopt(1, 1, server_optimizer=optimizer), [2.0, -4.0])
    one, two = FIRST_SECOND[optimizer]
    np.testing.assert_allclose(found, [1 + 0.5 * 1 / (one**0.5 + 1), -2 - 0.5 * 2 / (two**0.5 + 1)], rtol=1e-6)


def test_moments_remember_earlier_rounds() -> None:
    # Round 2 with the change (0, 4): m = (0.5, 1), v = 3/4 · (1.75, 4.75) + (0, 4).
    strategy = fedopt(1, 1)
    first = after(strategy, [2.0, -4.0])
    found = after(strategy, [0.0, 4.0])
    expected = [first[0] + 0.5 * 0.5 / (1.3125**0.5 + 1), first[1] + 0.5 * 1 / (7.5625**0.5 + 1)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_yogi_lowers_the_second_moment_by_no_more_than_the_square() -> None:
    # v = 2 of the first entry after round 1; round 2 changes by 0.4: v = 2 - 1/4 · 0.16 = 1.96.
    strategy = fedopt(1, 1, server_optimizer="yogi")
    first = after(strategy, [2.0, 0.0])
    found = after(strategy, [0.4, 0.0])
    np.testing.assert_allclose(found[0], first[0] + 0.5 * 0.7 / (1.4 + 1), rtol=1e-6)


def test_with_a_large_tau_it_is_fedavg() -> None:
    """m / (√v + τ) is then Δ / 2τ, as v is nearly τ² throughout, and η = 2τ makes it FedAvg's whole change."""
    found = after(fedopt(1, 1, server_optimizer="adagrad", beta1=0.0, tau=1e6, server_lr=2e6), [2.0, -4.0])
    np.testing.assert_allclose(found, [3.0, -6.0], rtol=1e-5)


def test_replies_count_by_their_examples_and_absent_clients_are_sent_the_same() -> None:
    strategy = fedopt(1, 3, 5, server_optimizer="adagrad", beta1=0.0, tau=1e6, server_lr=2e6)
    strategy.aggregate(replies([0, 1], 3, w=[[5.0, -2.0], [1.0, 2.0]]))
    np.testing.assert_allclose(strategy.instructions(2, [0, 2])["w"], [[2.0, 1.0]] * 2, rtol=1e-5)


def test_a_strategy_goes_on_with_its_moments() -> None:
    strategy, other = fedopt(1, 1), fedopt(1, 1)
    after(strategy, [2.0, -4.0])
    other.load_state({name: np.array(value) for name, value in strategy.state().items()})
    assert after(strategy, [0.0, 4.0]) == after(other, [0.0, 4.0])


@pytest.mark.parametrize(("knob", "value"), [("tau", 0), ("beta1", 1.0), ("server_lr", 0), ("server_optimizer", "sgd")])
def test_knobs_have_a_range(knob: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        FedOpt.Settings(**{knob: value})
