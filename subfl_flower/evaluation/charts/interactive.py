"""Charts as figures of plotly.js, small enough for a page with many of them.

The figures are plain JSON: the page draws them, and adds the colours of its theme.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from subfl_flower.evaluation.charts.chart import Bars, Heat, Line, Mark, Panel, Rule, Shade

_BLUES = [[0, "#f2f6fc"], [0.25, "#c3d7ee"], [0.5, "#7fb0da"], [0.75, "#3479b8"], [1, "#0b3c78"]]
_POINT_PIXELS = 4 / 3
_SIGNIFICANT = 4
_MOST_WHOLE_TICKS = 12


def panel_json(panel: Panel, points: int) -> str:
    """The traces and the layout of a panel, as JSON that can stand inside of a script element.

    Args:
        panel: the panel.
        points: the most points of a line, and cells of a heat map; more are thinned.
    """
    traces = [trace for mark in panel.marks for trace in _traces(mark, points)]
    shapes = [shape for mark in panel.marks if (shape := _shape(mark))]
    figure = {"data": traces, "layout": {"xaxis": _x_axis(panel), "yaxis": _y_axis(panel), "shapes": shapes}}
    return json.dumps(figure, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def thinned(y: np.ndarray, points: int) -> np.ndarray:
    """Indices of at most so many points of a line: the lowest and the highest of each stretch, and both ends."""
    if len(y) <= points:
        return np.arange(len(y))
    kept = {0, len(y) - 1}
    for stretch in np.array_split(np.arange(1, len(y) - 1), max(1, (points - 2) // 2)):
        known = stretch[np.isfinite(y[stretch])]
        if len(known):
            kept |= {int(known[y[known].argmin()]), int(known[y[known].argmax()])}
    return np.array(sorted(kept))


def pooled(values: np.ndarray, cells: int) -> tuple[np.ndarray, int]:
    """A matrix of at most so many cells, each the mean of a square of the original's; and the side of the square."""
    side = 1
    while (-(-values.shape[0] // side)) * (-(-values.shape[1] // side)) > cells:
        side += 1
    if side == 1:
        return values, 1
    rows, columns = (-(-length // side) for length in values.shape)
    padded = np.full((rows * side, columns * side), np.nan)
    padded[: values.shape[0], : values.shape[1]] = values
    squares = padded.reshape(rows, side, columns, side)
    known = np.isfinite(squares)
    sums = np.where(known, squares, 0.0).sum(axis=(1, 3))
    counts = known.sum(axis=(1, 3))
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), side


def _traces(mark: Mark, points: int) -> list[dict[str, Any]]:
    match mark:
        case Line():
            return _line(mark, points)
        case Bars():
            bars: dict[str, Any] = {"type": "bar", "name": escape(mark.name), "x": _plain(mark.x), "y": _plain(mark.y)}
            colours = mark.colours if isinstance(mark.colours, str) else list(mark.colours)
            bars |= {"marker": {"color": colours}, "width": round(float(mark.width), 6)}
            return [bars | ({} if mark.spread is None else {"error_y": {"array": _plain(mark.spread)}})]
        case Heat():
            return [_heat(mark, points)]
    return []


def _line(mark: Line, points: int) -> list[dict[str, Any]]:
    kept = thinned(mark.y, points)
    x, y, look = mark.x[kept], mark.y[kept], mark.look
    mode = "+".join((["lines"] if look.dash else []) + (["markers"] if look.marker else []))
    trace: dict[str, Any] = {"type": "scatter", "mode": mode, "name": escape(mark.name), "x": _plain(x), "y": _plain(y)}
    if look.dash:
        trace["line"] = {"color": look.colour, "dash": look.dash, "width": mark.width}
    if look.marker:
        trace["marker"] = {"color": look.colour, "symbol": look.marker, "size": round(mark.size * _POINT_PIXELS, 1)}
    if not mark.name:
        trace["hoverinfo"] = "skip"
    if mark.spread is None:
        return [trace]
    spread = mark.spread[kept]
    if mark.bars:
        return [trace | {"error_y": {"array": _plain(spread), "thickness": 1.2, "width": 3}}]
    if not (spread > 0).any():
        return [trace]
    outline = {"x": _plain([*x, *x[::-1]]), "y": _plain([*(y + spread), *(y - spread)[::-1]])}
    band = {"type": "scatter", "mode": "none", "fill": "toself", "fillcolor": f"{look.colour}2b", "hoverinfo": "skip"}
    return [{**band, "name": escape(mark.name), **outline}, trace]


def _heat(mark: Heat, cells: int) -> dict[str, Any]:
    values, side = pooled(np.asarray(mark.values, dtype=np.float64), cells)
    trace: dict[str, Any] = {
        "type": "heatmap",
        "x": _plain(mark.x[::side]),
        "y": list(range(0, len(mark.values), side)),
        "z": [_plain(line) for line in values],
        "colorscale": _BLUES,
        "colorbar": {"thickness": 10, "title": {"text": escape(mark.label), "side": "right"}, "outlinewidth": 0},
        "hoverongaps": False,
    }
    limits = {name: value for name, value in (("zmin", mark.low), ("zmax", mark.high)) if value is not None}
    if len(limits) == 1:  # plotly ignores a limit without the other
        known = values[np.isfinite(values)]
        limits = {"zmin": float(known.min(initial=np.inf)), "zmax": float(known.max(initial=-np.inf))} | limits
    trace |= limits
    return trace | ({"texttemplate": "%{z:.0f}"} if mark.written else {})


def _shape(mark: Mark) -> dict[str, Any] | None:
    if isinstance(mark, Rule):
        across, along = ("x", "y") if mark.axis == "y" else ("y", "x")
        shape: dict[str, Any] = {f"{across}ref": "paper", f"{across}0": 0, f"{across}1": 1, "name": escape(mark.name)}
        if mark.spread:
            shape |= {"type": "rect", "fillcolor": f"{mark.look.colour}30", "layer": "below"}
        else:
            shape["type"] = "line"
        shape |= {f"{along}0": mark.at - mark.spread, f"{along}1": mark.at + mark.spread}
        return shape | {"line": {"color": mark.look.colour, "dash": mark.look.dash, "width": 1.6}}
    if isinstance(mark, Shade):
        ends: dict[str, Any] = {"x0": float(mark.start), "x1": float(mark.end), "yref": "paper", "y0": 0, "y1": 1}
        look = {"fillcolor": "#88888830", "line": {"width": 0}, "layer": "below"}
        return {"type": "rect", "name": escape(mark.name), **ends, **look}
    return None


def _x_axis(panel: Panel) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": escape(panel.x)}, "automargin": True}
    if panel.ticks is not None:
        names = [escape(name).replace("\n", "<br>") for name in panel.ticks.values()]
        axis |= {"tickvals": list(panel.ticks), "ticktext": names}
    elif panel.whole and (places := _whole_places(panel)):
        axis["tickvals"] = places
    if panel.log:
        axis |= {"type": "log"}
    if panel.x_range:
        axis["range"] = [float(end) for end in (np.log10(panel.x_range) if panel.log else panel.x_range)]
    if any(isinstance(mark, Heat) for mark in panel.marks):
        axis |= {"showgrid": False, "constrain": "domain"}
    return axis


def _whole_places(panel: Panel) -> list[int]:
    """Whole numbers of a short axis, which plotly would divide further."""
    known = [mark.x[np.isfinite(mark.x)] for mark in panel.marks if isinstance(mark, Line | Bars | Heat)]
    found = np.concatenate(known) if known else np.empty(0)
    if not found.size or found.max() - found.min() > _MOST_WHOLE_TICKS:
        return []
    return list(range(int(np.ceil(found.min())), int(found.max()) + 1))


def _y_axis(panel: Panel) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": escape(panel.y)}, "automargin": True}
    low, high = panel.y_range
    if low is not None and high is not None:
        axis["range"] = [low, high]
    elif low == 0:
        axis["rangemode"] = "tozero"
    heats = [mark for mark in panel.marks if isinstance(mark, Heat)]
    if heats:
        square = heats[0].values.shape[0] == heats[0].values.shape[1]
        axis |= {"showgrid": False, "autorange": "reversed", "constrain": "domain"}
        axis |= {"scaleanchor": "x"} if square else {}
    return axis | ({"scaleanchor": "x"} if panel.equal else {})


def _plain(values: Sequence[Any] | np.ndarray) -> list[float | int | None]:
    """Values to four significant digits, in as few characters as possible; None where unknown."""
    found: list[float | int | None] = []
    for value in np.asarray(values, dtype=np.float64):
        if not np.isfinite(value):
            found.append(None)
        else:
            short = float(f"{value:.{_SIGNIFICANT}g}") if abs(value) < 10**_SIGNIFICANT else round(float(value))
            found.append(int(short) if short == int(short) else short)
    return found
