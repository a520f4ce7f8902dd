"""The figures of one run's analyses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from subfl_flower.analysis.neighbours import NeighbourPerformance
from subfl_flower.analysis.run_analysis import RunAnalysis, Similarity
from subfl_flower.analysis.sharing import ParameterSharing
from subfl_flower.evaluation.formats import scale, unit_suffix
from subfl_flower.evaluation.plots import COLOURS, STYLE, heat_map, legend_outside, new_figure, save, shown, title

_MOST_LABELS = 40


def plot_analysis(analysis: RunAnalysis) -> list[Path]:
    """Draw a run's analyses into its plots folder; return the paths of the files written.

    Raises:
        SubflError: the folder cannot be written.
    """
    folder = analysis.run.directory.plots_folder
    heading = title(analysis.run)
    models = analysis.models
    if models is None:
        return []
    with matplotlib.rc_context(STYLE):
        drawn = [
            save(similarity_figure(models.similarity, heading), folder / "analysis-similarity.png"),
            save(neighbours_figure(models.neighbours, heading), folder / "analysis-neighbours.png"),
        ]
        if models.sharing:
            drawn.append(save(sharing_figure(models.sharing, heading), folder / "analysis-sharing.png"))
    return drawn


def similarity_figure(similarity: Similarity, heading: str) -> Figure:
    """Functional similarity, missing edges and label similarity of every pair of clients, as heat maps."""
    panels = [("functional similarity of models\n(cosine)", similarity.functional)]
    panels.append((f"missing edges between clients\n{_rho(similarity.with_missing)}", similarity.missing_edges))
    if similarity.label is not None and similarity.with_label is not None:
        panels.append((f"label similarity (1 - JS divergence)\n{_rho(similarity.with_label)}", similarity.label))
    figure = new_figure(0.6 + 4.1 * len(panels), 4.6)
    for place, (name, matrix) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, len(panels), place)
        image = _pairs(axes, matrix)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("client")
        axes.set_ylabel("client" if place == 1 else "")
        bar = figure.colorbar(image, ax=axes, shrink=0.75, pad=0.03)
        bar.outline.set_visible(False)
        if np.issubdtype(matrix.dtype, np.integer):
            bar.ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.suptitle(f"{heading}: pairs of clients\n", x=0.01, ha="left", fontsize=11)
    return figure


def neighbours_figure(found: NeighbourPerformance, heading: str) -> Figure:
    """Every client's model on its own test examples and on its neighbour's."""
    factor = scale(found.metric)
    figure, axes = _by_client(
        {
            "on own test data": factor * found.own,
            "on the test data of\nthe neighbour": factor * found.on_neighbour,
        },
        lambda value: shown(value, found.metric),
        f"{heading}: each model on the client\nto which it has the most missing edges",
    )
    axes.set_ylabel(f"test {found.metric}{unit_suffix(found.metric)}")
    _mark_neighbours(axes, found.neighbour)
    if factor == 100:
        axes.set_ylim(0, 102)
    return figure


def sharing_figure(sharing: ParameterSharing, heading: str) -> Figure:
    """The share of weights that every client has in common with the most and the least similar other one."""
    figure, axes = _by_client(
        {
            "with the most similar client": 100 * sharing.most_similar.jaccard,
            "with the least similar client": 100 * sharing.least_similar.jaccard,
        },
        lambda value: f"{value:.1f} %",
        f"{heading}: weights in common",
    )
    axes.set_ylabel("weights that both keep,\nof those that either keeps (%)")
    axes.set_ylim(bottom=0)
    return figure


def _rho(correlation: float) -> str:
    found = "undefined" if np.isnan(correlation) else f"{correlation:.2f}"
    return f"rank correlation with functional: {found}"


def _pairs(axes: Any, matrix: np.ndarray) -> Any:
    """A heat map in the range of its entries off the diagonal, which is left grey."""
    known = np.ma.masked_invalid(np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix.astype(float)))
    axes.set_facecolor("#DDDDDD")
    return heat_map(axes, known, {})


def _by_client(series: Mapping[str, np.ndarray], text: Callable[[float], str], heading: str) -> tuple[Figure, Any]:
    """Two values a client by name, joined by a line, with their means in the legend as `text` writes them."""
    low, high = series.values()
    figure = new_figure(min(16.0, 6.4 + 0.12 * len(low)), 4.2)
    axes = figure.add_subplot()
    places = np.arange(len(low))
    size = 7 if len(low) <= _MOST_LABELS else 4
    axes.vlines(places, low, high, color="#BBBBBB", linewidth=1.6)
    for (name, values), colour, marker in zip(series.items(), COLOURS, ("o", "D"), strict=False):
        mean = float(pd.Series(values).mean())
        label = name if np.isnan(mean) else f"{name}\n(mean {text(mean)})"
        axes.plot(places, values, marker, color=colour, markersize=size, label=label, clip_on=False)
        axes.axhline(mean, color=colour, linewidth=1.0, linestyle="--")
    axes.set_xlim(-0.6, len(low) - 0.4)
    axes.set_xlabel("client")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=25, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    axes.set_title(heading)
    legend_outside(axes)
    return figure, axes


def _mark_neighbours(axes: Any, neighbour: np.ndarray) -> None:
    """Name the neighbour below each client, where there is room."""
    if len(neighbour) <= _MOST_LABELS:
        axes.set_xticks(range(len(neighbour)), [f"{c}\n{'–' if j < 0 else f'→{j}'}" for c, j in enumerate(neighbour)])
        axes.tick_params(axis="x", length=0, labelsize=9 if len(neighbour) <= 20 else 7)
        axes.set_xlabel("client (→ neighbour)")
