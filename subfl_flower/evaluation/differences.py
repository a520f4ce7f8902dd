"""Paired differences of methods over the seeds that they share, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd
from scipy import stats

from subfl_flower.evaluation.formats import MISSING, digits, scale
from subfl_flower.evaluation.rows import Row
from subfl_flower.evaluation.summary import lower_is_better
from subfl_flower.evaluation.table import Column

_LEVEL = 0.95
_FIGURE = "test_at_best_validation"


class Difference(NamedTuple):
    """Mean over seeds of one method's figure minus another's, and its 95 % interval (None for a single seed)."""

    other: str
    seeds: int
    mean: float
    interval: tuple[float, float] | None


def paired_difference(row: Row, other: Row, figure: str | None = None) -> Difference | None:
    """The difference of two rows over the seeds that both have; None where they share none.

    The interval is that of Student's t for the mean of paired differences: mean ± t(0.975, n - 1) s / sqrt(n), with
    their sample standard deviation s. It assumes that differences are normally distributed over seeds.
    """
    if row.judged_by != other.judged_by:
        return None
    figure = figure or row.judged_by
    own, others = _by_seed(row, figure), _by_seed(other, figure)
    gaps = (own - others).dropna()
    if gaps.empty:
        return None
    mean = float(gaps.mean())
    if len(gaps) == 1:
        return Difference(other.label, 1, mean, None)
    half = float(stats.t.ppf((1 + _LEVEL) / 2, len(gaps) - 1) * gaps.sem())
    return Difference(other.label, len(gaps), mean, (mean - half, mean + half))


def best_other(row: Row, rows: Sequence[Row]) -> Row | None:
    """The row of another method on the same data with the best mean test metric; bounds do not count."""
    others = [
        other
        for other in rows
        if other.panel == row.panel
        and other.method != row.method
        and not other.is_bound
        and other.completed
        and other.judged_by == row.judged_by
        and other.mean(other.judged_by) is not None
    ]
    sign = -1 if lower_is_better(row.metric) else 1
    return max(others, key=lambda other: sign * (other.mean(other.judged_by) or 0.0), default=None)


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

    def _text(self, found: Difference, row: Row) -> str:
        def text(value: float) -> str:
            return f"{scale(row.metric) * value:+.{digits(row.metric)}f}"

        if found.interval is None:
            words = f"{text(found.mean)} (one seed: no interval)"
        else:
            words = f"{text(found.mean)} [{text(found.interval[0])}, {text(found.interval[1])}]"
            words += f" over {found.seeds} seeds" if found.seeds < len(row.counted) else ""
        return f"{words} vs {found.other}" if self.named else words


def difference_columns(rows: Sequence[Row]) -> list[Column]:
    """Differences of the test metric to the nearest FedAvg row, and to the best row of another method."""
    to_fedavg: dict[tuple[object, ...], Difference] = {}
    to_best: dict[tuple[object, ...], Difference] = {}
    for row in rows:
        for found, other in ((to_fedavg, row.fedavg), (to_best, best_other(row, rows))):
            if other is not None and other is not row and (difference := paired_difference(row, other)):
                found[(*row.panel, row.label)] = difference
    return [
        DifferenceColumn("vs FedAvg [95 %]", _FIGURE, optional=True, differences=to_fedavg),
        DifferenceColumn("vs best other method [95 %]", _FIGURE, optional=True, differences=to_best, named=True),
    ]


def _by_seed(row: Row, figure: str) -> pd.Series:
    return row.values.reindex(columns=[figure])[figure].set_axis([str(run.seed) for run in row.counted])
