"""The figures of `subfl analyse`, from the content of `analysis.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from subfl_flower.evaluation.charts.chart import Bars, Chart, Line, Mark, Panel, Rule, floats
from subfl_flower.evaluation.charts.looks import COLOURS, Look
from subfl_flower.evaluation.charts.row_charts import off_diagonal, seeds_text
from subfl_flower.evaluation.formats import scale, shown, unit_suffix
from subfl_flower.evaluation.rows import Row, Spread

_MOST_LABELS = 40
_FUNCTIONAL = "rank correlation with functional"


def analysis_charts(analysis: Mapping[str, Any], heading: str) -> list[Chart]:
    """All figures that an analysis has data for.

    Args:
        analysis: result of `RunAnalysis.plain`, or the content of `analysis.json`.
        heading: title of the run.
    """
    charts = []
    if similarity := analysis.get("similarity"):
        charts.append(similarity_chart(similarity, heading))
    if neighbours := analysis.get("neighbours"):
        charts.append(neighbours_chart(neighbours, heading))
    if sharing := analysis.get("parameter_sharing"):
        charts.append(sharing_chart(sharing, heading))
    return charts


def similarity_chart(similarity: Mapping[str, Any], heading: str) -> Chart:
    """Functional similarity, missing edges and label similarity of every pair of clients, as heat maps."""
    correlation = similarity["rank_correlation_with_functional"]
    panels = [_pairs("functional similarity of models", "cosine", similarity["functional"])]
    title = f"missing edges between clients; {_rho(correlation['missing_edges'])}"
    panels.append(_pairs(title, "edges", similarity["missing_edges"]))
    if similarity["label"] is not None:
        title = f"label similarity; {_rho(correlation['label'])}"
        panels.append(_pairs(title, "1 - JS divergence", similarity["label"]))
    return Chart("analysis-similarity", f"{heading}: pairs of clients", panels)


def neighbours_chart(found: Mapping[str, Any], heading: str) -> Chart:
    """Every client's model on its own test examples and on its neighbour's."""
    metric = found["metric"]
    factor = scale(metric)
    series = {
        "on own test data": factor * floats(found["own"]),
        "on the test data of the neighbour": factor * floats(found["on_neighbour"]),
    }
    neighbour = list(found["neighbour"])
    names = [f"{client}\n{'–' if other < 0 else f'→{other}'}" for client, other in enumerate(neighbour)]
    marks = _by_client(series, lambda value: shown(value, metric))
    panel = Panel(
        "each model on the client to which it has the most missing edges",
        "client (→ neighbour)" if len(names) <= _MOST_LABELS else "client",
        f"test {metric}{unit_suffix(metric)}",
        marks,
        {float(place): name for place, name in enumerate(names)} if len(names) <= _MOST_LABELS else None,
        x_range=(-0.6, len(names) - 0.4),
        y_range=(0.0, 102.0) if factor == 100 else (None, None),
    )
    return Chart("analysis-neighbours", heading, [panel])


def sharing_chart(sharing: Mapping[str, Any], heading: str) -> Chart:
    """The share of weights that every client has in common with the most and the least similar other one."""
    series = {
        f"with the {which} similar client": 100 * floats(sharing[f"{which}_similar"]["jaccard"])
        for which in ("most", "least")
    }
    count = len(sharing["most_similar"]["jaccard"])
    panel = Panel(
        "weights in common",
        "client",
        "weights that both keep, of those that either keeps (%)",
        _by_client(series, lambda value: f"{value:.1f} %"),
        x_range=(-0.6, count - 0.4),
        y_range=(0.0, None),
    )
    return Chart("analysis-sharing", heading, [panel])


def methods_chart(rows: Sequence[Row]) -> Chart | None:
    """Every method's test metric on own and on neighbours' data; None where no run has such figures.

    Args:
        rows: result of `subfl_flower.analysis.comparison.compare`.
    """
    panels: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        if row.spread("own") and row.spread("on_neighbour"):
            panels.setdefault(row.panel, []).append(row)
    drawn = [row for of_panel in panels.values() for row in of_panel]
    made = [_methods(panel, of_panel) for panel, of_panel in panels.items()]
    heading = "Clients' models on own and on neighbours' data"
    return Chart("analysis-neighbours", heading, made, seeds_text(drawn), columns=1) if made else None


def _methods(panel: tuple[str, ...], rows: Sequence[Row]) -> Panel:
    dataset, partition, clients, metric = panel
    marks, factor = [], scale(metric)
    names = {"own": "on the client's own test data", "on_neighbour": "on the test data of its neighbour"}
    for (figure, name), colour, offset in zip(names.items(), (COLOURS[0], COLOURS[4]), (-0.2, 0.2), strict=True):
        spreads = pd.DataFrame([row.spread(figure) or Spread(np.nan, None) for row in rows], dtype="float64")
        mean, std = factor * spreads.to_numpy().T
        marks.append(Bars(name, np.arange(len(rows)) + offset, mean, colour, 0.38, std))
    return Panel(
        f"{dataset}, {partition}, {clients} clients",
        "",
        f"test {metric}{unit_suffix(metric)}, mean over clients",
        marks,
        {float(place): _name(row) for place, row in enumerate(rows)},
        x_range=(-0.6, len(rows) - 0.4),
        y_range=(0.0, 105.0 if factor == 100 else None),
    )


def _name(row: Row) -> str:
    status = "" if row.completed else f"({row.counted[0].status})"
    return "\n".join(filter(None, [row.method, *row.settings.split(", "), status]))


def _rho(correlation: float | None) -> str:
    undefined = correlation is None or np.isnan(correlation)
    return f"rank correlation with functional: {'undefined' if undefined else f'{correlation:.2f}'}"


def _pairs(title: str, label: str, matrix: Any) -> Panel:
    return Panel(title, "client", "client", [off_diagonal(floats(matrix), label)])


def _by_client(series: Mapping[str, np.ndarray], text: Any) -> list[Mark]:
    """Two values a client by name, joined by a line, with their means in the legend as `text` writes them."""
    low, high = series.values()
    places = np.arange(len(low))
    gaps = np.full(len(low), np.nan)
    ends = np.stack([low, high, gaps], axis=1).ravel()
    marks: list[Mark] = [Line("", np.repeat(places, 3).astype(float), ends, Look("#BBBBBB"), width=1.6)]
    for (name, values), colour, marker in zip(series.items(), COLOURS, ("circle", "diamond"), strict=False):
        mean = float(pd.Series(values).mean())
        size = 7 if len(low) <= _MOST_LABELS else 4
        label = name if np.isnan(mean) else f"{name} (mean {text(mean)})"
        marks.append(Line(label, places, values, Look(colour, "", marker), size=size))
        if not np.isnan(mean):
            marks.append(Rule("", mean, Look(colour, "dash")))
    return marks
