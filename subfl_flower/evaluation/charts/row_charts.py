"""The figures of several runs: the methods by round, by bytes, over clients, and along a key."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from subfl_flower.evaluation.charts.chart import Chart, Heat, Line, Mark, Panel, Rule, floats
from subfl_flower.evaluation.charts.looks import Look
from subfl_flower.evaluation.charts.run_charts import pairs
from subfl_flower.evaluation.curves import Curve, is_wide, value_text
from subfl_flower.evaluation.formats import axis_text, scale, unit_suffix
from subfl_flower.evaluation.frame import metric_frame
from subfl_flower.evaluation.rows import Row
from subfl_flower.evaluation.runs import VALIDATION

Looks = Mapping[str, Look]
"""Looks by label of a row."""

# Most marks on a linear axis.
_ROOM = 10
# Share of the axis left free on either side.
_MARGIN = 0.06
# Between the error bars of neighbouring curves, as a share of the axis.
_BAR_DISTANCE = 0.01
_MOST_CLIENTS = 40


def row_charts(rows: Sequence[Row], looks: Looks) -> list[Chart]:
    """All figures of the methods that there are data for."""
    made = (convergence_chart(rows, looks), bytes_chart(rows, looks), clients_chart(rows, looks), mixing_chart(rows))
    return [chart for chart in made if chart]


def convergence_chart(rows: Sequence[Row], looks: Looks) -> Chart | None:
    """The test metric by round, one panel for each data set and metric.

    The line is the mean over the seeds that reached a round, the band one sample standard deviation.
    """

    def line(row: Row) -> Line | None:
        found = result_by_round(row)
        return _line(row, looks, found.index, found) if len(found) else None

    return _by_panel("convergence", "Convergence", "communication round", rows, line)


def bytes_chart(rows: Sequence[Row], looks: Looks) -> Chart | None:
    """The test metric by the bytes sent so far, up and down and outside of rounds, as means over seeds."""

    def line(row: Row) -> Line | None:
        found, sent = result_by_round(row), megabytes_by_round(row)
        return _line(row, looks, sent[found.index], found) if len(found) and sent.max() > 0 else None

    return _by_panel("bytes", "Test metric against bytes", "MB sent, up and down", rows, line, whole=False)


def clients_chart(rows: Sequence[Row], looks: Looks) -> Chart | None:
    """The test metric of each client at the best round, mean over seeds, by method; clients from worst to best.

    Of many clients, quantiles are drawn.
    """
    panels = []
    found = {id(row): _clients(row) for row in rows}
    for panel, of_panel in _panels(row for row in rows if len(found[id(row)])).items():
        marks: list[Mark] = []
        ticks = {}
        for place, row in enumerate(of_panel):
            values = np.sort(found[id(row)]) * scale(row.metric)
            if len(values) > _MOST_CLIENTS:
                values = np.quantile(values, np.linspace(0, 1, _MOST_CLIENTS))
            look = looks[row.label]
            x = place + np.linspace(-0.3, 0.3, len(values)) if len(values) > 1 else floats([place])
            marks.append(Line(_label(row), x, values, Look(look.colour, "", look.marker), size=4))
            mean, ends = values.mean(), floats([place - 0.38, place + 0.38])
            marks.append(Line("", ends, floats([mean, mean]), Look(look.colour, "solid"), width=1.4))
            ticks[float(place)] = row.method
        *where, metric = panel
        y = f"test {metric}{unit_suffix(metric)} of each client"
        limits = (-0.6, len(of_panel) - 0.4)
        panels.append(Panel(_where(where), "", y, marks, ticks, x_range=limits))
    return Chart("clients", "Clients, from the worst to the best, and their mean", panels) if panels else None


def mixing_chart(rows: Sequence[Row]) -> Chart | None:
    """The last mixing matrix of each row's first run, next to missing edges and label similarity where analysed."""
    panels = []
    for row in rows:
        for run in row.counted[:1]:
            if matrices := run.directory.mixing():
                last = max(matrices)
                heat = pairs(100.0 * matrices[last], "weight (%)", low=min(0.0, 100.0 * float(matrices[last].min())))
                heading = f"{row.label}: mixing matrix, round {last}, seed {run.seed}"
                panels.append(Panel(heading, "client j, whose parameters are taken", "client i", [heat]))
    known: set[tuple[str, ...]] = set()
    for row in rows:
        for run in row.counted[:1]:
            similarity = (run.directory.analysis() or {}).get("similarity")
            if similarity and row.data not in known:
                known.add(row.data)
                for key, heading in (("missing_edges", "missing edges"), ("label", "label similarity")):
                    if similarity.get(key) is not None:
                        heat = off_diagonal(floats(similarity[key]), heading)
                        panels.append(Panel(f"{_where(row.data)}: {heading}", "client", "client", [heat]))
    note = "" if known else "subfl analyse RUN adds missing edges and label similarity"
    return Chart("mixing", "Mixing matrices, missing edges and label similarity", panels, note) if panels else None


