"""The figures of one run: convergence, clients, mixing matrices, clusters of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subfl_flower.evaluation.charts.chart import Bars, Chart, Heat, Line, Mark, Panel, Rule, Shade, floats
from subfl_flower.evaluation.charts.cluster_charts import clusters_chart
from subfl_flower.evaluation.charts.looks import COLOURS, GREY, Look
from subfl_flower.evaluation.formats import axis_text, scale, shown, unit_suffix
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import clients_heard, last_known, lower_is_better, number

_MOST_BARS = 150
_EARLIER_MATRICES = 4
_WRITTEN = 12
_BLUE, _RED = COLOURS[:2]


def run_charts(run: Run) -> list[Chart]:
    """All figures that the run has data for."""
    charts = []
    if any(_evaluated(record) for record in run.rounds):
        charts.append(convergence_chart(run))
    per_client = run.figures.get("per_client") or {}
    if any(number(value) is not None for value in per_client.get("test_at_best_validation") or []):
        charts.append(clients_chart(run))
    if matrices := run.directory.mixing():
        charts.append(mixing_chart(matrices, title(run)))
    if clusterings := run.directory.clusters():
        charts.append(clusters_chart(clusterings, title(run)))
    return charts


def title(run: Run) -> str:
    """Title of a figure of the run."""
    seed = "" if run.seed is None else f", seed {run.seed}"
    mark = "" if run.status == "completed" else f" ({run.status})"
    return f"{run.method} on {run.dataset}, {run.partition}, {run.clients or '?'} clients{seed}{mark}"


def convergence_chart(run: Run) -> Chart:
    """Validation and test metric by round; those as received are dashed, the best round is marked.

    Rounds before every client was evaluated are shaded: their means are over fewer clients.
    """
    records = [record for record in run.rounds if _evaluated(record)]
    factor, numbers = scale(run.metric), np.array([record["round"] for record in records])
    marker = "circle" if len(records) == 1 else ""
    curves = (
        ("test", "test", Look(_BLUE, "solid", marker), 2.0),
        ("validation", "validation", Look(_RED, "solid", marker), 1.4),
        ("test_as_received", "test, as received", Look(_BLUE, "dash", marker), 1.2),
        ("validation_as_received", "validation, as received", Look(_RED, "dash", marker), 1.0),
    )
    marks: list[Mark] = []
    for key, label, look, width in curves:
        values = _numbers([record.get(key) for record in records]) * factor
        if not np.isnan(values).all():
            marks.append(Line(label, numbers, values, look, width=width))
    heard = [clients_heard(record) for record in records]
    if heard[0] < max(heard):
        until = numbers[heard.index(max(heard))]
        marks.insert(0, Shade(f"fewer than {max(heard)} clients heard so far", numbers[0], until))
    best = run.best_record
    if best is not None and number(best.get("test")) is not None:
        value = best["test"] * factor
        label = f"best validation: round {best['round']}, test {shown(value, run.metric)}"
        marks.append(Rule("", best["round"], Look(GREY, "dot"), axis="x"))
        marks.append(Line(label, floats([best["round"]]), floats([value]), Look(_BLUE, "", "circle"), size=8))
    return Chart("convergence", title(run), [Panel("", "communication round", axis_text(run.metric), marks)])


def clients_chart(run: Run) -> Chart:
    """Test metric of every client at the best round, by client id, with the mean; many as a histogram."""
    per_client, factor = run.figures["per_client"], scale(run.metric)
    ids = np.array(per_client["ids"])
    order = np.argsort(ids, kind="stable")
    tests = _numbers(per_client["test_at_best_validation"])[order] * factor
    mean, what = float(np.nanmean(tests)), f"test {run.metric}{unit_suffix(run.metric)}"
    if lower_is_better(run.metric):  # The mean of clients' own errors is not the run's error.
        words = f"mean over clients {shown(mean, run.metric)}, highest {shown(np.nanmax(tests), run.metric)}"
    else:
        words = f"mean {shown(mean, run.metric)}, lowest {shown(np.nanmin(tests), run.metric)}"
    heading = f"{title(run)}: clients at round {run.figures['best_round']}"
    if len(ids) > _MOST_BARS:
        counts, edges = np.histogram(tests[~np.isnan(tests)], bins=40)
        bars = Bars("", (edges[:-1] + edges[1:]) / 2, counts, COLOURS[5], width=edges[1] - edges[0])
        rule = Rule(words, mean, Look(_RED), axis="x")
        return Chart("clients", heading, [Panel("", what, "clients", [bars, rule], whole=False)])
    places = np.arange(len(ids))
    received = _as_received(run, ids[order]) * factor
    marks: list[Mark] = [Bars("", places, tests, COLOURS[5])]
    if not np.isnan(received).all():
        marks = [
            Bars("after local training", places, tests, COLOURS[5]),
            Line("as received", places, received, Look("#444444", "", "diamond")),
        ]
    marks.append(Rule(words, mean, Look(_RED)))
    ticks = {float(place): str(client) for place, client in enumerate(ids[order])}
    x_range, y_range = (-0.6, len(ids) - 0.4), (0.0, 100.0 if factor == 100 else None)
    return Chart("clients", heading, [Panel("", "client", what, marks, ticks, x_range=x_range, y_range=y_range)])


def mixing_chart(matrices: Mapping[int, NDArray[np.floating]], heading: str) -> Chart:
    """The last mixing matrix as a heat map, and up to four earlier ones in its colour scale.

    Args:
        matrices: `[clients, clients]` by round; entry i, j is the weight of client j's parameters for client i.
        heading: the figure's title.
    """
    rounds = sorted(matrices)
    picks = np.unique(np.linspace(0, len(rounds) - 2, _EARLIER_MATRICES).round().astype(int))
    numbers = [rounds[-1], *([rounds[pick] for pick in picks] if len(rounds) > 1 else [])]
    shown_ = [100.0 * matrices[number] for number in numbers]
    low = min(0.0, *(float(matrix.min()) for matrix in shown_))
    high = max(low + 1e-9, *(float(matrix.max()) for matrix in shown_))
    panels = [
        Panel(
            f"round {number}",
            "client j, whose parameters are taken",
            "client i, who receives the mix",
            [pairs(matrix, "weight (%)", low, high, written=number == rounds[-1] and len(matrix) <= _WRITTEN)],
        )
        for number, matrix in zip(numbers, shown_, strict=True)
    ]
    return Chart("mixing", f"{heading}: mixing matrix; a row sums to 100 %", panels)


def pairs(
    matrix: NDArray[Any], label: str, low: float | None = None, high: float | None = None, written: bool = False
) -> Heat:
    """A heat map of values of every two clients."""
    return Heat(matrix, label, np.arange(len(matrix)), low, high, written)


def _evaluated(record: Mapping[str, Any]) -> bool:
    return number(record.get("test")) is not None or number(record.get("validation")) is not None


def _numbers(values: Sequence[Any]) -> NDArray[np.float64]:
    return floats([number(value) for value in values])


def _as_received(run: Run, ids: NDArray[Any]) -> NDArray[np.float64]:
    """The clients' test metric at the best round before their local step, `[len(ids)]`; NaN where unknown."""
    best = run.best_record
    reached = [] if best is None else [record for record in run.rounds if record["round"] <= best["round"]]
    known = last_known(reached, "test_as_received")
    return _numbers([known.get(int(client)) for client in ids])
