from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from subfl_flower.node.client import CohortClient
from subfl_flower.server.round_records import LatestMetrics, bytes_of_models, round_record
from subfl_flower.server.updates import Updates
from subfl_flower.tasks.choices import NodeClassification, Ranking, RatingPrediction, TaskSettings
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Roster

NAN = float("nan")
RANKING = Ranking(name="ranking")
RATINGS = RatingPrediction(name="rating_prediction")
NODES = NodeClassification(name="node_classification")
ROSTER = Roster(
    client_ids=(3, 5, 8),
    node_ids=(1, 1, 1),
    num_examples=np.array([4.0, 2, 6]),
    num_nodes=np.zeros(3),
    num_edges=np.zeros(3),
    num_features=9,
    num_classes=0,
    overlapping=False,
)


def latest_of(task: TaskSettings) -> LatestMetrics:
    """Latest figures of clients that declare what every client does."""
    return LatestMetrics(task, CohortClient.metrics(RunContext(settings=None, task=task)), ROSTER)


def records_of(task: TaskSettings, *rounds: tuple[list[int], dict[str, list[float]]]) -> list[dict[str, Any]]:
    """The records of rounds, each given by who replied and what they measured, as they are read from the disk."""
    latest, found = latest_of(task), []
    for number, (positions, metrics) in enumerate(rounds, start=1):
        updates = Updates(
            server_round=number,
            positions=np.array(positions),
            arrays={},
            metrics={name: np.array(values) for name, values in metrics.items()},
            failures={},
            bytes_up=np.zeros(3, dtype=int),
            bytes_down=np.zeros(3, dtype=int),
            client_seconds=0.0,
        )
        record = round_record(updates, ROSTER, {"round": 1.0}, latest)
        found.append(json.loads(json.dumps(record, allow_nan=False)))
    return found


def test_further_figures_are_means_over_the_clients_that_have_them_and_not_given_per_client() -> None:
    metrics = {
        "num_examples": [4.0, 2, 6],
        "validation": [0.0, 1, 0.5],
        "test": [1.0, NAN, 0.5],
        "validation.hr@10": [0.0, 1, 0.5],
        "test.ndcg@10": [0.25, NAN, 0.75],
        "test.local.hr@10": [NAN, NAN, NAN],
        "tested": [1.0, 1, 1],
    }
    (record,) = records_of(RANKING, ([0, 1, 2], metrics))
    assert (record["metric"], record["validation"], record["test"]) == ("hr@10", 0.5, 0.75)
    assert record["figures"] == {"validation.hr@10": 0.5, "test.ndcg@10": 0.5, "test.local.hr@10": None}
    assert record["clients"]["test"] == [1, None, 0.5]
    assert not any("." in name for name in record["clients"])


def test_without_further_figures_a_record_has_no_such_key() -> None:
    metrics = {"num_examples": [4.0], "test": [1.0], "test_examples": [1.0], "test_as_received": [2.0]}
    (record,) = records_of(RATINGS, ([0], metrics))
    assert "figures" not in record


def test_the_metric_of_absent_clients_is_the_last_known_and_further_figures_are_of_this_round_alone() -> None:
    first = {"test": [1.0, 0, 0.5], "test.ndcg@10": [1.0, 0, 0.5]}
    second = {"test": [0.75], "test.ndcg@10": [0.75]}
    _, record = records_of(RANKING, ([0, 1, 2], first), ([1], second))
    assert record["test"] == (1 + 0.75 + 0.5) / 3
    assert (record["clients_heard"], record["figures"]) == (3, {"test.ndcg@10": 0.75})


def test_a_tasks_own_figures_are_recorded_by_client_and_their_means_are_over_last_known_values() -> None:
    first = {"test": [0.5, 0.25, NAN], "test.macro_f1": [0.25, 0.125, NAN], "test.one_class": [1.0, 0, NAN]}
    second = {"test": [0.75], "test.macro_f1": [0.5], "test.one_class": [0.0], "test.of_others": [0.125]}
    one, two = records_of(NODES, ([0, 1, 2], first), ([0], second))
    assert one["figures"] == {"test.macro_f1": 0.1875, "test.one_class": 0.5}  # client 8 has no test node
    assert one["clients"]["test.macro_f1"] == [0.25, 0.125, None]
    assert not any(name.startswith("test.") for name in one)
    assert two["test"] == 0.5
    assert two["figures"] == {"test.macro_f1": 0.3125, "test.one_class": 0.0, "test.of_others": 0.125}
    assert two["clients"]["test.one_class"] == [0.0] and "test.of_others" not in two["clients"]


def test_figures_that_no_client_has_are_none() -> None:
    (record,) = records_of(NODES, ([0, 1], {"test": [NAN, NAN], "test.majority": [NAN, NAN]}))
    assert (record["test"], record["figures"]) == (None, {"test.majority": None})


def test_a_tasks_own_figures_are_taken_in_again_from_records() -> None:
    rounds = (([0, 1], {"test.majority": [1.0, NAN]}), ([1, 2], {"test.majority": [0.5, 0.25]}))
    unbroken = records_of(NODES, *rounds, ([1], {"test.majority": [0.0]}))
    latest = latest_of(NODES)
    for record in unbroken[:2]:
        latest.recall(record)
    assert latest.take(np.array([1]), {"test.majority": np.array([0.0])}) == unbroken[2]["figures"]
    assert unbroken[2]["figures"] == {"test.majority": pytest.approx(1.25 / 3)}


@pytest.mark.parametrize("task", [RANKING, RATINGS])
def test_a_round_that_was_not_evaluated_has_no_metric(task: TaskSettings) -> None:
    evaluated = {"validation": [0.5, 1.0, NAN], "validation_examples": [1.0, 3, 0], "train_loss": [1.0, 2.0, 3.0]}
    first, second = records_of(task, ([0, 1, 2], evaluated), ([1, 2], {"train_loss": [5.0, 6.0]}))
    assert first["validation"] == (math.sqrt((0.25 + 3) / 4) if task is RATINGS else 0.75)
    assert "validation" not in second
    assert second["train_loss"] == 4  # of all three: 1 as last known, 5 and 6


def test_records_that_are_taken_in_again_leave_what_the_rounds_left() -> None:
    rounds = (
        ([0, 1], {"test": [1.0, NAN], "test.ndcg@10": [1.0, NAN], "train_loss": [1.0, 2.0]}),
        ([1, 2], {"test": [0.5, 0.25], "train_loss": [NAN, 4.0]}),
        ([0], {"test": [0.0], "train_loss": [7.0]}),
    )
    unbroken = records_of(RANKING, *rounds)
    latest = latest_of(RANKING)
    for record in unbroken[:2]:
        latest.recall(record)
    means = latest.take(np.array([0]), {name: np.array(values) for name, values in rounds[2][1].items()})
    assert means == {"test": 0.25, "train_loss": 5.5}
    assert means == {name: unbroken[2][name] for name in means}


def test_models_count_in_both_directions_of_the_rounds_that_a_client_took_part_in() -> None:
    records = [{"clients": {"ids": [3, 8]}}, {"clients": {"ids": [8]}}, {"clients": {"ids": []}}]
    sizes = {"whole": np.array([100, 100, 100]), "own": np.array([10, 20, 40])}
    assert bytes_of_models(records, (3, 5, 8), sizes) == {"whole": 2 * (100 + 200), "own": 2 * (10 + 80)}
