"""Checks of a node's reply: it is compared with the request, and nothing in it is trusted.

A node may be under another party's control. A reply that does not answer the question is refused as a whole, in words.
An update that no training can have made is refused for its client alone. Accepted values are finite, so that a strategy
may compute without further checks.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from subfl_flower.models.row_stack import RowStack, concatenated
from subfl_flower.tasks.metric import Metric
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.bundle import scaled, unbundle
from subfl_flower.wire.contract import Contract, arrays_of, rows_of
from subfl_flower.wire.payload import ARRAYS, ArraySpec, unpack
from subfl_flower.wire.ragged import Ragged, RaggedSpec, unpack_ragged

OUTCOME, METRICS = "outcome", "metrics"

LARGEST_VALUE = 1e12
"""Bound of an entry of an update, so that sums of squares in strategies stay within float32."""

_LARGEST_METRIC = 1e100  # so that their mean is finite, too
_LONGEST_REASON = 300
_LONGEST_REPORT = 1 << 16
_SLACK = 1 << 16


@dataclass(frozen=True, eq=False)
class Reply:
    """One node's reply to ``train``.

    Attributes:
        clients: ids of those whose update is accepted, in the order of the rows [A].
        stack: their arrays, each [A, ...], finite.
        ragged: their rows in numbers that differ by client, each of A clients, finite.
        metrics: their figures, each [A], without infinities; NaN where a client has no such figure.
        failures: reasons by client id, reported by the node or found here.
        bytes_per_client: payload bytes [A], counted from the message.
        seconds: of the node's own work.
        startup: seconds that the node's process took to start, 0 where it was running.
    """

    clients: list[int]
    stack: Stack
    ragged: dict[str, Ragged]
    metrics: dict[str, np.ndarray]
    failures: dict[int, str]
    bytes_per_client: np.ndarray
    seconds: float
    startup: float

    def array(self, name: str, spec: ArraySpec) -> np.ndarray:
        """The array sent under a name [A, ...], zeros where it was left out."""
        if name in self.stack:
            return self.stack[name]
        return np.zeros((len(self.clients), *spec.shape), dtype=spec.dtype)

    def rows(self, name: str, spec: RaggedSpec) -> Ragged:
        """The rows sent under a name, of A clients; none where they were left out."""
        if name in self.ragged:
            return self.ragged[name]
        return Ragged(np.zeros((0, *spec.shape), dtype=spec.dtype), np.zeros(len(self.clients), dtype=np.int64))


def read_reply(content: RecordDict, asked: Sequence[int], contract: Contract, server_round: int) -> Reply:
    """Decode a reply to ``train`` or ``evaluate``.

    Args:
        content: of the reply.
        asked: ids of the clients that the node was to train.
        contract: its uploads are required of every client, its metrics are all that a client may have measured.
        server_round: the round that the node was asked for.

    Raises:
        ValueError: the whole reply is unusable.
    """
    outcome, clients, failures = read_outcome(content, asked)
    if (answered := outcome.get("round")) != server_round:
        raise ValueError(f"its update is of round {answered!r}, not {server_round}")
    seconds, startup = _duration(outcome, "seconds"), _duration(outcome, "startup", 0.0)
    if not clients:
        return Reply([], {}, {}, {}, failures, np.zeros(0, dtype=np.int64), seconds, startup)
    metrics = _metrics(content, len(clients), contract.metrics)
    expected = arrays_of(contract.uploads)
    largest = math.ceil(1.1 * len(asked) * sum(spec.nbytes for spec in expected.values())) + _SLACK
    share = unbundle(content, largest + len(asked) * sum(spec.nbytes for spec in rows_of(contract.uploads).values()))
    _check_size(content, largest, len(asked))
    stack, sizes = unpack(content, expected, num_clients=len(clients), largest=largest)
    ragged = unpack_ragged(content, rows_of(contract.uploads), len(clients))
    sizes = scaled(sum((rows.bytes_per_client for rows in ragged.values()), start=sizes), share)
    faults = {
        **_faults_of_metrics(metrics, contract.metrics),
        **_faults_of_updates(stack, expected),
        **_faults_of_rows(ragged),
    }
    if faults:
        failures.update({clients[row]: fault for row, fault in faults.items()})
        good = [row for row in range(len(clients)) if row not in faults]
        clients, sizes = [clients[row] for row in good], sizes[good]
        stack = {name: values[good] for name, values in stack.items()}
        ragged = {name: rows.take(good) for name, rows in ragged.items()}
        metrics = {name: values[good] for name, values in metrics.items()}
    return Reply(clients, stack, ragged, metrics, failures, sizes, seconds, startup)


def combine(replies: Sequence[Reply], contract: Contract) -> Reply:
    """The replies of all nodes as one: clients ascending, the seconds those of the slowest node.

    For clients that left out optional entries, an array is zeros, a metric is NaN, and there are no rows.
    """
    failures = {client: reason for reply in replies for client, reason in reply.failures.items()}
    parts = [reply for reply in replies if reply.clients]
    if not parts:
        return Reply([], {}, {}, {}, failures, np.zeros(0, dtype=np.int64), 0.0, 0.0)
    clients = [client for part in parts for client in part.clients]
    order = np.argsort(clients)
    ascending = bool((order[:-1] < order[1:]).all())

    def joined(values: Sequence[np.ndarray]) -> np.ndarray:
        together: np.ndarray = concatenated(values)
        return together if ascending else together[order]

    slowest = max(parts, key=lambda part: part.startup + part.seconds)
    return Reply(
        clients=sorted(clients),
        stack={
            name: joined([part.array(name, spec) for part in parts])
            for name, spec in arrays_of(contract.uploads).items()
            if any(name in part.stack for part in parts)
        },
        ragged={
            name: rows if ascending else rows.take(order)
            for name, spec in rows_of(contract.uploads).items()
            if any(name in part.ragged for part in parts)
            for rows in [Ragged.joined([part.rows(name, spec) for part in parts])]
        },
        metrics={
            name: joined([part.metrics.get(name, np.full(len(part.clients), np.nan)) for part in parts])
            for name in dict.fromkeys(name for part in parts for name in part.metrics)
        },
        failures=failures,
        bytes_per_client=joined([part.bytes_per_client for part in parts]),
        seconds=slowest.seconds,
        startup=slowest.startup,
    )


def read_outcome(content: RecordDict, asked: Sequence[int]) -> tuple[ConfigRecord, list[int], dict[int, str]]:
    """A reply's record of its outcome, ids of clients that succeeded, and reasons by id for all others that were asked.

    Raises:
        ValueError: there is no such record, or it does not name the clients that were asked, each once.
    """
    if OUTCOME not in content.config_records:
        raise ValueError(f"it has no record {OUTCOME!r}")
    outcome = content.config_records[OUTCOME]
    clients: Any = outcome.get("clients")
    if not isinstance(clients, list) or not all(type(client) is int for client in clients):
        raise ValueError("it does not say which clients it answers for")
    failures = _failures(outcome.get("failures"), len(asked))
    if foreign := {*clients, *failures} - set(asked):
        raise ValueError(f"it answers for client {min(foreign)}, which it was not asked for")
    if len(set(clients)) < len(clients):
        raise ValueError(f"it answers for client {Counter(clients).most_common(1)[0][0]} twice")
    if both := failures.keys() & set(clients):
        raise ValueError(f"it says of client {min(both)} both that it failed and that it did not")
    answered = set(clients)
    for client in asked:
        if client not in answered:
            failures.setdefault(client, "it is missing in its node's reply")
    return outcome, clients, failures


def one_line(text: str) -> str:
    """A node's message as one line of at most 300 characters that can be printed and stored."""
    plain = "".join(character if character.isprintable() else " " for character in text[: 4 * _LONGEST_REASON])
    words = " ".join(plain.split())
    return words if len(words) <= _LONGEST_REASON else words[: _LONGEST_REASON - 3] + "..."


