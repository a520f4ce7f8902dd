"""Several runs: the analyses of every method, as mean and deviation over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from subfl_flower.analysis.run_analysis import RunAnalysis
from subfl_flower.evaluation.formats import scale, unit_suffix
from subfl_flower.evaluation.plots import COLOURS, STYLE, new_figure, save
from subfl_flower.evaluation.rows import Row, Spread, build_rows
from subfl_flower.evaluation.table import means, write_csv

_BARS = (("own", "on the client's\nown test data"), ("on_neighbour", "on the test data of\nits neighbour"))

FIGURES = (
    "own",
    "on_neighbour",
    "rank_correlation_missing_edges",
    "rank_correlation_label",
    "jaccard_most_similar",
    "jaccard_least_similar",
)
"""Figures that compare methods: means over clients, and rank correlations over pairs of clients."""


def run_figures(analysis: RunAnalysis) -> dict[str, float | None]:
    """The `FIGURES` of a run; empty without models, None or NaN where unknown."""
    if analysis.models is None:
        return {}
    neighbours, similarity, sharing = analysis.models.neighbours, analysis.models.similarity, analysis.models.sharing
    return {
        "own": neighbours.mean_own,
        "on_neighbour": neighbours.mean_on_neighbour,
        "rank_correlation_missing_edges": similarity.with_missing,
        "rank_correlation_label": similarity.with_label,
        "jaccard_most_similar": sharing.most_similar.mean_jaccard if sharing else None,
        "jaccard_least_similar": sharing.least_similar.mean_jaccard if sharing else None,
    }


def compare(analyses: Sequence[RunAnalysis]) -> list[Row]:
    """Rows of runs that differ in their seed only, as of `subfl report`, with `FIGURES` by seed."""
    by_path = {analysis.run.path: run_figures(analysis) for analysis in analyses}
    rows = build_rows([analysis.run for analysis in analyses])
    return [
        replace(
            row,
            figures=pd.DataFrame([by_path[run.path] for run in row.counted], columns=list(FIGURES), dtype="float64"),
            compared={},
        )
        for row in rows
    ]


def write_comparison(rows: Sequence[Row], path: Path) -> Path:
    """One line a method as CSV, fractions as they are; SubflError where `path` cannot be written."""
    return write_csv(means(rows, FIGURES).drop(columns=["runs", "note", "directories"]), path)


def plot_comparison(rows: Sequence[Row], path: Path) -> Path | None:
    """Draw every method's test metric on own and on neighbours' data as PNG.

    Returns:
        `path`, or None where no run has such figures.

    Raises:
        SubflError: `path` cannot be written.
    """
    panels: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row.spread("own") and row.spread("on_neighbour"):
            panels.setdefault(row.panel, []).append(row)
    if not panels:
        return None
    with matplotlib.rc_context(STYLE):
        return save(_comparison_figure(panels), path)


def _comparison_figure(panels: dict[tuple[Any, ...], list[Row]]) -> Figure:
    most = max(len(rows) for rows in panels.values())
    figure = new_figure(3.8 + 1.6 * most, 0.4 + 3.6 * len(panels))
    for place, ((dataset, partition, clients, metric), rows) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(len(panels), 1, place)
        factor = scale(metric)
        for offset, (name, label), colour in zip((-0.2, 0.2), _BARS, (COLOURS[0], COLOURS[4]), strict=True):
            spreads = [row.spread(name) or Spread(np.nan, None) for row in rows]
            places, heights = np.arange(len(rows)) + offset, np.array([factor * spread.mean for spread in spreads])
            deviations = np.array([np.nan if spread.std is None else factor * spread.std for spread in spreads])
            bars = axes.bar(places, heights, 0.38, color=colour, label=label)
            axes.errorbar(places, heights, deviations, fmt="none", ecolor="black", elinewidth=1.2, capsize=3)
            axes.bar_label(bars, fmt="%.1f" if factor == 100 else "%.3f", padding=4, fontsize=9)
        axes.set_xticks(range(len(rows)), [_name(row) for row in rows])
        axes.tick_params(axis="x", length=0, labelsize=9)
        axes.set_xlim(-0.6, most - 0.4)
        if factor == 100:
            axes.set_ylim(0, 105)
            axes.set_yticks(range(0, 101, 20))
        axes.set_ylabel(f"test {metric}{unit_suffix(metric)},\nmean over clients")
        axes.set_title(f"{dataset}, {partition}, {clients} clients")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside right upper", title=_seeds(panels), alignment="left"
    )
    return figure


def _name(row: Row) -> str:
    status = "" if row.completed else f"\n({row.counted[0].status})"
    return "\n".join([row.method, *row.settings.split(", ")]).strip() + status


def _seeds(panels: dict[tuple[Any, ...], list[Row]]) -> str:
    counts = sorted({len(row.counted) for rows in panels.values() for row in rows})
    if counts == [1]:
        return "one seed each"
    return f"mean ± std, {'–'.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} seeds"
