r"""Paired differences of methods over the splits and seeds that they share, with intervals.

Runs of one split share a test set, so that their differences are not independent: more seeds say more about training,
and nothing about other test examples. Where there are three splits or more, the seeds of each are therefore averaged
first, and the interval is over splits. With fewer splits it is over seeds, and holds for these test examples alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd
from scipy import stats

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.formats import MISSING, digits, scale
from subfl_flower.evaluation.rows import Row, nearest_row
from subfl_flower.evaluation.runs import RESULT
from subfl_flower.evaluation.summary import lower_is_better
from subfl_flower.evaluation.table import Column

_LEVEL = 0.95
_FEWEST_SPLITS = 3


class Difference(NamedTuple):
    """Mean of one method's figure minus another's, and its 95 % interval (None for a single unit).

    Attributes:
        other: label of the other row.
        runs: pairs of runs of the same split and seed.
        units: number of values that the interval is of.
        over: ``splits`` or ``seeds``, the kind of these values.
        mean: of the units.
        interval: None for a single one.
    """

    other: str
    runs: int
    units: int
    over: str
    mean: float
    interval: tuple[float, float] | None

    @property
    def separates(self) -> bool:
        """True where the interval does not hold zero."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


def paired_difference(row: Row, other: Row, figure: str | None = None) -> Difference | None:
    r"""The difference of two rows over the splits and seeds that both have; None where they share none.

    Runs whose data, split, partition or candidates have other fingerprints are not paired.

    The interval is that of Student's t for the mean of n values: mean ± t(0.975, n - 1) s / sqrt(n), with their sample
    standard deviation s. It assumes that the values are independent and normally distributed. The values are means
    over a split's seeds, where three splits or more are shared; else means over the splits of a seed.

    Args:
        row: one method.
        other: the other method, on the same data.
        figure: see `Row.spread`; by default the one that ranks both.
    """
    if row.judged_by != other.judged_by:
        return None
    figure = figure or row.judged_by
    trials = _same_data(row, other)
    if not trials:
        return None
    gaps = (_by_trial(row, figure)[trials] - _by_trial(other, figure)[trials]).dropna()
    if gaps.empty:
        return None
    by_split, by_seed = (gaps.groupby(level=level, sort=False).mean() for level in ("split", "seed"))
    over, values = ("splits", by_split) if len(by_split) >= _FEWEST_SPLITS else ("seeds", by_seed)
    mean = float(values.mean())
    if len(values) == 1:
        return Difference(other.label, len(gaps), 1, over, mean, None)
    half = float(stats.t.ppf((1 + _LEVEL) / 2, len(values) - 1) * values.sem())
    return Difference(other.label, len(gaps), len(values), over, mean, (mean - half, mean + half))


