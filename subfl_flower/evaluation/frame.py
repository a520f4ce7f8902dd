"""Everything that runs measured round by round, as one tidy table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd

from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import number

COLUMNS = ("run", "round", "client", "metric", "value")


def metric_frame(runs: Iterable[Run]) -> pd.DataFrame:
    """One line a number of the round records, in the order of the runs and their rounds.

    Args:
        runs: the runs, finished or not.

    Returns:
        A table with the columns `run` (path of the run's folder), `round` (integer), `client` (its id; missing for
        figures of the whole round), `metric` and `value` (float). Metrics have the names of `metrics.jsonl`, such as
        `test`, `validation`, `train_loss` or `bytes_up`, and those of `figures`, such as `test.ndcg@10`; parts of a
        round's time are `seconds.round`, `seconds.client` and so on. Unknown values have no line. Accuracies are
        fractions, sizes bytes.
    """
    frame = pd.DataFrame(_lines(runs), columns=list(COLUMNS))
    return frame.astype({"run": "str", "round": "int64", "client": "Int64", "metric": "str", "value": "float64"})


def _lines(runs: Iterable[Run]) -> Iterator[tuple[str, int, int | None, str, float]]:
    for run in runs:
        path = str(run.path)
        for record in run.rounds:
            for client, metric, value in _numbers(record):
                if number(value) is not None:
                    yield path, record["round"], client, metric, value


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[int | None, str, Any]]:
    """Client, metric and value of all entries of a round record."""
    named = {**record, **(record.get("figures") or {})}
    named |= {f"seconds.{part}": spent for part, spent in (record.get("seconds") or {}).items()}
    del named["round"]
    for metric, value in named.items():
        yield None, metric, value
    clients = record.get("clients") or {}
    for metric, values in clients.items():
        if metric != "ids":
            for client, value in zip(clients["ids"], values, strict=False):
                yield client, metric, value
