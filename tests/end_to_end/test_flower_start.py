"""Flower's own loop, `Strategy.start`, drives the strategies to the numbers that the loop of a run gives."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord
from run_outcomes import SMALL_DIGITS, Outcome, run_inline

from subfl_flower.client_app import app
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.server.standalone import make_strategy
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates

NODES, ROUNDS = 2, 3
RUNS = {
    "fedpub": (*SMALL_DIGITS, "method=fedpub", "federation.fraction=0.6", "method.tau=5"),
    "gcfl": ("dataset=digits", "model.hidden=16", "method=gcfl", "method.first_split=2", "method.epsilon1=2"),
    # Clients are asked in phases before the first round, or before some.
    "subpfed": ("dataset=digits", "model.hidden=16", "method=subpfed"),
    "fedgcn": ("dataset=digits", "model.hidden=16", "method=fedgcn"),
    "clusters": (
        *(
            "method=perfedrec",
            "dataset=synthetic_ratings",
            "dataset.num_users=12",
            "dataset.num_items=40",
            "model.dim=4",
        ),
        *("dataset.ratings_per_user=8", "method.users_per_round=6", "method.cluster_start=2", "method.cluster_every=1"),
    ),
    # Few of many users train, and all are measured in separate messages.
    "rankings": (
        *("method=fedavg", "dataset=synthetic_ratings", "task=ranking", "dataset.num_users=12", "model.dim=4"),
        *("dataset.num_items=130", "dataset.ratings_per_user=8", "method.users_per_round=6", "method.evaluate_every=2"),
    ),
}
MEASURED = ("clusters", "rankings")
"""Runs whose clients are measured in separate messages."""


def started_by_flower(run_id: str, overrides: tuple[str, ...]) -> tuple[CohortStrategy, Any]:
    """The strategy after a run by Flower's loop, and Flower's result."""
    try:
        with InlineGrid(app, NODES).active() as grid, pytest.MonkeyPatch.context() as patch:
            patch.setattr(secrets, "token_hex", lambda length: run_id)
            strategy, run = make_strategy(overrides, grid)
            result = strategy.start(grid, ArrayRecord(), ROUNDS, train_config=run, evaluate_config=run)
    finally:
        forget_nodes()
    return strategy, result


def run_by_subfl(
    folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> tuple[CohortStrategy, Outcome]:
    """The strategy after a run by `subfl`, and what the run left."""
    taken: list[CohortStrategy] = []
    take = CohortStrategy.take

    def noted(self: CohortStrategy, updates: Updates) -> None:
        take(self, updates)
        taken.append(self)

    with monkeypatch.context() as patch:
        patch.setattr(CohortStrategy, "take", noted)
        outcome = run_inline(folder, *overrides)
    assert len(taken) == ROUNDS and len({id(strategy) for strategy in taken}) == 1
    return taken[0], outcome


@pytest.mark.parametrize("name", RUNS)
def test_flowers_loop_ends_at_the_parameters_of_a_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (*RUNS[name], f"federation.rounds={ROUNDS}", f"runtime.nodes={NODES}")
    mine, outcome = run_by_subfl(tmp_path / "subfl", monkeypatch, overrides)
    theirs, result = started_by_flower(outcome.summary["run_id"], overrides)

    expected, found = mine.state(), theirs.state()
    assert found.keys() == expected.keys() and found
    for array, values in expected.items():
        np.testing.assert_array_equal(found[array], values, err_msg=array)
    # And the rounds did something: nobody holds the model that all began with.
    begun = mine.run.initial
    assert all(not np.array_equal(mine.parameters[array], np.broadcast_to(begun[array], mine.parameters[array].shape))
               for array in begun if array.endswith("weight") or array == "items")  # fmt: skip

    assert sorted(result.train_metrics_clientapp) == [1, 2, 3]
    for record in outcome.rounds:
        losses = np.array(record["clients"]["train_loss"], dtype=float)
        trained = result.train_metrics_clientapp[record["round"]]["train_loss"]
        assert trained == pytest.approx(float(np.nanmean(losses)), rel=1e-12)
        measured = result.evaluate_metrics_clientapp.get(record["round"])
        evaluated = name in MEASURED and "validation" in record
        assert (measured is not None) == evaluated
        if evaluated:
            assert measured["validation"] == pytest.approx(record["validation"], rel=1e-12)
    assert bool(result.evaluate_metrics_clientapp) == (name in MEASURED)
