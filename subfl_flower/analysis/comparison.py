"""Several runs: the analyses of every method, as mean and deviation over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from subfl_flower.analysis.run_analysis import RunAnalysis
from subfl_flower.evaluation.plots import COLOURS, STYLE, new_figure, save
from subfl_flower.evaluation.rows import Row, Spread, build_rows
from subfl_flower.evaluation.table import scale, unit_suffix, write_lines

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


@dataclass(frozen=True)
class MethodAnalysis:
    """The analyses of a method's runs.

    Attributes:
        row: the method, its data, its settings.
        seeds: the `FIGURES` of each seed's run, by seed.
    """

    row: Row
    seeds: tuple[dict[str, float | None], ...]

    def spread(self, figure: str) -> Spread | None:
        """Mean and sample deviation over seeds of one of `FIGURES`; None where no run has it."""
        return Spread.of(figures.get(figure) for figures in self.seeds)


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


def compare(analyses: Sequence[RunAnalysis]) -> list[MethodAnalysis]:
    """Group runs that differ in their seed only, as `subfl report` does."""
    by_path = {analysis.run.path: run_figures(analysis) for analysis in analyses}
    return [
        MethodAnalysis(row, tuple(by_path[run.path] for run in row.counted))
        for row in build_rows([analysis.run for analysis in analyses])
    ]


def write_comparison(methods: Sequence[MethodAnalysis], path: Path) -> Path:
    """One line a method as CSV, fractions as they are; SubflError where `path` cannot be written."""
    heads = ["dataset", "partition", "clients", "method", "settings", "metric", "seeds"]
    heads += [f"{name}_{part}" for name in FIGURES for part in ("mean", "std")]
    lines = []
    for method in methods:
        row = method.row
        line: list[Any] = [*row.data, row.method, row.settings, row.metric]
        line.append(" ".join(str(run.seed) for run in row.counted))
        for name in FIGURES:
            line += method.spread(name) or (None, None)
        lines.append(line)
    write_lines(heads, lines, path)
    return path


def plot_comparison(methods: Sequence[MethodAnalysis], path: Path) -> Path | None:
    """Draw every method's test metric on own and on neighbours' data as PNG.

    Returns:
        `path`, or None where no run has such figures.

    Raises:
        SubflError: `path` cannot be written.
    """
    panels: dict[tuple[Any, ...], list[MethodAnalysis]] = {}
    for method in methods:
        if method.spread("own") and method.spread("on_neighbour"):
            panels.setdefault((*method.row.data, method.row.metric), []).append(method)
    if not panels:
        return None
    with matplotlib.rc_context(STYLE):
        return save(_comparison_figure(panels), path)


def _comparison_figure(panels: dict[tuple[Any, ...], list[MethodAnalysis]]) -> Figure:
    most = max(len(methods) for methods in panels.values())
    figure = new_figure(3.8 + 1.6 * most, 0.4 + 3.6 * len(panels))
    for place, ((dataset, partition, clients, metric), methods) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(len(panels), 1, place)
        factor = scale(metric)
        for offset, (name, label), colour in zip((-0.2, 0.2), _BARS, (COLOURS[0], COLOURS[4]), strict=True):
            spreads = [method.spread(name) or Spread(np.nan, None) for method in methods]
            places, heights = np.arange(len(methods)) + offset, np.array([factor * spread.mean for spread in spreads])
            deviations = np.array([np.nan if spread.std is None else factor * spread.std for spread in spreads])
            bars = axes.bar(places, heights, 0.38, color=colour, label=label)
            axes.errorbar(places, heights, deviations, fmt="none", ecolor="black", elinewidth=1.2, capsize=3)
            axes.bar_label(bars, fmt="%.1f" if factor == 100 else "%.3f", padding=4, fontsize=9)
        axes.set_xticks(range(len(methods)), [_name(method.row) for method in methods])
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


def _seeds(panels: dict[tuple[Any, ...], list[MethodAnalysis]]) -> str:
    counts = sorted({len(method.seeds) for methods in panels.values() for method in methods})
    if counts == [1]:
        return "one seed each"
    return f"mean ± std, {'–'.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} seeds"