def curves_chart(curves: Sequence[Curve], key: str, looks: Looks) -> Chart | None:
    """The test metric at the best validation round by value of the key, one panel for each data set and metric.

    Points are means over seeds, bars one sample standard deviation. Hollow points are runs that were not completed.
    References are horizontal lines with a band. A panel without a point is left out; without panels there is no figure.
    """
    evaluated = [curve for curve in curves if any(_result(row) for row in curve.rows)]
    drawn: dict[tuple[str, ...], list[Curve]] = {curve.row.panel: [] for curve in evaluated if curve.points}
    for curve in evaluated:
        if curve.row.panel in drawn:
            drawn[curve.row.panel].append(curve)
    panels = []
    for (*where, metric), of_panel in drawn.items():
        values = sorted({value for curve in of_panel for value in curve.points})
        log = is_wide(values)
        limits = _limits(values, log)
        beside = sum(bool(curve.points) for curve in of_panel)
        shifts = iter(_BAR_DISTANCE * (np.arange(beside) - (beside - 1) / 2))
        marks: list[Mark] = []
        for curve in of_panel:
            look = looks[curve.row.label]
            if curve.points:
                marks += _points(curve, look, _places(curve, next(shifts), limits, log))
            elif result := _result(curve.row):
                dash = "dash" if look.dash == "solid" else look.dash
                marks.append(Rule(curve.row.label, result[0], Look(look.colour, dash), spread=result[1]))
        ticks = None
        if not log and (len(values) == 1 or _ROOM * min(np.diff(values)) >= values[-1] - values[0]):
            ticks = {value: value_text(value) for value in values}
        whole = all(value % 1 == 0 for value in values)
        y = f"{_role([row for curve in of_panel for row in curve.rows])} {axis_text(metric)}"
        panels.append(Panel(_where(where), key, y, marks, ticks, whole, limits, log=log))
    rows = [row for of_panel in drawn.values() for curve in of_panel for row in curve.rows if _result(row)]
    return Chart(f"curve-{key}", f"Test metric by {key}", panels, seeds_text(rows)) if panels else None


def result_by_round(row: Row) -> pd.DataFrame:
    """Mean and sample standard deviation (0 of one seed) of the metric as shown: `mean` and `std` by round.

    The metric is that of tests; of runs that record none, that of validation.
    """
    return _by_round(row, _role([row])).agg(["mean", "std"]).fillna(0.0) * scale(row.metric)


def megabytes_by_round(row: Row) -> pd.Series:
    """Megabytes up and down from the start to the end of a round, outside of rounds included, mean over seeds."""
    frame = metric_frame(row.counted)
    sent = frame[frame["client"].isna() & frame["metric"].isin(["bytes_up", "bytes_down"])]
    phases = [
        (str(run.path), phase.get("round", 1), phase["bytes_up"] + phase["bytes_down"])
        for run in row.counted
        for phase in run.figures.get("exchanges") or []
    ]
    outside = pd.DataFrame(phases, columns=["run", "round", "value"]).astype({"round": "int64", "value": "float64"})
    by_run = pd.concat([sent[["run", "round", "value"]], outside]).groupby(["round", "run"])["value"].sum().unstack()
    return by_run.cumsum().mean(axis=1) / 1e6


def off_diagonal(matrix: np.ndarray, label: str) -> Heat:
    """A heat map in the range of its entries off the diagonal, which is left grey."""
    return pairs(np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix), label)


