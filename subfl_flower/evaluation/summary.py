"""The main figures of a run, computed from its round records."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

GUARDED = ("clipped", "excluded")
"""Flags of a round's updates: scaled back to the usual length by the server, or left out of the averages."""

LOWER_IS_BETTER = frozenset({"rmse", "mae", "mse", "loss"})


def lower_is_better(metric: str) -> bool:
    """True if a smaller value of `metric` is better (errors), unlike accuracy, AUC or hit rate."""
    return metric.lower() in LOWER_IS_BETTER


def best_record(rounds: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The record of the round with the best mean validation metric, the earliest of equals; None without one.

    This is the model selection of FED-PUB (Baek et al., ICML 2023, section 5.1): one round for all clients,
    chosen by the mean over clients, never by the test metric. Rounds without validation (not evaluated, or
    diverged) do not compete. With partial participation, rounds before every client was evaluated once do not compete
    either: a mean over a few easy clients would beat every mean over all of them.
    """
    judged = [record for record in rounds if number(record.get("validation")) is not None]
    if not judged:
        return None
    most = max(map(clients_heard, judged))
    sign = 1 if lower_is_better(str(judged[0].get("metric", "accuracy"))) else -1
    return min(
        (record for record in judged if clients_heard(record) == most),
        key=lambda record: (sign * record["validation"], record["round"]),
    )


def clients_heard(record: Mapping[str, Any]) -> int:
    """Number of clients evaluated at least once up to this round; the record's means are over these."""
    heard = record.get("clients_heard")
    return len((record.get("clients") or {}).get("ids") or []) if heard is None else int(heard)


def last_known(rounds: Sequence[Mapping[str, Any]], key: str) -> dict[int, Any]:
    """Every client's latest value in these rounds, by ascending id.

    Args:
        rounds: round records, by round. A client that a record does not list keeps its earlier value.
        key: a list of a record's `clients`, such as `test`. None in it (nothing to evaluate on, or diverged)
            is an evaluation like any other.
    """
    found: dict[int, Any] = {}
    for record in rounds:
        clients = record.get("clients") or {}
        found.update(zip(clients.get("ids") or [], clients.get(key) or [], strict=False))
    return dict(sorted(found.items()))


def worst_client(tests: Mapping[int, Any], metric: str) -> dict[str, Any] | None:
    """The client with the worst test metric; among equals the lowest id.

    Args:
        tests: test metric by client id, None where a client has no test examples.
        metric: the metric's name, which determines if the smallest or the largest value is the worst.

    Returns:
        `client`, its id, and `test`, its value; None where no client has a value.
    """
    known = {client: value for client, value in sorted(tests.items()) if number(value) is not None}
    if not known:
        return None
    client = (max if lower_is_better(metric) else min)(known, key=known.__getitem__)
    return {"client": client, "test": known[client]}


def tenth_percentile(tests: Mapping[int, Any], metric: str) -> float | None:
    """The test figure that about nine of ten clients reach: the tenth percentile, of errors the ninetieth.

    Between the two nearest clients it is interpolated linearly: of K values, sorted from the worst, it lies (K - 1)/10
    places after the first (NumPy's default; type 7 of Hyndman and Fan, The American Statistician, 1996). So it is the
    only value of one client, and 9/10 of the worse and 1/10 of the better value of two.

    Args:
        tests: as for `worst_client`.
        metric: as for `worst_client`.

    Returns:
        None where no client has a value.
    """
    known = [value for found in tests.values() if (value := number(found)) is not None]
    return float(np.percentile(known, 90 if lower_is_better(metric) else 10)) if known else None


def summarise(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of a run, whole or cut short.

    Args:
        rounds: round records as in `metrics.jsonl`, by round. Their `validation`, `test` and
            `test_as_received` are unweighted means over the clients evaluated so far; accuracies are fractions.

    Returns:
        `metric`; `best_round` (see `best_record`) and `best_validation`, its figure; `test_at_best_validation` and
        `test_as_received_at_best_validation`, both at that round; `figures`, further figures of that round, by
        names such as `test.ndcg@10`; `worst_client`, that of the lowest accuracy or the largest error at that round,
        see `worst_client`; `tenth_percentile`, see there; `test_last`, of the last round that was evaluated; `rounds`,
        the number of finished rounds; `bytes_up`, `bytes_down` and (wall-clock) `seconds`, summed over them; and
        `per_client`: `ids` (ascending), `test_at_best_validation`, `validation_at_best_validation`, three lists of
        equal length, of a client that was absent from the best round its last known values; and `guarded`, for each of
        `GUARDED` that happened, in how many rounds it did, by client id as text. An unknown value (no round, none
        evaluated, nothing else measured) is None, an unknown sum 0, an unknown list empty.
    """
    best = best_record(rounds) or {}
    reached = [record for record in rounds if best and record["round"] <= best["round"]]
    test, validation = last_known(reached, "test"), last_known(reached, "validation")
    ids = sorted(test | validation)
    tests = [value for record in rounds if (value := number(record.get("test"))) is not None]
    metric = next((str(record["metric"]) for record in rounds if "metric" in record), None)
    return {
        "metric": metric,
        "test_at_best_validation": number(best.get("test")),
        "test_as_received_at_best_validation": number(best.get("test_as_received")),
        "best_round": best.get("round"),
        "best_validation": number(best.get("validation")),
        "figures": best.get("figures"),
        "worst_client": worst_client(test, metric or "accuracy"),
        "tenth_percentile": tenth_percentile(test, metric or "accuracy"),
        "test_last": tests[-1] if tests else None,
        "rounds": len(rounds),
        "bytes_up": sum(int(record.get("bytes_up") or 0) for record in rounds),
        "bytes_down": sum(int(record.get("bytes_down") or 0) for record in rounds),
        "seconds": math.fsum((record.get("seconds") or {}).get("round") or 0.0 for record in rounds),
        "per_client": {
            "ids": ids,
            "test_at_best_validation": [number(test.get(client)) for client in ids],
            "validation_at_best_validation": [number(validation.get(client)) for client in ids],
        },
        "guarded": guarded(rounds),
    }


def guarded(rounds: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Number of rounds in which each client's update was ``clipped`` or ``excluded`` by the server, where any was."""
    found: dict[str, dict[str, int]] = {}
    for kind in GUARDED:
        times: Counter[str] = Counter()
        for record in rounds:
            clients = record.get("clients") or {}
            flags = zip(clients.get("ids") or [], clients.get(kind) or [], strict=False)
            times.update(str(client) for client, flag in flags if flag)
        if times:
            found[kind] = dict(sorted(times.items(), key=lambda item: int(item[0])))
    return found


def exchanged(phases: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Bytes `up` and `down` of all phases outside of rounds, from their log in `summary.json` under `exchanges`."""
    return {way: sum(int(phase[f"bytes_{way}"]) for phase in phases) for way in ("up", "down")}


def number(value: Any) -> float | None:
    """`value` when it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
