"""Description of a figure, independent of what draws it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subfl_flower.evaluation.charts.looks import Look

Numbers = NDArray[np.floating] | NDArray[np.integer]


def floats(values: ArrayLike | Sequence[float | None]) -> NDArray[np.float64]:
    """Values as float64; NaN for None."""
    return np.asarray(values, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Line:
    """Points, joined where the look has a dash.

    Attributes:
        name: legend entry; empty for none. Lines of one name in several panels share their entry.
        x: positions, `[points]`; NaN interrupts the line.
        y: values, `[points]`.
        look: colour, dash and marker.
        spread: half the height of the band around the line, `[points]`; None for none.
        bars: draw the spread as bars instead of a band.
        width: of the line, in points.
        size: of the markers, in points.
    """

    name: str
    x: Numbers
    y: Numbers
    look: Look
    spread: Numbers | None = None
    bars: bool = False
    width: float = 1.8
    size: float = 5.0


@dataclass(frozen=True, eq=False)
class Bars:
    """Bars from zero. Several in one panel stand side by side.

    Attributes:
        name: legend entry; empty for none.
        x: middle of each bar.
        y: heights; NaN for no bar.
        colours: of all bars, or of each.
        width: in units of x.
        spread: half the length of an error bar; None for none.
    """

    name: str
    x: Numbers
    y: Numbers
    colours: str | Sequence[str]
    width: float = 0.72
    spread: Numbers | None = None


@dataclass(frozen=True)
class Rule:
    """A line across the panel at one value of `axis`, with a band of `spread` to both sides."""

    name: str
    at: float
    look: Look
    axis: str = "y"
    spread: float = 0.0


@dataclass(frozen=True)
class Shade:
    """A grey band over the panel's height from `start` to `end`."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class Heat:
    """A heat map; rows from above.

    Attributes:
        values: `[rows, columns]`; NaN is left grey.
        label: meaning of a value.
        x: position of each column, ascending.
        low: value of the lightest colour; None for the smallest.
        high: value of the darkest colour; None for the largest.
        written: write the values into the cells.
    """

    values: Numbers
    label: str
    x: Numbers
    low: float | None = None
    high: float | None = None
    written: bool = False


Mark = Line | Bars | Rule | Shade | Heat


@dataclass(frozen=True, eq=False)
class Panel:
    """Axes with marks.

    Attributes:
        title: above the axes.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        marks: in drawing order.
        ticks: labels of the horizontal axis by position; None for numbers.
        whole: only whole numbers at the horizontal axis.
        x_range: limits of the horizontal axis; None to fit.
        y_range: limits of the vertical axis; None to fit, an end of None to fit that end.
        log: a logarithmic horizontal axis.
        equal: one unit has the same length on both axes.
    """

    title: str
    x: str
    y: str
    marks: Sequence[Mark]
    ticks: Mapping[float, str] | None = None
    whole: bool = True
    x_range: tuple[float, float] | None = None
    y_range: tuple[float | None, float | None] = (None, None)
    log: bool = False
    equal: bool = False


@dataclass(frozen=True, eq=False)
class Chart:
    """A figure.

    Attributes:
        name: stem of its file, and its address on a page.
        title: above the figure.
        panels: at least one.
        legend: heads the legend.
        columns: the most panels side by side.
    """

    name: str
    title: str
    panels: Sequence[Panel]
    legend: str = ""
    columns: int = 3