def seeds_text(rows: Sequence[Row]) -> str:
    """Head of a legend: the number of seeds of the rows."""
    counts = sorted({len(row.counted) for row in rows})
    if counts == [1]:
        return "one seed each"
    return f"mean ± std, {'–'.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} seeds"


def _by_round(row: Row, metric: str) -> Any:
    frame = metric_frame(row.counted)
    return frame[frame["client"].isna() & (frame["metric"] == metric)].groupby("round")["value"]


def _by_panel(
    name: str, heading: str, x: str, rows: Sequence[Row], line: Callable[[Row], Line | None], whole: bool = True
) -> Chart | None:
    """A figure with a line a row, and a panel for each data set and metric."""
    lines = {id(row): line(row) for row in rows}
    drawn = [row for row in rows if lines[id(row)]]
    panels = []
    for (*where, metric), of_panel in _panels(drawn).items():
        marks = [found for row in of_panel if (found := lines[id(row)])]
        panels.append(Panel(_where(where), x, f"{_role(of_panel)} {axis_text(metric)}", marks, whole=whole))
    return Chart(name, heading, panels, seeds_text(drawn)) if panels else None


def _panels(rows: Iterable[Row]) -> dict[tuple[str, ...], list[Row]]:
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(row.panel, []).append(row)
    return found


def _line(row: Row, looks: Looks, x: Any, found: pd.DataFrame) -> Line:
    look = looks[row.label]
    marker = look.marker if len(found) == 1 else ""
    y, spread = found["mean"].to_numpy(), found["std"].to_numpy()
    return Line(_label(row), np.asarray(x), y, Look(look.colour, look.dash, marker), spread)


def _label(row: Row) -> str:
    return row.label if row.completed else f"{row.label}: {row.counted[0].status}"


def _where(data: Sequence[str]) -> str:
    dataset, partition, clients = data
    return f"{dataset}, {partition}, {clients} clients"


def _role(rows: Sequence[Row]) -> str:
    """The examples whose metric is drawn: ``validation`` where no row has a test."""
    return "validation" if all(row.judged_by == VALIDATION for row in rows) else "test"


def _clients(row: Row) -> np.ndarray:
    """Mean over seeds of each client's test metric at the best round, `[clients that have one]`."""
    found = [run.figures.get("per_client") or {} for run in row.counted]
    series = [pd.Series(each["test_at_best_validation"], each["ids"], dtype="float64") for each in found if each]
    means = pd.concat(series, axis=1).mean(axis=1).dropna() if series else pd.Series(dtype="float64")
    values: np.ndarray = means.to_numpy()
    return values


def _points(curve: Curve, look: Look, places: Mapping[float, float]) -> list[Line]:
    """A curve and its hollow points, drawn at the places of the values."""
    known = {value: result for value, row in curve.points.items() if (result := _result(row))}
    x = floats([places[value] for value in known])
    mean, spread = floats(list(known.values())).T
    drawn = [Line(curve.row.label, x, mean, Look(look.colour, look.dash, "circle"), spread, bars=True)]
    partial = np.array([not curve.points[value].completed for value in known])
    if partial.any():
        drawn.append(Line("not completed", x[partial], mean[partial], Look(look.colour, "", "circle-open")))
    return drawn


def _places(curve: Curve, by: float, limits: tuple[float, float], log: bool) -> dict[float, float]:
    """The values moved by a share of the axis, so that the bars of several curves do not hide each other."""
    low, high = limits
    return {value: value * (high / low) ** by if log else value + by * (high - low) for value in curve.points}


def _result(row: Row) -> tuple[float, float] | None:
    """Mean and sample standard deviation (0 of one seed) as shown; None where no run was evaluated."""
    found = row.spread(row.judged_by)
    factor = scale(row.metric)
    return None if found is None else (factor * found.mean, factor * (found.std or 0.0))


def _limits(values: Sequence[float], log: bool) -> tuple[float, float]:
    low, high = values[0], values[-1]
    if log:
        margin = (high / low) ** _MARGIN
        return low / margin, high * margin
    margin = _MARGIN * (high - low) or 1.0
    return low - margin, high + margin
