"""Bound of users' uploads: lengths by hand, and what one user can do to the shared model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from run_outcomes import Outcome
from test_server_parts import updates

from subfl_flower.aggregation.settings import AggregationSettings
from subfl_flower.aggregation.user_uploads import largest_rows, scaled_uploads
from subfl_flower.clients.recommendation.fcf import FCFClient
from subfl_flower.clients.recommendation.user_parts import ROWS
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.strategies.recommendation.fcf import FCF
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Roster

NUM_USERS = 7
HOSTILE = 2
INITIAL = {"items": np.arange(8, dtype=np.float32).reshape(4, 2), "bias": np.array([1.0], np.float32)}


def test_an_upload_is_as_long_as_its_longest_row_and_its_arrays_together() -> None:
    rows, owners = np.array([[3.0, 4.0], [0.0, 1.0], [6.0, 8.0]], np.float32), np.array([0, 0, 2])
    arrays = {"bias": np.array([[12.0], [2.0], [0.0]]), "gain": np.array([[0.0], [0.0], [-24.0]])}
    assert largest_rows(arrays, rows, owners, 3).tolist() == [13.0, 2.0, 26.0]  # of 5 and 12, 2 alone, 10 and 24
    found, scaled = scaled_uploads(arrays, rows, owners, np.array([1.0, 1.0, 0.5]))
    assert scaled.tolist() == [[3.0, 4.0], [0.0, 1.0], [3.0, 4.0]]
    assert found["gain"].ravel().tolist() == [0.0, 0.0, -12.0] and found["bias"].ravel().tolist() == [12.0, 2.0, 0.0]


def server(**bounds: Any) -> FCF:
    sizes = np.full(NUM_USERS, 2.0)
    roster = Roster(tuple(range(NUM_USERS)), (0,) * NUM_USERS, sizes, sizes, sizes, 4, 0, False)
    settings = FCF.Settings(users_per_round=None, server_optimizer="sgd", server_lr=0.5)
    model = RecommenderSettings(name="recommender", shrinkage=0)
    facts: dict[str, Any] = {"model": model, "initial": INITIAL, "aggregation": AggregationSettings(**bounds)}
    return FCF(RunContext(settings=settings, **facts), roster)


def stepped(factor: float, **bounds: Any) -> tuple[np.ndarray, FCF]:
    """The item table after a step by seven users of whom one sends `factor` times its gradient."""
    strategy, draws = server(**bounds), np.random.default_rng(5)
    gradients = 1 + 0.1 * draws.standard_normal((NUM_USERS, 2, 2))
    gradients[HOSTILE] *= factor
    rows = [dict(zip((0, 1 + user % 3), gradients[user], strict=True)) for user in range(NUM_USERS)]
    bias = np.ones((NUM_USERS, 1))
    bias[HOSTILE] *= factor
    strategy.aggregate(updates({"bias": bias.astype(np.float32)}, range(NUM_USERS), rows))
    return strategy.parameters["items"].numpy().copy(), strategy


@pytest.mark.parametrize(("factor", "bounds"), [(1e6, {}), (-60.0, {}), (9.9e11, {}), (-30.0, {"row_bound": 10.0})])
def test_attack_a_users_long_gradient_counts_no_more_than_another(factor: float, bounds: dict[str, float]) -> None:
    honest, _ = stepped(1.0)
    found, strategy = stepped(factor, **bounds)
    assert np.abs(found - honest).max() <= 2 * 0.5 * 1.4  # at most a usual row in the other direction, twice
    assert strategy.guard_figures["clipped"].tolist() == [float(user == HOSTILE) for user in range(NUM_USERS)]
    open_to_all, _ = stepped(factor, row_bound=None)
    assert np.abs(open_to_all - honest).max() > 2


def test_honest_uploads_are_averaged_as_without_a_bound() -> None:
    np.testing.assert_array_equal(stepped(1.0)[0], stepped(1.0, row_bound=None)[0])


class ScaledGradients(FCFClient):
    """User 3 sends a million times its gradient."""

    def train(self, batch: Batch) -> Result:
        result = super().train(batch)
        if 3 in result.clients:
            place, rows = result.clients.index(3), result.rows[ROWS]
            rows.values[rows.owners == place] *= 1e6
            result.arrays["bias"] = np.array(result.arrays["bias"])
            result.arrays["bias"][place] *= 1e6
        return result


def test_attack_a_users_scaled_gradients_do_not_ruin_a_run(inline_run: Callable[..., Outcome]) -> None:
    shared = (
        "method=fcf",
        "method.server_optimizer=sgd",
        "method.users_per_round=null",
        "federation.rounds=3",
        "method.evaluate_every=3",
    )
    hostile = ("method.client=test_user_bound.ScaledGradients", *shared)
    honest, bounded = inline_run(*shared), inline_run(*hostile)
    error, with_hostile = (run.summary["test_at_best_validation"] for run in (honest, bounded))
    assert with_hostile < error + 0.01
    assert bounded.summary["guarded"] == {"clipped": {"3": 3}} and honest.summary["guarded"] == {}
    open_to_all = inline_run(*hostile, "aggregation.row_bound=null")
    assert open_to_all.summary["test_at_best_validation"] > error + 0.1


def test_trained_users_small_gradients_make_no_other_user_unusual() -> None:
    """After a round of median 2 a bound of 10 times is 20, also when the others send 0.1, and after a resume."""

    def round_of(strategy: FCF, *lengths: float) -> list[float]:
        rows = [{0: (length, 0.0)} for length in lengths]
        strategy.aggregate(updates({"bias": np.zeros((len(lengths), 1), np.float32)}, range(len(lengths)), rows))
        return strategy.guard_figures["clipped"].tolist()

    first = server(row_bound=10.0)
    assert round_of(first, 1.0, 2.0, 3.0) == [0, 0, 0]
    resumed = server(row_bound=10.0)
    resumed.load_state({name: np.array(value) for name, value in first.state().items()})
    for strategy in (first, resumed):
        assert round_of(strategy, 0.1, 20.0, 0.1) == [0, 0, 0]
        assert round_of(strategy, 0.1, 20.1, 0.1) == [0, 1, 0]
    assert round_of(server(row_bound=10.0), 0.1, 20.0, 0.1) == [0, 1, 0]