def _failures(report: Any, num_asked: int) -> dict[int, str]:
    """Reasons by client id, from JSON."""
    if not isinstance(report, str) or len(report) > _LONGEST_REPORT * (1 + num_asked):
        raise ValueError("it does not say in JSON of a moderate length why clients failed")
    try:
        reasons = json.loads(report)
    except (ValueError, RecursionError):
        raise ValueError("its reasons why clients failed are no JSON") from None
    if not isinstance(reasons, dict) or not all(isinstance(reason, str) for reason in reasons.values()):
        raise ValueError("its reasons why clients failed are not texts by client id")
    if unknown := [key for key in reasons if not (key.isascii() and key.isdigit() and len(key) < 19)]:
        raise ValueError(f"its reasons why clients failed speak of a client {unknown[0]!r}")
    return {int(client): one_line(reason) or "it gives no reason" for client, reason in reasons.items()}


def _duration(outcome: ConfigRecord, key: str, default: float | None = None) -> float:
    value = outcome.get(key, default)
    if not isinstance(value, int | float) or not 0 <= value <= _LARGEST_METRIC:
        raise ValueError(f"its {key} must be a number of seconds, not {value!r}")
    return float(value)


def _metrics(content: RecordDict, num_clients: int, declared: Mapping[str, Metric]) -> dict[str, np.ndarray]:
    if METRICS not in content.metric_records:
        raise ValueError(f"it has no record {METRICS!r}")
    record = content.metric_records[METRICS]
    if unknown := sorted(set(record) - set(declared)):
        raise ValueError(f"it holds the metric {one_line(unknown[0])!r}, which this method does not have")
    if missing := sorted(name for name, metric in declared.items() if metric.needed and name not in record):
        raise ValueError(f"it lacks the metric {missing[0]}")
    metrics = {}
    for name, values in record.items():
        if not isinstance(values, list) or len(values) != num_clients:
            raise ValueError(f"its metric {name} is not a list of {num_clients} numbers, one for each client")
        try:
            metrics[name] = np.array(values, dtype=float)
        except OverflowError:
            raise ValueError(f"its metric {name} holds a number that is too large") from None
    return metrics


