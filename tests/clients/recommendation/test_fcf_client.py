"""Solutions and uploads of FCF's users, against scikit-learn's ridge regression and gradients written out in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rated_users import CENTER, DIM, ITEMS, LENGTHS, RATINGS, SPREAD, hosting, normalised, table, to_all, worked
from run_outcomes import Outcome
from sklearn.linear_model import Ridge

from subfl_flower.clients.recommendation.fcf import FCFClient
from subfl_flower.composition import composed_config
from subfl_flower.data.graph import TEST, TRAIN
from subfl_flower.errors import SubflError

EVERYONE = range(len(LENGTHS))
PENALTIES = {"embedding_penalty": 0.1, "hidden_penalty": 0.05, "bias_penalty": 0.02}


def fcf(ids: Any = EVERYONE, **more: Any) -> FCFClient:
    client: FCFClient = hosting(FCFClient, ids, **{**PENALTIES, "loss": "sum", **more})
    return client


def personal_of(client: FCFClient, position: int) -> tuple[np.ndarray, float]:
    state = client.open_state()
    return state["user"][position].numpy().astype(float), float(state["user_bias"][position])


def received() -> dict[str, np.ndarray]:
    bias, items = table()
    return {"items": items, "bias": bias}


def solved(user: int) -> tuple[np.ndarray, float]:
    """A user's embedding and bias by ridge regression: one penalty for all, after the features are rescaled."""
    bias, items = table()
    rated, values = normalised(user)
    if not len(rated):
        return np.zeros(DIM), 0.0
    penalties = np.array([0.15] * DIM + [0.02]) * len(rated)
    known = np.hstack([items[rated, :DIM], np.ones((len(rated), 1))]) / np.sqrt(penalties)
    fitted = Ridge(alpha=1.0, fit_intercept=False).fit(known, values - bias[0] - items[rated, DIM])
    solution = fitted.coef_ / np.sqrt(penalties)
    return solution[:DIM], solution[DIM]


def uploaded(client: FCFClient, clients: Any = EVERYONE) -> dict[int, dict[str, np.ndarray]]:
    result = worked(client.train(to_all(clients, received())))
    assert result.clients == tuple(clients)
    ids, rows = result.rows["item_ids"], result.rows["item_rows"]
    return {
        client_id: {"bias": result.arrays["bias"][k], "ids": ids.of(k), "rows": rows.of(k)}
        for k, client_id in enumerate(clients)
    }


def test_users_solve_a_ridge_regression() -> None:
    client = fcf()
    uploaded(client)
    for user in EVERYONE:
        embedding, bias = personal_of(client, user)
        expected = solved(user)
        np.testing.assert_allclose(embedding, expected[0], atol=1e-5)
        assert bias == pytest.approx(expected[1], abs=1e-5)
    assert not personal_of(client, LENGTHS.index(0))[0].any()


@pytest.mark.parametrize("loss", ["sum", "mean"])
def test_gradients_of_items_are_those_at_the_solution(loss: str) -> None:
    bias, items = table()
    for user, upload in uploaded(fcf(loss=loss)).items():
        rated, values = normalised(user)
        embedding, own_bias = solved(user)
        errors = items[rated, :DIM] @ embedding + items[rated, DIM] + own_bias + bias[0] - values
        share = 1.0 if loss == "sum" else 1 / max(1, len(rated))
        by_embedding = 2 * share * (errors[:, None] * embedding + 0.1 * items[rated, :DIM])
        by_bias = 2 * share * (errors + 0.02 * items[rated, DIM])
        np.testing.assert_array_equal(upload["ids"], rated)
        np.testing.assert_allclose(upload["rows"], np.hstack([by_embedding, by_bias[:, None]]), atol=1e-5)
        np.testing.assert_allclose(upload["bias"], [2 * share * errors.sum()], atol=1e-5)


def test_nobody_could_do_better_by_stepping_its_own_part() -> None:
    """At the solution the gradient of what is personal vanishes."""
    client = fcf()
    found = uploaded(client)
    bias, items = table()
    for user in (0, 1, 3, 4):
        rated, values = normalised(user)
        embedding, own_bias = personal_of(client, user)
        errors = items[rated, :DIM] @ embedding + items[rated, DIM] + own_bias + bias[0] - values
        np.testing.assert_allclose(errors @ items[rated, :DIM] + 0.15 * len(rated) * embedding, 0, atol=1e-4)
        assert errors.sum() + 0.02 * len(rated) * own_bias == pytest.approx(0, abs=1e-4)
        assert np.abs(found[user]["rows"]).max() > 0.01  # of the items' rows it does not


@pytest.mark.parametrize("chunk", [1, 2, "all"])
def test_who_is_worked_with_whom_does_not_matter(chunk: Any) -> None:
    together, apart = uploaded(fcf(chunk=chunk)), uploaded(fcf(ids=[1, 3]), [1, 3])
    for user in (1, 3):
        np.testing.assert_allclose(together[user]["rows"], apart[user]["rows"], atol=1e-6)


