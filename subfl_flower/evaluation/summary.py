"""The figures that a run is quoted by, from its round records."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LOWER_IS_BETTER = frozenset({"rmse", "mae", "mse", "loss"})


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of `metric` is the better one (errors), unlike accuracy, AUC or hit rate."""
    return metric.lower() in LOWER_IS_BETTER


def best_record(rounds: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The record of the round with the best mean validation metric, the earliest of equals; None without one.

    This is the model selection of FED-PUB (Baek et al., ICML 2023, section 5.1): one round for all clients,
    chosen by the mean over clients, never by the test metric. Rounds without validation (not evaluated, or
    diverged) do not compete.
    """
    judged = [record for record in rounds if number(record.get("validation")) is not None]
    if not judged:
        return None
    sign = 1 if lower_is_better(str(judged[0].get("metric", "accuracy"))) else -1
    return min(judged, key=lambda record: (sign * record["validation"], record["round"]))


def summarise(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of a run, whole or cut short.

    Args:
        rounds: round records as in `metrics.jsonl`, by round. Their `validation`, `test` and
            `test_as_received` are unweighted means over clients; accuracies are fractions.

    Returns:
        `metric`; `best_round` (see `best_record`); `test_at_best_validation` and
        `test_as_received_at_best_validation`, both at that round; `test_last`, of the last round that was
        evaluated; `rounds`, how many were finished; `bytes_up`, `bytes_down` and (wall-clock) `seconds`,
        summed over them; and `per_client`: `ids`, `test_at_best_validation`,
        `validation_at_best_validation`, three lists of equal length. What cannot be known (no round, none
        evaluated) is None, a sum 0, a list empty.
    """
    best = best_record(rounds) or {}
    clients = best.get("clients") or {}
    tests = [value for record in rounds if (value := number(record.get("test"))) is not None]
    return {
        "metric": next((str(record["metric"]) for record in rounds if "metric" in record), None),
        "test_at_best_validation": number(best.get("test")),
        "test_as_received_at_best_validation": number(best.get("test_as_received")),
        "best_round": best.get("round"),
        "test_last": tests[-1] if tests else None,
        "rounds": len(rounds),
        "bytes_up": sum(int(record.get("bytes_up") or 0) for record in rounds),
        "bytes_down": sum(int(record.get("bytes_down") or 0) for record in rounds),
        "seconds": math.fsum((record.get("seconds") or {}).get("round") or 0.0 for record in rounds),
        "per_client": {
            "ids": list(clients.get("ids") or []),
            "test_at_best_validation": list(clients.get("test") or []),
            "validation_at_best_validation": list(clients.get("validation") or []),
        },
    }


def number(value: Any) -> float | None:
    """`value` when it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
