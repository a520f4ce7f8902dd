"""Charts drawn by Matplotlib, and written to files."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from textwrap import fill
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, LogFormatter, MaxNLocator, NullLocator

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.charts.chart import Bars, Chart, Heat, Line, Panel, Rule, Shade
from subfl_flower.storage.durable_files import PUBLIC_FILE, write_durably

_STYLE = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a name is no formula
    "svg.fonttype": "none",  # text stays text
    "pdf.fonttype": 42,
}
_SMALL = {"font.size": 7, "axes.titlesize": 7.5, "axes.linewidth": 0.6}
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "": ""}
_MARKERS = {"circle": "o", "square": "s", "triangle-up": "^", "diamond": "D", "triangle-down": "v"}
_MARKERS |= {"pentagon": "p", "x": "X", "star": "*", "circle-open": "o", "": ""}
# Inches of a panel and of the legend, where no width is given.
_PANEL, _LEGEND = (4.2, 4.2), 2.4
# Inches below which a panel is not drawn next to another.
_LEAST = 3.4
# Narrower figures have smaller letters, panels below each other, and the legend below them.
_NARROW = 5.0
# Entries of the legend in one column.
_COLUMN = 20
_MOST_TICKS = 50


def save_charts(charts: Iterable[Chart], folder: Path, kind: str = "png", width: float | None = None) -> list[Path]:
    """Draw charts into a folder, a file each; return the files.

    Args:
        charts: the charts, named differently.
        folder: made where absent.
        kind: `png`, `svg` or `pdf`.
        width: in inches; None for one that suits the number of panels.

    Raises:
        SubflError: a file cannot be written.
    """
    written = []
    for chart in charts:
        content = io.BytesIO()
        with matplotlib.rc_context(_STYLE):
            draw(chart, width).savefig(content, format=kind, dpi=150 if width is None else 300)
        path = folder / f"{chart.name}.{kind}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(path, content.getvalue(), PUBLIC_FILE)
        except OSError as error:
            reason = error.strerror or error
            raise SubflError(f"cannot write {path}: {reason}; --no-plots prints the table alone") from None
        written.append(path)
    return written


def draw(chart: Chart, width: float | None = None) -> Figure:
    """The figure, drawn by Agg and unknown to pyplot: it needs no display and does not leak.

    Args:
        chart: the chart.
        width: in inches; None for one that suits the number of panels.
    """
    narrow = width is not None and width < _NARROW
    columns = 1 if narrow else min(chart.columns, len(chart.panels), max(1, int((width or 99) // _LEAST)))
    named = _named(chart)
    legend_columns = _narrow_columns(named) if narrow else max(1, -(-len(named) // _COLUMN))
    beside = legend_columns if named and not narrow else 0
    size = _narrow_size(chart, named, width or 0) if narrow else _size(chart, columns, beside, width)
    lines = -(-len(chart.panels) // columns)
    letters = 16.0 if narrow else 11.5  # an inch
    room = ((size[0] - _LEGEND * beside) / columns * letters, (size[1] - 0.5) / lines * letters)
    with matplotlib.rc_context({**_STYLE, **(_SMALL if narrow else {})}):
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        for place, panel in enumerate(chart.panels):
            axes = figure.add_subplot(lines, columns, place + 1)
            shares_y = place % columns and panel.y == chart.panels[place - 1].y
            _draw_panel(axes, panel, "" if shares_y else panel.y, room, 0.6 if narrow else 1.0)
        figure.suptitle(fill(chart.title, 40 if narrow else 34 * columns + 20), x=0.01, ha="left")
        if named:
            figure.legend(
                list(named.values()),
                [fill(name, 46 if narrow else 26) for name in named],
                loc="outside lower left" if narrow else "outside right upper",
                title=chart.legend or None,
                alignment="left",
                ncols=legend_columns,
            )
    return figure


def _size(chart: Chart, columns: int, legend_columns: int, width: float | None) -> tuple[float, float]:
    """Inches of a figure with its legend on the right."""
    panel = max(_PANEL[0], *(min(14.0, 0.16 * len(panel.ticks or ())) + 2.0 for panel in chart.panels))
    full = columns * panel + _LEGEND * legend_columns + (2.0 if columns == 1 else 0.3)
    shrunk = 1.0 if width is None else min(1.0, max(0.85, width / full))
    return width or full, _PANEL[1] * shrunk * -(-len(chart.panels) // columns) + 0.5


def _narrow_size(chart: Chart, named: Mapping[str, Any], width: float) -> tuple[float, float]:
    """Inches of a figure with panels and legend below each other."""
    return width, 0.72 * width * len(chart.panels) + 0.5 + 0.16 * -(-len(named) // _narrow_columns(named))


def _narrow_columns(named: Mapping[str, Any]) -> int:
    """Entries of a legend that fit side by side in a narrow figure."""
    longest = max(map(len, named), default=0)
    return 3 if longest <= 10 else 2 if longest <= 18 else 1


def _named(chart: Chart) -> dict[str, Any]:
    """A handle for each entry of the legend, in order of appearance."""
    found: dict[str, Any] = {}
    for panel in chart.panels:
        for mark in panel.marks:
            if not isinstance(mark, Heat) and mark.name:
                found.setdefault(mark.name, _handle(mark))
    return found


def _handle(mark: Line | Bars | Rule | Shade) -> Any:
    match mark:
        case Line() | Rule():
            size = min(mark.size, 6.0) if isinstance(mark, Line) else 0
            return Line2D([], [], linewidth=1.8, markersize=size, **_line_style(mark.look.colour, mark.look))
        case Bars():
            colour = mark.colours if isinstance(mark.colours, str) else mark.colours[0]
            return Line2D([], [], linestyle="", marker="s", markersize=8, color=colour)
        case Shade():
            return Line2D([], [], linestyle="", marker="s", markersize=8, color="#E4E4E4")


def _line_style(colour: str, look: Any) -> dict[str, Any]:
    style = {"color": colour, "linestyle": _DASHES[look.dash], "marker": _MARKERS[look.marker]}
    return style | ({"markerfacecolor": "white", "zorder": 5} if look.marker.endswith("open") else {})


def _draw_panel(axes: Any, panel: Panel, y: str, room: tuple[float, float], thin: float) -> None:
    """Draw a panel that has room for so many letters across and upwards, its lines thinner by a factor."""
    square = any(isinstance(mark, Heat) for mark in panel.marks)  # with a colour bar on its right
    across = max(12, int(min(room[0] - 18, 0.7 * room[1]) if square else room[0] - 14))
    axes.set_title(fill(panel.title, across))
    axes.set_xlabel(fill(panel.x, across))
    axes.set_ylabel(fill(y, max(14, int(room[1] - 18))))
    if panel.log:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(LogFormatter())  # matplotlib's own writes formulas
        axes.xaxis.set_minor_locator(NullLocator())
    elif panel.ticks is not None:
        step = max(1, -(-len(panel.ticks) // _MOST_TICKS))
        places = list(panel.ticks)[::step]
        names = [panel.ticks[place] for place in places]
        crowded = sum(max(map(len, name.split("\n"))) for name in names) > 34
        axes.set_xticks(places, names, rotation=90 if crowded and max(map(len, names)) > 4 else 0)
        axes.tick_params(axis="x", length=0, labelsize="small" if len(names) > 20 else "medium")
    else:
        axes.xaxis.set_major_locator(whole_numbers() if panel.whole else AutoLocator())
    if panel.y in ("clients", "users in cluster"):
        axes.yaxis.set_major_locator(whole_numbers())
    if panel.x_range:
        axes.set_xlim(panel.x_range)
    for mark in panel.marks:
        _draw_mark(axes, mark, thin)
    axes.set_ylim(*panel.y_range)
    if panel.equal:
        axes.set_aspect("equal", adjustable="datalim")
        axes.grid(False)


def _draw_mark(axes: Any, mark: Line | Bars | Rule | Shade | Heat, thin: float) -> None:
    match mark:
        case Line():
            style = {**_line_style(mark.look.colour, mark.look), "linewidth": thin * mark.width}
            style |= {"markersize": thin * mark.size}
            style["markeredgecolor"] = mark.look.colour if mark.look.marker.endswith("open") else "none"
            axes.plot(mark.x, mark.y, **style, clip_on=mark.size > 5)
            if mark.spread is not None and mark.bars:
                axes.errorbar(
                    mark.x, mark.y, mark.spread, fmt="none", ecolor=mark.look.colour, elinewidth=1.1, capsize=3
                )
            elif mark.spread is not None:
                low, high = mark.y - mark.spread, mark.y + mark.spread
                axes.fill_between(mark.x, low, high, color=mark.look.colour, alpha=0.18, linewidth=0)
        case Bars():
            axes.bar(mark.x, mark.y, mark.width, color=mark.colours, edgecolor="white", linewidth=0.4)
            if mark.spread is not None:
                axes.errorbar(mark.x, mark.y, mark.spread, fmt="none", ecolor="#333333", elinewidth=1.2, capsize=3)
        case Rule():
            style = {"color": mark.look.colour, "linestyle": _DASHES[mark.look.dash], "linewidth": thin * 1.4}
            (axes.axhline if mark.axis == "y" else axes.axvline)(mark.at, **style)
            if mark.spread:
                band = axes.axhspan if mark.axis == "y" else axes.axvspan
                band(mark.at - mark.spread, mark.at + mark.spread, color=mark.look.colour, alpha=0.12, linewidth=0)
        case Shade():
            axes.axvspan(mark.start, mark.end, color="#EEEEEE", zorder=0)
        case Heat():
            _draw_heat(axes, mark)


def _draw_heat(axes: Any, mark: Heat) -> None:
    axes.set_facecolor("#DDDDDD")
    rows = np.arange(len(mark.values))
    image = axes.pcolormesh(
        mark.x, rows, np.ma.masked_invalid(mark.values), shading="nearest", cmap="Blues", vmin=mark.low, vmax=mark.high
    )
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    axes.invert_yaxis()
    if mark.values.shape[0] == mark.values.shape[1]:
        axes.set_aspect("equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(whole_numbers(nbins=12))
    bar = axes.figure.colorbar(image, ax=axes, shrink=0.75, pad=0.03, label=mark.label)
    bar.outline.set_visible(False)
    if mark.written:
        middle = sum(image.get_clim()) / 2
        for (row, column), value in np.ndenumerate(mark.values):
            colour = "white" if value > middle else "black"
            axes.text(mark.x[column], row, f"{value:.0f}", ha="center", va="center", fontsize=7.5, color=colour)


def whole_numbers(nbins: int | Literal["auto"] = "auto") -> MaxNLocator:
    """Tick locator for whole numbers, also where the axis is so short that there is one tick."""
    return MaxNLocator(nbins, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