def test_users_are_measured_at_what_they_solve_for_now() -> None:
    """Also those who never trained: an evaluation is of the table that comes with it."""
    client = fcf()
    bias, items = table()
    metrics = worked(client.measure(to_all(EVERYONE, received()))).metrics
    for user in EVERYONE:
        tested, values = normalised(user, TEST)
        embedding, own_bias = solved(user)
        predicted = items[tested, :DIM] @ embedding + items[tested, DIM] + own_bias + bias[0]
        errors = np.clip(predicted * SPREAD + CENTER, 1, 5) - (values * SPREAD + CENTER)
        assert metrics["test"][user] == pytest.approx(np.sqrt(np.mean(errors**2)), abs=1e-5)
    assert metrics["test_examples"].tolist() == [2.0] * len(LENGTHS)
    other = {**received(), "items": -items[::-1].copy()}
    worked(client.train(to_all(EVERYONE, other)))
    again = worked(client.measure(to_all(EVERYONE, received()))).metrics
    assert again.keys() == metrics.keys()
    for name, values in metrics.items():
        np.testing.assert_array_equal(again[name], values, err_msg=name)


def test_the_best_model_is_what_was_solved_for_at_the_best_round() -> None:
    client = fcf()
    later = {**received(), "items": table()[1][::-1].copy()}
    best_round = {"announced": {"best_round": 10.0}}
    worked(client.measure(to_all(EVERYONE, received(), 10)))
    worked(client.train(to_all(EVERYONE, later, 11, **best_round)))
    worked(client.measure(to_all(EVERYONE, later, 20, **best_round)))
    best = client.models(to_all(EVERYONE, {}, 10, **best_round))
    for user in EVERYONE:
        np.testing.assert_allclose(best[user]["user"], solved(user)[0], atol=1e-5)
        assert float(best[user]["user_bias"]) == pytest.approx(solved(user)[1], abs=1e-5)
    assert np.abs(best[3]["user"] - personal_of(client, 3)[0]).max() > 0.01


def test_what_has_no_unique_solution_is_refused() -> None:
    with pytest.raises(SubflError, match="must be above 0 with method=fcf"):
        composed_config(["method=fcf", "model.embedding_penalty=0"])
    with pytest.raises(SubflError, match=r"model\.gnn must be none, not 'gat': method=fcf"):
        composed_config(["method=fcf", "model.gnn=gat"])


def test_runs_are_the_same_on_one_node_and_on_three(inline_run: Callable[..., Outcome]) -> None:
    small = ("dataset.num_users=40", "dataset.num_items=30", "dataset.ratings_per_user=12", "model.dim=4")
    rounds = ("method.users_per_round=15", "method.evaluate_every=5", "federation.rounds=10")
    one, three = (inline_run("method=fcf", *small, *rounds, f"runtime.nodes={nodes}") for nodes in (1, 3))
    errors = [[run.rounds[r][name] for r in (4, 9) for name in ("validation", "test")] for run in (one, three)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-5)
    assert errors[0][0] != errors[0][2]
    drawn = [record["clients"]["ids"] for record in one.rounds if record["round"] % 5]
    assert drawn == [record["clients"]["ids"] for record in three.rounds if record["round"] % 5]
    assert {len(ids) for ids in drawn} == {15}


def test_the_users_of_these_tests_are_not_trivial() -> None:
    assert RATINGS.counts(TRAIN).tolist() == list(LENGTHS) and RATINGS.num_items == ITEMS
    assert max(LENGTHS) > DIM + 1 > min(LENGTHS)


def test_where_biases_are_held_the_embedding_is_fitted_to_the_rest() -> None:
    """The bias is a shrunken mean; the ridge has the penalty of 3 ratings more; nothing is uploaded by biases."""
    client = fcf(constant=3.0, bias_shrinkage=2.0)
    _, items = table()
    sent = {"items": items, "bias": np.zeros(1, np.float32)}
    orders = to_all(EVERYONE, sent, announced={"biases": 1.0})
    result = worked(client.train(orders))
    ids, rows = result.rows["item_ids"], result.rows["item_rows"]
    assert not result.arrays["bias"].any() and not rows.values[:, DIM].any()
    metrics = worked(client.measure(orders)).metrics
    for user in EVERYONE:
        rated, values = normalised(user)
        rest = values - items[rated, DIM]
        own = rest.sum() / (len(rated) + 2.0)
        known = items[rated, :DIM]
        ridge = known.T @ known + 0.15 * (max(1, len(rated)) + 3.0) * np.eye(DIM)
        embedding = np.linalg.solve(ridge, known.T @ (rest - own))
        found, bias = personal_of(client, user)
        np.testing.assert_allclose(found, embedding, atol=1e-5)
        assert bias == pytest.approx(own, abs=1e-6)
        errors = known @ embedding + own - rest
        np.testing.assert_array_equal(ids.of(user), rated)
        expected = 2 * (errors[:, None] * embedding + 0.1 * known)
        np.testing.assert_allclose(rows.of(user)[:, :DIM], expected, atol=1e-5)
        tested, values = normalised(user, TEST)
        predicted = items[tested, :DIM] @ embedding + items[tested, DIM] + own
        missed = np.clip(predicted * SPREAD + CENTER, 1, 5) - (values * SPREAD + CENTER)
        assert metrics["test"][user] == pytest.approx(np.sqrt(np.mean(missed**2)), abs=1e-5)
