"""Effects of one hostile client on the averages of methods that average parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toy_rounds import SimilarityAlone, replies, strategy_of, toy_roster

from subfl_flower.aggregation.settings import AggregationSettings
from subfl_flower.clients.subgraphs.masked_weights import WANTED
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.fedpub import FedPUB

INITIAL = {"w": np.array([1.0, -1.0, 0.5, 2.0], np.float32)}
RNG = np.random.default_rng(11)
HONEST = INITIAL["w"] + 0.1 + 0.02 * RNG.standard_normal((7, 4)).astype(np.float32)


def with_hostile(factor: float) -> np.ndarray:
    """Seven clients' replies, the third one's update times a factor."""
    sent = HONEST.copy()
    sent[2] = INITIAL["w"] + np.float32(factor) * (sent[2] - INITIAL["w"])
    return sent


def received_after(family: Any, sent: np.ndarray, settings: dict[str, Any] | None = None, **chosen: Any) -> np.ndarray:
    """Models that the seven clients are sent after a round."""
    strategy = strategy_of(family, toy_roster(*[5] * 7), INITIAL, settings, aggregation=AggregationSettings(**chosen))
    strategy.aggregate(replies(range(7), 7, w=sent))
    return np.asarray(strategy.instructions(2, range(7))["w"])


@pytest.mark.parametrize("factor", [1e6, -30.0, 9.9e11])
@pytest.mark.parametrize(
    "chosen", [{}, *({"rule": rule, "norm_bound": None} for rule in ("trimmed_mean", "median", "krum"))]
)
@pytest.mark.parametrize("family", [FedAvg, SimilarityAlone])
def test_attack_by_a_scaled_update_moves_an_average_by_less_than_one_honest_update(
    family: Any, chosen: dict[str, Any], factor: float
) -> None:
    settings = {"similarity": "parameter"} if family is SimilarityAlone else None
    found = received_after(family, with_hostile(factor), settings, **chosen)
    honest = np.delete(np.arange(7), 2)  # a personal average is mostly the hostile client's own in its own row
    gap = np.linalg.norm(found[honest] - HONEST.mean(0), axis=1)
    assert (gap < np.linalg.norm(HONEST - INITIAL["w"], axis=1).max()).all()


@pytest.mark.parametrize("factor", [1e6, -30.0])
def test_without_bound_and_rule_one_client_ruins_the_average(factor: float) -> None:
    found = received_after(FedAvg, with_hostile(factor), norm_bound=None)
    assert (np.linalg.norm(found - HONEST.mean(0), axis=1) > 0.5).all()


def test_honest_updates_are_averaged_as_without_a_bound() -> None:
    np.testing.assert_array_equal(received_after(FedAvg, HONEST), received_after(FedAvg, HONEST, norm_bound=None))


def test_the_record_has_norms_and_who_was_scaled_back_or_left_out() -> None:
    sent = with_hostile(100.0)
    strategy = strategy_of(FedAvg, toy_roster(*[5] * 7), INITIAL, aggregation=AggregationSettings(rule="krum"))
    strategy.aggregate(replies(range(7), 7, w=sent))
    figures = strategy.guard_figures
    np.testing.assert_allclose(figures["update_norm"], np.linalg.norm(sent - INITIAL["w"], axis=1), rtol=1e-5)
    assert figures["clipped"].tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert figures["excluded"].sum() == 1


@pytest.mark.parametrize("rule", ["median", "trimmed_mean"])
def test_an_entry_that_a_client_pruned_is_no_vote(rule: str) -> None:
    initial = {"conv1.weight": np.ones((2, 2), np.float32)}
    sent = np.full((4, 2, 2), 2.0, np.float32) + np.arange(4, dtype=np.float32)[:, None, None] / 8
    sent[:3, 0, 1] = 0  # one client alone sends this entry
    sent[3, 1, 1] = 0
    strategy = strategy_of(
        FedPUB,
        toy_roster(5, 5, 5, 5),
        initial,
        {"similarity": "none", "centred": False},
        aggregation=AggregationSettings(rule=rule, norm_bound=None),
    )
    strategy.aggregate(replies(range(4), 4, **{"conv1__weight": sent, WANTED: np.zeros((4, 2))}))
    found = np.asarray(strategy.instructions(2, range(4))["conv1.weight"])
    assert found[3, 0, 1] == sent[3, 0, 1] and not found[:3, 0, 1].any() and found[3, 1, 1] == 0
    np.testing.assert_allclose(found[0, 0, 0], np.median(sent[:, 0, 0]))
    np.testing.assert_allclose(found[0, 1, 1], np.median(sent[:3, 1, 1]))


def test_a_method_that_does_not_average_models_refuses_other_rules() -> None:
    with pytest.raises(
        SubflError, match=r"aggregation.rule: method=fedgnn does not average whole models; must be mean"
    ):
        composed_config(["method=fedgnn", "aggregation.rule=median"])
