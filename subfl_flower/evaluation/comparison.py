"""The figure of several runs: convergence of the methods on the same data, with a band over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from subfl_flower.evaluation.formats import axis_text, scale
from subfl_flower.evaluation.frame import metric_frame
from subfl_flower.evaluation.plots import COLOURS, STYLE, name_axes, new_figure, save
from subfl_flower.evaluation.rows import Row

_LINES = ("-", "--", "-.", ":")
_COLUMNS = 3


def plot_comparison(rows: Sequence[Row], path: Path) -> Path | None:
    """Draw the test metric by round, one line a row, one panel for each data set and metric; write it as PNG.

    The line is the mean over the seeds that reached a round, the band one sample standard deviation.

    Returns:
        `path`, or None when no run was evaluated.

    Raises:
        SubflError: `path` cannot be written.
    """
    curves = {id(row): test_by_round(row) for row in rows}
    panels: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        if len(curves[id(row)]):
            panels.setdefault(row.panel, []).append(row)
    if not panels:
        return None
    look = line_looks(_label(row) for of_panel in panels.values() for row in of_panel)
    with matplotlib.rc_context(STYLE):
        figure, grid = panel_figure(list(panels), "communication round")
        lines: dict[str, Any] = {}
        for axes, of_panel in zip(grid, panels.values(), strict=True):
            for row in of_panel:
                rounds, mean, deviation = (curve := curves[id(row)]).index, curve["mean"], curve["std"]
                colour, style = look[_label(row)]
                axes.fill_between(rounds, mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0)
                (line,) = axes.plot(rounds, mean, style, color=colour, linewidth=1.8)
                lines.setdefault(_label(row), line)
        panel_legend(figure, lines, rows)
        return save(figure, path)


def panel_figure(panels: Sequence[tuple[str, str, str, str]], x: str) -> tuple[Figure, list[Any]]:
    """A figure of the test metric with axes for each panel, titled and labelled.

    Args:
        panels: data set, partition, clients and metric of each.
        x: label of the horizontal axes.
    """
    across = min(_COLUMNS, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(2.6 + 5.4 * across if across == 1 else 2.2 + 4.2 * across, 0.6 + 3.9 * down)
    metrics = {metric for *_, metric in panels}
    grid = []
    for place, (dataset, partition, clients, metric) in enumerate(panels):
        axes = figure.add_subplot(down, across, place + 1)
        first = place % across == 0 or len(metrics) > 1
        name_axes(axes, x, f"test {axis_text(metric)}" if first else "")
        axes.set_title(f"{dataset}, {partition}, {clients} clients")
        grid.append(axes)
    return figure, grid


def line_looks(labels: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and line style of each label, in order of first appearance."""
    return {
        label: (COLOURS[index % len(COLOURS)], _LINES[index // len(COLOURS) % len(_LINES)])
        for index, label in enumerate(dict.fromkeys(labels))
    }


def panel_legend(figure: Figure, lines: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """One legend for all panels, headed by the number of seeds of the rows."""
    legend = [fill(label, 30) for label in lines]
    figure.legend(lines.values(), legend, loc="outside right upper", title=_seeds(rows), alignment="left")


def test_by_round(row: Row) -> pd.DataFrame:
    """Mean and sample standard deviation (0 of one seed) of the test metric as shown: `mean` and `std` by round."""
    frame = metric_frame(row.counted)
    tests = frame[frame["client"].isna() & (frame["metric"] == "test")]
    found = tests.groupby("round")["value"].agg(["mean", "std"]).fillna(0.0)
    return found * scale(row.metric)


def _label(row: Row) -> str:
    return row.label if row.completed else f"{row.label}: {row.counted[0].status}"


def _seeds(rows: Sequence[Row]) -> str:
    counts = {len(row.counted) for row in rows}
    if counts == {1}:
        return "one seed each"
    return f"mean ± std, {min(counts)}–{max(counts)} seeds" if len(counts) > 1 else f"mean ± std, {max(counts)} seeds"
