from typing import Any

import pytest

from subfl_flower.evaluation.summary import best_record, summarise


def record(number: int, validation: list[float], test: list[float], metric: str = "accuracy") -> dict[str, Any]:
    return {
        "round": number,
        "metric": metric,
        "validation": sum(validation) / 2,
        "test": sum(test) / 2,
        "test_as_received": sum(test) / 2 - 0.25,
        "clients": {"ids": [0, 4], "validation": validation, "test": test},
        "bytes_up": 100 * number,
        "bytes_down": 10,
        "seconds": {"round": 0.5},
    }


THREE_ROUNDS = [
    record(1, [0.25, 0.5], [0.5, 1.0]),  # means 0.375, 0.75
    record(2, [0.75, 0.5], [0.25, 0.75]),  # means 0.625, 0.5
    record(3, [0.5, 0.75], [1.0, 0.75]),  # means 0.625 again, 0.875
]


def test_figures_of_three_rounds_worked_out_by_hand() -> None:
    assert summarise(THREE_ROUNDS) == {
        "metric": "accuracy",
        "test_at_best_validation": 0.5,  # not 0.875 of round 3: the earliest of equals, and never by test
        "test_as_received_at_best_validation": 0.25,
        "best_round": 2,
        "test_last": 0.875,
        "rounds": 3,
        "bytes_up": 600,
        "bytes_down": 30,
        "seconds": 1.5,
        "per_client": {
            "ids": [0, 4],
            "test_at_best_validation": [0.25, 0.75],
            "validation_at_best_validation": [0.75, 0.5],
        },
    }


def test_a_partial_run_is_judged_by_the_rounds_it_reached() -> None:
    figures = summarise(THREE_ROUNDS[:1])
    assert (figures["best_round"], figures["test_at_best_validation"], figures["test_last"]) == (
        1,
        0.75,
        0.75,
    )
    assert (figures["rounds"], figures["bytes_up"]) == (1, 100)


@pytest.mark.parametrize(("metric", "best"), [("rmse", 2), ("RMSE", 2), ("loss", 2), ("auc", 3), ("hr@10", 3)])
def test_errors_are_best_when_lowest(metric: str, best: int) -> None:
    rounds = [
        record(number, [value, value], [1.0, 1.0], metric)
        for number, value in ((1, 1.5), (2, 0.75), (3, 2.0), (4, 0.75))
    ]
    found = best_record(rounds)
    assert found is not None and found["round"] == best


def test_rounds_that_were_not_evaluated_or_diverged_do_not_compete() -> None:
    skipped = {
        "round": 4,
        "metric": "accuracy",
        "bytes_up": 400,
        "bytes_down": 10,
        "clients": {"ids": [0, 4]},
    }
    diverged = {**THREE_ROUNDS[0], "round": 5, "validation": None, "test": None}
    nan = {**THREE_ROUNDS[0], "round": 6, "validation": float("nan"), "test": float("nan")}
    figures = summarise([*THREE_ROUNDS, skipped, diverged, nan])
    assert (figures["best_round"], figures["test_last"], figures["rounds"]) == (2, 0.875, 6)
    assert figures["bytes_up"] == 600 + 400 + 100 + 100


def test_a_run_without_a_round_has_no_figures() -> None:
    figures = summarise([])
    assert figures["rounds"] == figures["bytes_up"] == figures["seconds"] == 0
    assert figures["per_client"]["ids"] == []
    for name in ("metric", "best_round", "test_at_best_validation", "test_last"):
        assert figures[name] is None
