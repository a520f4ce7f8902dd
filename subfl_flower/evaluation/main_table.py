"""The main table of a report: result, floors, what the mean hides, privacy, rounds, bytes and time."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from subfl_flower.evaluation.formats import MISSING, in_bytes, in_own_unit, in_unit_of, plain
from subfl_flower.evaluation.rows import BYTES_OF_SKIPPING, RELATIVE_BYTES, Row, Spread
from subfl_flower.evaluation.runs import FLOORS, MODES, RESULT, SUMMARY_FIGURES, VALIDATION
from subfl_flower.evaluation.summary import number
from subfl_flower.evaluation.table import Column, Table, make_table, means

_MAJORITY, _MACRO_F1, _BALANCED = "test.majority", "test.macro_f1", "test.balanced_accuracy"
_CLASS_FIGURES = (_MAJORITY, _MACRO_F1, _BALANCED, "test.one_class")
_TENTH = "tenth_percentile"
_WORTH = ("worst_client", _TENTH, *MODES, "bias_row", "popularity", "user_level_epsilon", "update_cosine")
_ASKED = {
    "test.accuracy": "accuracy",
    "test.roc_auc": "ROC-AUC",
    "test.average_precision": "average precision",
    "test.calibration_error": "calibration error",
}
_MEASURES = {"hr": "HR", "ndcg": "NDCG", "full_hr": "full HR"}


def main_table(rows: Sequence[Row], collapse: bool, differences: Sequence[Column] = ()) -> Table:
    """The main table.

    Args:
        rows: result of `build_rows`.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
        differences: further columns after the result.
    """
    further = [Column(head, figure, in_unit_of(figure), rated=True) for figure, head in _further(rows).items()]
    columns = (
        *result_columns(rows),
        *differences,
        Column("as received", "test_as_received_at_best_validation", optional=True, rated=True),
        *further,
        *_floors(rows),
        Column("macro-F1 (balanced accuracy)", _MACRO_F1, _with_balanced, optional=True, rated=True),
        *(Column(head, figure, in_unit_of(figure), rated="error" not in head) for figure, head in _asked(rows).items()),
        _worst_client(rows),
        *(Column(mode.replace("_", " "), mode, optional=True, rated=True) for mode in MODES),
        Column("user-level epsilon", "user_level_epsilon", _epsilon, optional=True),
        Column("cosine with the true update", "update_cosine", plain(1, 3), optional=True),
        Column("best round", "best_round", plain(1, 0)),
        Column("model size", "model_bytes", _model_size, optional=True),
        Column("up", "bytes_up", in_bytes),
        Column("down", "bytes_down", in_bytes),
        Column("exchanged", "bytes_exchanged", _exchanged, optional=True),
        Column("bytes vs FedAvg", RELATIVE_BYTES, lambda found, _: f"{100 * found.mean:.1f} %", optional=True),
        Column("vs FedAvg that skips", BYTES_OF_SKIPPING, lambda found, _: f"{100 * found.mean:.1f} %", optional=True),
        Column("s / round", "seconds_per_round", lambda found, _: f"{found.mean:.3g}"),
    )
    table = make_table(rows, columns, collapse)
    return _separated(table, rows, differences) if differences else table


def _separated(table: Table, rows: Sequence[Row], differences: Sequence[Column]) -> Table:
    """The table, of whose best results those are marked that an interval separates from the best other method's."""
    results, to_best = {column.head for column in result_columns(rows)}, differences[-1]
    heads = {column.head for column in differences}
    best = {
        (line, head)
        for line, head in table.best
        if head in heads or (head in results and to_best.stands_out(rows[line]))
    }
    return replace(table, best=frozenset(best))


def result_columns(rows: Sequence[Row]) -> list[Column]:
    """The main figure: of tests, of runs without test figures of validation, where there are both kinds both."""
    figures = dict.fromkeys(row.judged_by for row in rows)
    heads = {RESULT: "test at best validation", VALIDATION: "validation, no test"}
    return [Column(heads[figure], figure, rated=True) for figure in heads if figure in figures]