def best_other(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of another method on the same data with the best mean figure; bounds do not count."""
    others = [other for other in rows if other.method != row.method and _competes(other, row)]
    return _best(others)


def baseline_rows(rows: Sequence[Row], name: str) -> dict[int, Row]:
    """The row of a named baseline for each row, by the row's ``id``.

    Args:
        rows: of one report.
        name: a method, or a row's whole label. Of several such rows on the same data, the one with the most similar
            other settings is meant.

    Raises:
        SubflError: no row has this method or label.
    """
    known = list(dict.fromkeys(row.method for row in rows))
    if not any(name in (row.method, row.label) for row in rows):
        raise SubflError(f"--baseline {name}: no run is of this method; there are {', '.join(known)}")
    found = {}
    for row in rows:
        named = [other for other in rows if other.panel == row.panel and name in (other.method, other.label)]
        if named:
            found[id(row)] = nearest_row(row, named)
    return found


def _competes(other: Row, row: Row) -> bool:
    same = other.panel == row.panel and other.judged_by == row.judged_by
    return same and not other.is_bound and other.completed and other.mean(other.judged_by) is not None


def _best(rows: Sequence[Row]) -> Row | None:
    sign = -1 if rows and lower_is_better(rows[0].metric) else 1
    return max(rows, key=lambda other: sign * (other.mean(other.judged_by) or 0.0), default=None)


@dataclass(frozen=True)
class DifferenceColumn(Column):
    """A column of differences to other rows.

    Attributes:
        differences: by the row's `panel` and `label`.
        named: name the other row in each cell.
    """

    differences: Mapping[tuple[object, ...], Difference] = field(default_factory=dict)
    named: bool = False

    def cell(self, row: Row) -> str:
        """The difference in the unit of the metric, with its interval."""
        found = self.differences.get((*row.panel, row.label))
        return MISSING if found is None else self._text(found, row)

    def key(self, row: Row) -> float | None:
        """The mean difference."""
        found = self.differences.get((*row.panel, row.label))
        return found.mean if found else None

    def stands_out(self, row: Row) -> bool:
        """True where the interval does not hold zero."""
        found = self.differences.get((*row.panel, row.label))
        return found is not None and found.separates

    def _text(self, found: Difference, row: Row) -> str:
        def text(value: float) -> str:
            return f"{scale(row.metric) * value:+.{digits(row.metric)}f}"

        if found.interval is None:
            words = f"{text(found.mean)} (one seed: no interval)"
        else:
            words = f"{text(found.mean)} [{text(found.interval[0])}, {text(found.interval[1])}]"
            if found.runs < len(row.counted):
                words += f" over {found.units} {found.over}"
        return f"{words} vs {found.other}" if self.named else words


def difference_columns(rows: Sequence[Row], baseline: str | None = None) -> list[Column]:
    """Differences of the ranking figure to a baseline, and to the best row of another method.

    Args:
        rows: result of `build_rows`.
        baseline: see `baseline_rows`; None for FedAvg, as far as it is among the rows.

    Raises:
        SubflError: a baseline is named, and no row has it.
    """
    fedavg = {id(row): row.fedavg for row in rows if row.fedavg is not None}
    named = fedavg if baseline is None else baseline_rows(rows, baseline)
    to_baseline: dict[tuple[object, ...], Difference] = {}
    to_best: dict[tuple[object, ...], Difference] = {}
    for row in rows:
        for found, other in ((to_baseline, named.get(id(row))), (to_best, best_other(row, rows))):
            if other is not None and other is not row and (difference := paired_difference(row, other)):
                found[(*row.panel, row.label)] = difference
    word = baseline or "FedAvg"
    return [
        DifferenceColumn(f"vs {word} [95 %]", RESULT, optional=True, differences=to_baseline),
        DifferenceColumn("vs best other method [95 %]", RESULT, optional=True, differences=to_best, named=True),
    ]


def interval_notes(columns: Sequence[Column]) -> list[str]:
    """Sentences for below a table on the units of its intervals; empty where it has none."""
    found = [each for column in columns if isinstance(column, DifferenceColumn) for each in column.differences.values()]
    over = {each.over for each in found if each.interval is not None}
    notes = []
    if "splits" in over:
        notes.append(
            "Intervals over splits: runs of a split share its test examples, so that the paired differences of its "
            "seeds are averaged first, and Student's t is over splits."
        )
    if "seeds" in over:
        notes.append(
            "Intervals over seeds: with fewer than three splits, paired differences are averaged over splits, and "
            "Student's t is over seeds. They hold for these test examples alone."
        )
    if over:
        notes.append("Bold differences are those whose 95 % interval does not hold zero.")
    return notes


def _same_data(row: Row, other: Row) -> list[tuple[str, str]]:
    """The splits and seeds of two rows in which no fingerprint of their data differs."""
    theirs = {run.trial: run for run in other.counted}
    return [run.trial for run in row.counted if run.trial in theirs and not run.differs_from(theirs[run.trial])]


def _by_trial(row: Row, figure: str) -> pd.Series:
    trials = pd.MultiIndex.from_tuples([run.trial for run in row.counted], names=["split", "seed"])
    return row.values.reindex(columns=[figure])[figure].set_axis(trials)