def _faults_of_metrics(metrics: Mapping[str, np.ndarray], declared: Mapping[str, Metric]) -> dict[int, str]:
    """Reasons by row, for clients with impossible figures."""
    faults = {}
    for name, values in metrics.items():
        wrong = np.flatnonzero(~declared[name].allows(values)).tolist()
        faults.update(
            {row: one_line(f"its {name} is {values[row]:.12g}, and must be {declared[name]}") for row in wrong}
        )
    return faults


def _faults_of_updates(stack: Stack, expected: Mapping[str, ArraySpec]) -> dict[int, str]:
    """Reasons by row, for clients whose update has values that no training gives."""
    faults = {}
    for name, values in stack.items():
        if not expected[name].bounded:
            continue
        shared = not isinstance(values, RowStack) and values.strides[0] == 0
        if _all_small(values[:1] if shared else values):
            continue
        low, high = _range(values[:1] if shared else values)
        sound = np.broadcast_to((low >= -LARGEST_VALUE) & (high <= LARGEST_VALUE), len(values))  # NaN compares as false
        for row in np.flatnonzero(~sound).tolist():
            extremes = np.array([low[0 if shared else row], high[0 if shared else row]])
            finite = np.isfinite(extremes).all()
            problem = f"larger than {LARGEST_VALUE:g}" if finite else "not finite"
            faults[row] = f"its update of {name} is {problem}"
    return faults


def _faults_of_rows(ragged: Mapping[str, Ragged]) -> dict[int, str]:
    """Reasons by client, for clients whose rows have values that no training gives."""
    faults: dict[int, str] = {}
    for name, rows in ragged.items():
        flat = rows.values.reshape(len(rows.values), -1)
        with np.errstate(invalid="ignore"):  # NaN is the smallest and the largest, and compares as false
            low, high = flat.min(axis=1, initial=0), flat.max(axis=1, initial=0)
        sound = (low >= -LARGEST_VALUE) & (high <= LARGEST_VALUE)
        for client in np.unique(rows.owners[~sound]).tolist():
            problem = f"larger than {LARGEST_VALUE:g}" if np.isfinite(rows.of(client)).all() else "not finite"
            faults[client] = f"its update of {name} is {problem}"
    return faults


def _all_small(values: np.ndarray) -> bool:
    """True where sums of squares show that no value is near the bound; False says nothing.

    A sum of squares reads its values once, where the smallest and the largest read them twice.
    """
    if values.dtype != np.float32:
        return False
    rows = [values.values] if isinstance(values, RowStack) else values
    with np.errstate(over="ignore", invalid="ignore"):  # infinite, or NaN, which compares as false
        return all(np.vdot(row, row) < LARGEST_VALUE**2 / 2 for row in rows)


def _range(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest value of every row, float64 [rows]."""
    if isinstance(values, RowStack):
        parts = [values.part(client)[1] for client in range(len(values))]
        with np.errstate(invalid="ignore"):
            low, high = np.array([(part.min(initial=0), part.max(initial=0)) for part in parts], dtype=float).T
        return low, high
    if not values.size:
        return np.zeros(len(values)), np.zeros(len(values))
    flat = values.reshape(len(values), -1)
    with np.errstate(invalid="ignore"):
        # Row by row, so that a row is still in the cache when it is read again.
        low, high = np.array([(row.min(), row.max()) for row in flat], dtype=float).T
    return low, high


def _check_size(content: RecordDict, largest: int | None, num_asked: int) -> None:
    if ARRAYS not in content.array_records:
        raise ValueError(f"it has no record {ARRAYS!r}")
    size = sum(len(array.data) for array in content.array_records[ARRAYS].values())
    if largest is not None and size > largest:
        whose = "a client's update" if num_asked == 1 else f"{num_asked} clients' updates"
        raise ValueError(f"it is {size / largest:.3g} times as large as {whose} can be")
