from __future__ import annotations

import numpy as np
import pytest
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.clients.subgraphs.protected_update import COSINE
from subfl_flower.errors import SubflError
from subfl_flower.privacy.accountant import for_rounds, user_level_epsilon
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.strategies.subgraphs.fedavg import FedAvg

INITIAL = {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(3, np.float32)}
NOISY = LdpSettings(mechanism="gaussian_l2", clip=1.0, noise_multiplier=2.0)


def fedavg(privacy: LdpSettings = NOISY) -> FedAvg:
    return strategy_of(FedAvg, toy_roster(4, 6, 1), INITIAL, privacy=privacy)


def take(strategy: FedAvg, positions: list[int], cosines: list[float]) -> None:
    updates = replies(positions, 3, weight=np.ones((len(positions), 2, 3)), bias=np.ones((len(positions), 3)))
    updates.metrics[COSINE] = np.array(cosines)
    strategy.take(updates)


def test_the_guarantee_is_that_of_the_client_with_most_uploads() -> None:
    strategy = fedavg()
    assert strategy.report(None) == {}
    take(strategy, [0, 1], [0.2, 0.4])
    take(strategy, [1, 2], [0.5, np.nan])
    found = strategy.report(None)["privacy"]
    assert (found["num_uploads"], found["num_coordinates"], found[COSINE]) == (2, 9, pytest.approx(0.4))
    assert found["user_level_epsilon"] == pytest.approx(user_level_epsilon(NOISY, 2, NOISY.delta))
    assert "parameters" in found["covers"] and "examples" in found["covers"]


def test_without_a_mechanism_there_is_no_account() -> None:
    strategy = fedavg(LdpSettings())
    take(strategy, [0], [0.1])
    assert strategy.report(None) == {} and not [name for name in strategy.state() if name.startswith("account")]


def test_a_resumed_run_goes_on_with_its_account_and_with_no_other_noise() -> None:
    strategy = fedavg()
    take(strategy, [0, 1], [0.2, 0.4])
    resumed = fedavg()
    resumed.load_state(strategy.state())
    for each in (strategy, resumed):
        take(each, [0], [0.1])
    assert resumed.report(None) == strategy.report(None)
    other = fedavg(NOISY.model_copy(update={"noise_multiplier": 1.0}))
    with pytest.raises(SubflError, match="first rounds had noise of scale 4, and it cannot go on with 2;"):
        other.load_state(strategy.state())


@pytest.mark.parametrize(("target", "rounds"), [(0.5, 1), (8.0, 30), (50.0, 200)])
def test_a_target_is_spent_by_the_last_round_and_not_before(target: float, rounds: int) -> None:
    noisy = for_rounds(NOISY.model_copy(update={"target_epsilon": target}), rounds)
    assert target * 0.999 < user_level_epsilon(noisy, rounds, noisy.delta) <= target
    assert user_level_epsilon(noisy, rounds + 1, noisy.delta) > target


def test_a_target_that_cannot_be_kept_is_refused() -> None:
    with pytest.raises(SubflError, match=r"privacy\.target_epsilon: no noise keeps 100 uploads within 1e-06"):
        for_rounds(NOISY.model_copy(update={"target_epsilon": 1e-6}), 100)
    with pytest.raises(SubflError, match="number of rounds"):
        for_rounds(NOISY.model_copy(update={"target_epsilon": 1.0}), None)
    assert for_rounds(NOISY, None) is NOISY
    with pytest.raises(ValueError, match="target_epsilon is for mechanism=gaussian_l2 alone"):
        LdpSettings.model_validate({"mechanism": "laplace_l1", "epsilon": 1.0, "target_epsilon": 1.0})
