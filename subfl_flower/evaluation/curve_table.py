"""The table of curves: a line a method, a column a value of the key."""

from collections.abc import Sequence
from pathlib import Path

from subfl_flower.evaluation.curves import Curve, value_text
from subfl_flower.evaluation.table import MISSING, identity, layout, metric_text, write_lines

_FIGURE = "test_at_best_validation"
_REFERENCE = "at any value"


def curve_cells(curves: Sequence[Curve], key: str, collapse: bool) -> tuple[str, list[str], list[list[str]]]:
    """The test metric at the best validation round as text: title, column heads, rows.

    Args:
        curves: result of `build_curves`; references stand in a separate column.
        key: the key of the curves' horizontal axis.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
    """
    values = sorted({value for curve in curves for value in curve.points})
    lines = []
    for curve in curves:
        row = curve.row
        line = {
            **identity(row),
            "seeds": _counts(curve),
        }
        for value in values:
            spread = curve.points[value].spread(_FIGURE) if value in curve.points else None
            line[f"{key} {value_text(value)}"] = metric_text(spread, row.metric)
        line[_REFERENCE] = MISSING if curve.points else metric_text(row.spread(_FIGURE), row.metric)
        line["note"] = _note(curve)
        lines.append(line)
    title, heads, text = layout(lines, {"settings", "note", _REFERENCE}, collapse)
    return f"test at best validation by {key}" + (f": {title}" if title else ""), heads, text


def write_curve_csv(curves: Sequence[Curve], key: str, path: Path) -> None:
    """Write one line a point with plain numbers; the value is empty for a reference, a figure where it is unknown.

    Raises:
        SubflError: `path` cannot be written.
    """
    heads = ["dataset", "partition", "clients", "method", "settings", "metric", key, "runs", "seeds"]
    heads += [f"{_FIGURE}_mean", f"{_FIGURE}_std", "note", "directories"]
    lines = []
    for curve in curves:
        for value, row in curve.points.items() or [(None, curve.row)]:
            seeds = " ".join(str(run.seed) for run in row.counted)
            mean, std = row.spread(_FIGURE) or (None, None)
            line = [*row.data, row.method, row.settings, row.metric, value, len(row.counted), seeds, mean, std]
            lines.append([*line, row.note, " ".join(str(run.path) for run in row.runs)])
    write_lines(heads, lines, path)


def _counts(curve: Curve) -> str:
    counts = sorted({len(row.counted) for row in curve.rows})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"


def _note(curve: Curve) -> str:
    if not curve.points:
        return curve.row.note
    return "; ".join(f"{value_text(value)}: {row.note}" for value, row in curve.points.items() if row.note)
