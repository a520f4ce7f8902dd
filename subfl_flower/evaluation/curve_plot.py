"""The figure of curves: the test metric against the values of one configuration key."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, NullLocator

from subfl_flower.evaluation.comparison import line_looks, panel_figure, panel_legend
from subfl_flower.evaluation.curves import Curve, value_text
from subfl_flower.evaluation.formats import scale
from subfl_flower.evaluation.plots import STYLE, save
from subfl_flower.evaluation.rows import Row

# Values this many times apart are drawn on a logarithmic axis.
_WIDE = 50
# Most marks on a linear axis.
_ROOM = 10
# Share of the axis left free on either side.
_MARGIN = 0.06
# Between the error bars of neighbouring curves, as a share of the axis.
_BAR_DISTANCE = 0.01


def plot_curves(curves: Sequence[Curve], key: str, path: Path) -> Path | None:
    """Draw `curves_figure` and write it as PNG.

    Returns:
        `path`, or None when no run with a value of the key was evaluated.

    Raises:
        SubflError: `path` cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        figure = curves_figure(curves, key)
        return None if figure is None else save(figure, path)


def curves_figure(curves: Sequence[Curve], key: str) -> Figure | None:
    """The test metric at the best validation round by value of the key, one panel for each data set and metric.

    Points are means over seeds, bars one sample standard deviation. Hollow points are runs that were not completed.
    References are horizontal lines with a band. A panel without a point is left out; without panels there is no figure.
    """
    evaluated = [curve for curve in curves if any(_spread(row) for row in curve.rows)]
    panels: dict[tuple[str, str, str, str], list[Curve]] = {c.row.panel: [] for c in evaluated if c.points}
    for curve in evaluated:
        if curve.row.panel in panels:
            panels[curve.row.panel].append(curve)
    if not panels:
        return None
    drawn = [curve for of_panel in panels.values() for curve in of_panel]
    look = line_looks(curve.row.label for curve in drawn)
    figure, grid = panel_figure(list(panels), key)
    lines: dict[str, Any] = {}
    for axes, of_panel in zip(grid, panels.values(), strict=True):
        _value_axis(axes, sorted({value for curve in of_panel for value in curve.points}))
        beside = sum(bool(curve.points) for curve in of_panel)
        shift = iter(_BAR_DISTANCE * (np.arange(beside) - (beside - 1) / 2))
        for curve in of_panel:
            colour, style = look[curve.row.label]
            if curve.points:
                line = _points(axes, curve, colour, style, next(shift))
            else:
                line = _reference(axes, curve, colour, style)
            lines.setdefault(curve.row.label, line)
    rows = [row for curve in drawn for row in curve.rows if _spread(row)]
    if not all(row.completed for row in rows):
        lines["not completed"] = Line2D([], [], color="#777777", marker="o", mfc="white", linestyle="")
    panel_legend(figure, lines, rows)
    return figure


def _points(axes: Any, curve: Curve, colour: str, style: str, shift: float) -> Any:
    """Draw a curve, shifted by a share of the axis so that the bars of several curves do not hide each other."""
    known = {value: row for value, row in curve.points.items() if _spread(row)}
    mean, deviation = np.array([_spread(row) for row in known.values()], dtype=np.float64).T
    low, high = axes.get_xlim()
    values = np.array(list(known), dtype=np.float64)
    places = values * (high / low) ** shift if axes.get_xscale() == "log" else values + shift * (high - low)
    bars = {"elinewidth": 1.1, "capsize": 3}
    drawn = axes.errorbar(places, mean, deviation, fmt=style, color=colour, linewidth=1.8, **bars)
    for place, middle, row in zip(places, mean, known.values(), strict=True):
        axes.plot([place], [middle], "o", color=colour, markersize=5, mfc=colour if row.completed else "white")
    return drawn


def _reference(axes: Any, curve: Curve, colour: str, style: str) -> Any:
    mean, deviation = _spread(curve.row) or (np.nan, np.nan)
    axes.axhspan(mean - deviation, mean + deviation, color=colour, alpha=0.12, linewidth=0)
    return axes.axhline(mean, color=colour, linewidth=1.4, linestyle="--" if style == "-" else style)


def _spread(row: Row) -> tuple[float, float] | None:
    """Mean and sample standard deviation (0 of one seed) as shown; None where no run was evaluated."""
    found = row.spread("test_at_best_validation")
    factor = scale(row.metric)
    return None if found is None else (factor * found.mean, factor * (found.std or 0.0))


def _value_axis(axes: Any, values: Sequence[float]) -> None:
    """Fit the axis to ascending values: logarithmic where far apart, marks at the values where there is room."""
    low, high = values[0], values[-1]
    if low > 0 and high >= _WIDE * low:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        margin = (high / low) ** _MARGIN
        axes.set_xlim(low / margin, high * margin)
        return
    if low == high or _ROOM * min(np.diff(values)) >= high - low:
        axes.set_xticks(values, [value_text(value) for value in values])
    elif any(value % 1 for value in values):
        axes.xaxis.set_major_locator(AutoLocator())
    margin = _MARGIN * (high - low) or 1.0
    axes.set_xlim(low - margin, high + margin)