def main_means(rows: Sequence[Row]) -> pd.DataFrame:
    """The main table as plain numbers: fractions, bytes, seconds; missing where unknown."""
    worth = [name for name in (*_CLASS_FIGURES, *_ASKED, *_WORTH) if any(row.spread(name) for row in rows)]
    alone = ["model_bytes", "weights_kept", "bytes_exchanged", RELATIVE_BYTES, BYTES_OF_SKIPPING, "seconds_per_round"]
    found = means(rows, [*SUMMARY_FIGURES, *_further(rows), *worth, *alone])
    found.insert(
        list(found).index("seeds") + 1, "status", [" ".join(sorted({run.status for run in row.runs})) for row in rows]
    )
    without_std = found.drop(columns=[f"{name}_std" for name in alone])
    return without_std.rename(columns={f"{name}_mean": name for name in alone})


def by_seed(rows: Sequence[Row]) -> pd.DataFrame:
    """All figures of all counted runs in long form: a line a run and figure.

    Columns: dataset, partition, clients, method, settings, metric, seed, status, run, figure, value. Fractions, bytes
    and seconds are as in `main_means`; unknown values have no line, and an unbounded privacy loss is `inf`.
    """
    lines = [
        (*row.data, row.method, row.settings, row.metric, run.seed, run.status, str(run.path), figure, value)
        for row in rows
        for run in row.counted
        for figure, value in run.values.items()
        if value is not None
    ]
    heads = ["dataset", "partition", "clients", "method", "settings", "metric", "seed", "status", "run"]
    return pd.DataFrame(lines, columns=[*heads, "figure", "value"])


def _floors(rows: Sequence[Row]) -> list[Column]:
    """The floor's column, under its name where it is the same for all rows."""
    names = dict.fromkeys(filter(None, map(_floor_name, rows)))
    if len(names) < 2:
        return [Column(name, "floor") for name in names]
    return [Column("floor", "floor", lambda found, row: f"{in_own_unit(found, row)} ({_floor_name(row)})")]


def _floor_name(row: Row) -> str | None:
    floors = row.counted[0].floors if row.counted else []
    return next((FLOORS[figure] for figure in floors if row.spread(figure)), None)


def _with_balanced(found: Spread, row: Row) -> str:
    balanced = row.spread(_BALANCED)
    text = in_unit_of(_MACRO_F1)
    return f"{text(found, row)} ({text(balanced, row) if balanced else MISSING})"


def _worst_client(rows: Sequence[Row]) -> Column:
    """The worst client's figure, in brackets the tenth percentile over clients where any row has it."""
    if not any(row.spread(_TENTH) for row in rows):
        return Column("worst client", "worst_client", optional=True, rated=True)
    return Column("worst client (p10)", "worst_client", _with_tenth, optional=True, rated=True)


def _with_tenth(found: Spread, row: Row) -> str:
    tenth = row.spread(_TENTH)
    return f"{in_own_unit(found, row)} ({in_own_unit(tenth._replace(std=None), row) if tenth else MISSING})"


def _epsilon(found: Spread, row: Row) -> str:
    """The user-level epsilon, with its delta where all runs have the same one above 0."""
    if math.isinf(found.mean):
        return "no bound"
    text = f"{found.mean:.4g}" if found.std is None else f"{found.mean:.4g} ± {found.std:.2g}"
    deltas = {number(run.figures["privacy"].get("delta")) for run in row.counted}
    delta = deltas.pop()
    return text if deltas or not delta else f"{text} (delta {delta:g})"


def _model_size(found: Spread, row: Row) -> str:
    """Bytes of a client's model, and the share of its weights that remain after pruning."""
    kept = row.mean("weights_kept")
    return in_bytes(found, row) + (f" ({100 * kept:.0f} % kept)" if kept is not None else "")


def _exchanged(found: Spread, row: Row) -> str:
    """Bytes exchanged outside of rounds, if any."""
    return in_bytes(found, row) if found.mean else MISSING


def _asked(rows: Sequence[Row]) -> dict[str, str]:
    """Further measures of classifiers that some rows have, with their column heads."""
    return {figure: head for figure, head in _ASKED.items() if any(row.spread(figure) for row in rows)}


def _further(rows: Sequence[Row]) -> dict[str, str]:
    """Further ranking figures that the rows have, at the metrics' cutoffs, with their column heads."""
    metrics = {row.metric for row in rows}
    found: dict[str, str] = {}
    for cutoff in dict.fromkeys(row.metric.partition("@")[2] for row in rows if "@" in row.metric):
        found |= {f"test.{name}@{cutoff}": f"{head}@{cutoff}" for name, head in _MEASURES.items()}
    return {
        figure: head
        for figure, head in found.items()
        if metrics != {figure.removeprefix("test.")} and any(row.spread(figure) for row in rows)
    }
