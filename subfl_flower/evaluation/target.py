"""Cost of runs up to a given share of their final quality: rounds, and bytes up and down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import Row, Spread
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import clients_heard, lower_is_better, number
from subfl_flower.evaluation.table import human_bytes, identity, layout, metric_text, spread_text, write_lines

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


def target_cells(rows: Sequence[Row], share: float, collapse: bool) -> tuple[str, list[str], list[list[str]]]:
    """Means over seeds as text: title, column heads, rows.

    Args:
        rows: result of `build_rows`.
        share: share of the final test metric to reach.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
    """
    lines = []
    for row in rows:
        found = _spreads(row, share)
        lines.append(
            {
                **identity(row),
                "seeds": str(len(row.counted)),
                "final test": metric_text(row.spread(_FINAL), row.metric),
                "target": metric_text(found["target"], row.metric),
                "first round": spread_text(found["round"], 1.0, 0),
                "up": human_bytes(found["bytes_up"]),
                "down": human_bytes(found["bytes_down"]),
                "to evaluate": human_bytes(found["bytes_evaluation"]),
                "note": row.note,
            }
        )
    title, heads, text = layout(lines, {"settings", "note", "to evaluate"}, collapse)
    about = f"to {100 * share:g} % of the final test metric, which is that at the best validation round"
    return about + (f": {title}" if title else ""), heads, text


def write_target_csv(rows: Sequence[Row], share: float, path: Path) -> None:
    """Write one line a row with plain numbers, empty where unknown.

    Raises:
        SubflError: `path` cannot be written.
    """
    heads = ["dataset", "partition", "clients", "method", "settings", "metric", "share", "runs", "seeds"]
    heads += [f"{name}_{part}" for name in (_FINAL, *_FIGURES) for part in ("mean", "std")]
    lines: list[list[Any]] = []
    for row in rows:
        seeds = " ".join(str(run.seed) for run in row.counted)
        line = [*row.data, row.method, row.settings, row.metric, share, len(row.counted), seeds]
        for spread in (row.spread(_FINAL), *_spreads(row, share).values()):
            line += spread or (None, None)
        lines.append([*line, row.note, " ".join(str(run.path) for run in row.runs)])
    write_lines([*heads, "note", "directories"], lines, path)


def _spreads(row: Row, share: float) -> Mapping[str, Spread | None]:
    """Mean and deviation over seeds of each figure; without evaluation bytes where a run does not record them."""
    found = [reached(run, share) for run in row.counted]
    spreads = {name: Spread.of(None if one is None else getattr(one, name) for one in found) for name in _FIGURES}
    if any(one is not None and one.bytes_evaluation is None for one in found):
        spreads["bytes_evaluation"] = None
    return spreads
