from typing import Any

import pytest

from subfl_flower.evaluation.summary import best_record, clients_heard, summarise, tenth_percentile


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
        "best_validation": 0.625,
        "figures": None,
        "worst_client": {"client": 0, "test": 0.25},
        "tenth_percentile": 0.3,  # 0.25 + (0.75 - 0.25) / 10
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
        "guarded": {},
    }


def test_what_else_was_measured_is_that_of_the_best_round() -> None:
    measured = [{"test.ndcg@10": level, "test.local.hr@10": level / 2} for level in (0.1, 0.2, 0.3)]
    rounds = [{**one, "figures": figures} for one, figures in zip(THREE_ROUNDS, measured, strict=True)]
    assert summarise(rounds)["figures"] == {"test.ndcg@10": 0.2, "test.local.hr@10": 0.1}
    assert summarise(rounds[:1])["figures"] == {"test.ndcg@10": 0.1, "test.local.hr@10": 0.05}


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


def partial(
    number: int, heard: int | None, validation: float, clients: dict[int, tuple[float | None, float | None]]
) -> Any:
    """A record of a round in which only `clients` took part: their validation and test metric."""
    found = {
        "round": number,
        "metric": "roc_auc",
        "validation": validation,
        "test": validation,
        "clients": {
            "ids": list(clients),
            "validation": [value for value, _ in clients.values()],
            "test": [value for _, value in clients.values()],
        },
    }
    return found if heard is None else {**found, "clients_heard": heard}


PARTIAL = [
    partial(1, 2, 0.9, {3: (0.9, 0.875), 0: (0.9, 1.0)}),  # the easy ones first
    partial(2, 3, 0.6, {1: (0.25, 0.125), 0: (0.65, 0.5)}),
    partial(3, 3, 0.7, {1: (0.5, 0.375)}),
    partial(4, 3, 0.65, {3: (0.7, 0.75), 0: (0.75, 0.25)}),
]


def test_rounds_before_the_last_client_was_heard_do_not_compete() -> None:
    figures = summarise(PARTIAL)
    assert (figures["best_round"], figures["test_at_best_validation"]) == (3, 0.7)
    assert summarise(PARTIAL[:1])["best_round"] == 1


def test_an_absent_client_counts_by_its_last_known_values() -> None:
    assert summarise(PARTIAL)["per_client"] == {  # at round 3: client 0 as of round 2, client 3 as of round 1
        "ids": [0, 1, 3],
        "test_at_best_validation": [0.5, 0.375, 0.875],
        "validation_at_best_validation": [0.65, 0.5, 0.9],
    }


def test_the_worst_client_is_that_of_the_best_round_by_last_known_values() -> None:
    assert summarise(PARTIAL)["worst_client"] == {"client": 1, "test": 0.375}  # not 0.125 of round 2, nor 0.25 of 4
    assert summarise(PARTIAL[:1])["worst_client"] == {"client": 3, "test": 0.875}


def test_the_worst_client_has_the_largest_error_and_the_lowest_id_of_equals() -> None:
    rounds = [record(1, [1.0, 1.0], [0.75, 1.25], "rmse"), record(2, [2.0, 2.0], [9.0, 1.0], "rmse")]
    assert summarise(rounds)["worst_client"] == {"client": 4, "test": 1.25}
    for metric in ("rmse", "accuracy"):
        assert summarise([record(1, [0.5, 0.5], [0.5, 0.5], metric)])["worst_client"] == {"client": 0, "test": 0.5}


def test_clients_with_nothing_to_test_on_are_not_the_worst() -> None:
    rounds = [partial(1, 2, 0.5, {7: (0.5, 0.75), 2: (0.5, None)})]
    assert summarise(rounds)["worst_client"] == {"client": 7, "test": 0.75}
    assert summarise([partial(1, 1, 0.5, {2: (0.5, None)})])["worst_client"] is None


def test_a_client_without_nodes_to_validate_on_keeps_its_place() -> None:
    rounds = [partial(1, 2, 0.5, {1: (None, 0.25), 0: (0.5, 0.5)}), partial(2, 2, 0.75, {0: (0.75, 1.0)})]
    assert summarise(rounds)["per_client"] == {
        "ids": [0, 1],
        "test_at_best_validation": [1.0, 0.25],
        "validation_at_best_validation": [0.75, None],
    }


def test_records_that_do_not_say_how_many_were_heard_count_their_clients() -> None:
    rounds = [partial(1, None, 0.9, {0: (0.9, 0.9)}), partial(2, None, 0.5, {0: (0.5, 0.5), 1: (0.5, 0.5)})]
    assert [clients_heard(record) for record in rounds] == [1, 2]
    assert summarise(rounds)["best_round"] == 2
    assert clients_heard({"round": 1}) == 0


def test_a_round_that_was_not_evaluated_does_not_keep_others_from_competing() -> None:
    rounds = [*PARTIAL, {"round": 5, "metric": "roc_auc", "clients_heard": 4, "clients": {"ids": [2]}}]
    assert summarise(rounds)["best_round"] == 3


def test_the_tenth_percentile_lies_a_tenth_of_the_way_from_the_worst_client_to_the_best() -> None:
    eleven = {client: client / 10 for client in range(11)}  # the second worst is 10/10 places after the worst
    assert tenth_percentile(eleven, "accuracy") == pytest.approx(0.1)
    assert tenth_percentile(eleven, "rmse") == pytest.approx(0.9)  # of errors the largest are the worst
    assert tenth_percentile({4: 0.5, 7: None, 1: 0.7}, "roc_auc") == pytest.approx(0.52)
    assert tenth_percentile({3: 0.25}, "accuracy") == 0.25
    assert tenth_percentile({3: None, 4: float("nan")}, "accuracy") is None


def test_a_run_without_a_round_has_no_figures() -> None:
    figures = summarise([])
    assert figures["rounds"] == figures["bytes_up"] == figures["seconds"] == 0
    assert figures["per_client"]["ids"] == []
    for name in (
        "metric",
        "best_round",
        "figures",
        "worst_client",
        "tenth_percentile",
        "test_at_best_validation",
        "test_last",
    ):
        assert figures[name] is None


def test_updates_that_the_server_scaled_back_or_left_out_are_counted_by_client() -> None:
    rounds = [
        {"round": 1, "clients": {"ids": [3, 12], "clipped": [1.0, 0.0], "excluded": [0.0, 1.0]}},
        {"round": 2, "clients": {"ids": [12, 3], "clipped": [0.0, 1.0], "excluded": [1.0, 0.0]}},
        {"round": 3, "clients": {"ids": [3]}},
    ]
    assert summarise(rounds)["guarded"] == {"clipped": {"3": 2}, "excluded": {"12": 2}}
