"""Runs as curves over one configuration key: for each method the test metric at each of the key's values."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pandas as pd

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.formats import digits, scale
from subfl_flower.evaluation.rows import CLIENTS, Row, flatten, group_runs, privacy_losses, setting_text
from subfl_flower.evaluation.runs import RESULT, Run
from subfl_flower.evaluation.summary import number
from subfl_flower.evaluation.table import Column, Table, make_table, means

_REFERENCE = "at any value"

_WIDE = 50.0


@dataclass(frozen=True)
class Curve:
    """A method on the same data with the same other settings.

    `points` holds the row of the runs with each value of the key, in ascending order. It is empty where the method has
    no such key, or a word instead of a number: `row` is then a reference that holds at any value.
    """

    row: Row
    points: Mapping[float, Row]

    @property
    def rows(self) -> list[Row]:
        """The rows whose figures the curve shows."""
        return list(self.points.values()) or [self.row]


@dataclass(frozen=True)
class Crossing:
    """Where a curve meets a reference.

    Attributes:
        curve: label of the curve's row.
        reference: label of the reference's row.
        level: the reference's figure as it is shown, with decimals of its metric.
        value: the key's value there, by a straight line between the neighbouring points; on a logarithmic scale where
            `is_wide` says so.
        between: the values of the neighbouring points.
    """

    curve: str
    reference: str
    level: str
    value: float
    between: tuple[float, float]

    def text(self, key: str) -> str:
        """A sentence."""
        low, high = map(value_text, self.between)
        return (
            f"{self.curve} meets {self.reference} ({self.level}) near {key} {self.value:.3g}, by a line between the "
            f"points at {low} and {high}"
        )


def is_wide(values: Sequence[float]) -> bool:
    """True for ascending values that suit a logarithmic axis."""
    return values[0] > 0 and values[-1] >= _WIDE * values[0]


def crossings(curves: Sequence[Curve]) -> list[Crossing]:
    """Where the mean figures of curves meet those of the references on the same data."""
    found = []
    references = [curve for curve in curves if not curve.points]
    for curve in curves:
        for reference in references:
            figure, row = curve.row.judged_by, reference.row
            level = row.mean(figure)
            if level is None or row.panel != curve.row.panel or row.judged_by != figure:
                continue
            shown = f"{scale(row.metric) * level:.{digits(row.metric)}f}"
            for value, between in _meetings(curve, figure, level):
                found.append(Crossing(curve.row.label, row.label, shown, value, between))
    return found


def _meetings(curve: Curve, figure: str, level: float) -> list[tuple[float, tuple[float, float]]]:
    """Values at which a curve reaches a level, each with those of the neighbouring points."""
    gaps = [(value, mean - level) for value, row in curve.points.items() if (mean := row.mean(figure)) is not None]
    gaps = [(value, gap) for value, gap in gaps if math.isfinite(value) and math.isfinite(gap)]
    if not gaps:
        return []
    log = is_wide([value for value, _ in gaps])
    found = []
    for (low, below), (high, above) in pairwise(gaps):
        if (below < 0) != (above < 0):
            share = below / (below - above)
            value = low * (high / low) ** share if log else low + share * (high - low)
            found.append((value, (low, high)))
    return found


def value_text(value: float) -> str:
    """A value of the key as it is shown."""
    return f"{value:.12g}"


def build_curves(runs: Sequence[Run], key: str) -> list[Curve]:
    """Group runs into curves, in the order of the runs, a method's references after its curve.

    Args:
        runs: runs that differ in the key, and perhaps in other settings.
        key: a dotted key of their configurations, such as `partition.rate`.

    Raises:
        SubflError: no run has the key, or none has a number there.
    """
    settings = {run.path: {**flatten(run.config), CLIENTS: run.clients, **privacy_losses(run)} for run in runs}
    _check(list(settings.values()), key)
    curves = []
    for row in group_runs(runs, along=key):
        points: dict[float, list[Run]] = {}
        words: dict[str, list[Run]] = {}
        for run in row.runs:
            value = number(settings[run.path].get(key))
            if value is not None:
                points.setdefault(value, []).append(run)
            else:
                words.setdefault(setting_text(settings[run.path], key), []).append(run)
        if points:
            curves.append(Curve(row, {value: row.part(points[value]) for value in sorted(points)}))
        for word, of_word in words.items():
            reference = row.part(of_word)
            if points or key in settings[of_word[0].path]:
                reference.settings = ", ".join(filter(None, (row.settings, f"{key}={word}")))
            curves.append(Curve(reference, {}))
    return curves


def curve_table(curves: Sequence[Curve], key: str, collapse: bool) -> Table:
    """The test metric at the best validation round: a line a method, a column a value of the key.

    Of runs that record no test it is the validation metric of that round.

    Args:
        curves: result of `build_curves`; references stand in a separate column.
        key: the key of the curves' horizontal axis.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
    """
    heads = {value: f"{key} {value_text(value)}" for value in sorted({v for curve in curves for v in curve.points})}
    rows = []
    for curve in curves:
        found = {heads[value]: row.spread(row.judged_by) for value, row in curve.points.items()}
        found[_REFERENCE] = None if curve.points else curve.row.spread(curve.row.judged_by)
        rows.append(replace(curve.row, compared={head: spread for head, spread in found.items() if spread}))
    columns = [Column(head, head) for head in heads.values()] + [Column(_REFERENCE, _REFERENCE, optional=True)]
    table = make_table(
        rows,
        columns,
        collapse,
        f"{_word(curves)} by {key}",
        seeds=[_counts(curve) for curve in curves],
        note=[_note(curve, curves) for curve in curves],
    )
    return replace(table, whole=tuple(all(row.completed for row in curve.rows) for curve in curves))


def curve_means(curves: Sequence[Curve], key: str) -> pd.DataFrame:
    """One line a point with plain numbers; the value is missing for a reference, a figure where it is unknown."""
    points: list[tuple[float | None, Row]] = []
    for curve in curves:
        points += curve.points.items() or [(None, curve.row)]
    rows = [row for _, row in points]
    figures = list(dict.fromkeys([RESULT, *(row.judged_by for row in rows)]))
    return means(rows, figures, **{key: [value for value, _ in points]})


def _word(curves: Sequence[Curve]) -> str:
    """The figure that curves show."""
    tested = any(row.judged_by == RESULT for curve in curves for row in curve.rows)
    return "test at best validation" if tested else "validation (no test recorded)"


def _counts(curve: Curve) -> str:
    counts = sorted({len(row.counted) for row in curve.rows})
    return "–".join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))


def _note(curve: Curve, curves: Sequence[Curve]) -> str:
    if not curve.points:
        return curve.row.note
    notes = [f"{value_text(value)}: {row.note}" for value, row in curve.points.items() if row.note]
    met = [each for each in crossings(curves) if each.curve == curve.row.label]
    return "; ".join([*notes, *(f"meets {each.reference} near {each.value:.3g}" for each in met)])


def _check(settings: Sequence[Mapping[str, Any]], key: str) -> None:
    found = [flat[key] for flat in settings if key in flat]
    if any(number(value) is not None for value in found):
        return
    keys = dict.fromkeys(name for flat in settings for name in flat if name != "seed")
    numeric = [
        name for name in keys if len({flat.get(name) for flat in settings if number(flat.get(name)) is not None}) > 1
    ]
    allowed = f"those whose numbers differ between these runs are {', '.join(numeric) or 'none'}"
    if not found:
        raise SubflError(f"--curve {key}: no run's configuration has this key; {allowed}")
    words = ", ".join(dict.fromkeys(setting_text(flat, key) for flat in settings if key in flat))
    raise SubflError(f"--curve {key}: a curve needs a key with numbers, and this one's values are {words}; {allowed}")
