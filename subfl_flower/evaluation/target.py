"""Cost of runs up to a given share of their final quality: rounds, and bytes up and down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.formats import in_bytes, plain
from subfl_flower.evaluation.rows import Row
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import clients_heard, lower_is_better, number
from subfl_flower.evaluation.table import Column, Table, make_table, means

_FINAL = "test_at_best_validation"
_FIGURES = ("target", "round", "bytes_up", "bytes_down", "bytes_evaluation")


@dataclass(frozen=True)
class Reached:
    """First round in which a run reached the target, and its traffic until then.

    Attributes:
        target: the test metric to reach.
        round: the first evaluated round that reaches it.
        bytes_up: upload up to and including this round, with the exchanges outside of rounds.
        bytes_down: likewise the broadcast for training.
        bytes_evaluation: likewise the broadcast for evaluation, where that is a separate message. None where the
            records, of an older version, lack it; `bytes_down` then includes it.
    """

    target: float
    round: int
    bytes_up: int
    bytes_down: int
    bytes_evaluation: int | None


def reached(run: Run, share: float) -> Reached | None:
    """First round in which the test metric reached a share of its final value; None without a final value.

    The final value is the test metric at the best validation round. An error e, of which less is better, has reached
    the share s at e / s. As for the best round, rounds before every client was evaluated once do not count: their
    means are over fewer clients.

    Args:
        run: the run.
        share: above 0, at most 1.
    """
    final = number(run.figures.get(_FINAL))
    if final is None:
        return None
    target = final / share if lower_is_better(run.metric) else final * share
    sign = -1 if lower_is_better(run.metric) else 1
    judged = [record for record in run.rounds if number(record.get("test")) is not None]
    most = max(map(clients_heard, judged), default=0)
    for record in judged:
        if clients_heard(record) == most and sign * record["test"] >= sign * target:
            return _at(run, target, record["round"])
    return None


def _at(run: Run, target: float, last_round: int) -> Reached:
    """The traffic up to and including a round."""
    records = [record for record in run.rounds if record["round"] <= last_round]
    phases = [phase for phase in run.figures.get("exchanges") or [] if phase.get("round", 1) <= last_round]
    up, down = (sum(int(part.get(way) or 0) for part in (*records, *phases)) for way in ("bytes_up", "bytes_down"))
    told = all("bytes_evaluation" in record for record in records)
    evaluation = sum(int(record["bytes_evaluation"]) for record in records) if told else None
    return Reached(target, last_round, up, down - (evaluation or 0), evaluation)


def check_share(share: float) -> None:
    """Raise SubflError where `share` cannot be a share of a final value."""
    if not 0 < share <= 1:
        raise SubflError(f"--reach {share:g}: must be a share of the final test metric, above 0 and at most 1")


def target_rows(rows: Sequence[Row], share: float) -> list[Row]:
    """The rows with the figures of `Reached` over seeds, in addition to their final test metric.

    Args:
        rows: result of `build_rows`.
        share: share of the final test metric to reach.
    """
    found = []
    for row in rows:
        lines = [asdict(one) if (one := reached(run, share)) else {} for run in row.counted]
        figures = pd.DataFrame(lines, index=row.values.index, columns=list(_FIGURES), dtype="float64")
        if any(line and line["bytes_evaluation"] is None for line in lines):
            figures["bytes_evaluation"] = np.nan
        found.append(replace(row, figures=figures.assign(**{_FINAL: row.values.get(_FINAL)}), compared={}))
    return found


def target_table(rows: Sequence[Row], share: float, collapse: bool) -> Table:
    """Means over seeds as text.

    Args:
        rows: result of `build_rows`.
        share: share of the final test metric to reach.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
    """
    columns = (
        Column("final test", _FINAL),
        Column("target", "target"),
        Column("first round", "round", plain(1, 0)),
        Column("up", "bytes_up", in_bytes),
        Column("down", "bytes_down", in_bytes),
        Column("to evaluate", "bytes_evaluation", in_bytes, optional=True),
    )
    about = f"to {100 * share:g} % of the final test metric, which is that at the best validation round"
    return make_table(target_rows(rows, share), columns, collapse, about)


def target_means(rows: Sequence[Row], share: float) -> pd.DataFrame:
    """One line a row with plain numbers, missing where unknown."""
    return means(target_rows(rows, share), [_FINAL, *_FIGURES], share=share)
