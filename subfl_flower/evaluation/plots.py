"""The figures of one run: convergence, per-client test metric, mixing matrix, clusters of users."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.cluster_plot import draw_clusters, figure_width
from subfl_flower.evaluation.formats import axis_text, scale, unit_suffix
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import clients_heard, last_known, lower_is_better, number
from subfl_flower.runs.round_arrays import Clustering

# Okabe and Ito's palette, which readers with colour-blindness can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
STYLE = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "legend.frameon": False,
}
_MOST_BARS = 150
_EARLIER_MATRICES = 4


def plot_run(run: Run) -> list[Path]:
    """Draw all figures that the run has data for into its plots folder; return the paths of the files written.

    Raises:
        SubflError: the folder cannot be written.
    """
    folder = run.directory.plots_folder
    drawn = []
    with matplotlib.rc_context(STYLE):
        if any(_evaluated(record) for record in run.rounds):
            drawn.append(save(convergence_figure(run), folder / "convergence.png"))
        per_client = run.figures.get("per_client") or {}
        if any(number(value) is not None for value in per_client.get("test_at_best_validation") or []):
            drawn.append(save(clients_figure(run), folder / "clients.png"))
        if matrices := run.directory.mixing():
            drawn.append(save(mixing_figure(matrices, title(run)), folder / "mixing.png"))
        if clusterings := run.directory.clusters():
            drawn.append(save(clusters_figure(clusterings, title(run)), folder / "clusters.png"))
    return drawn


def convergence_figure(run: Run) -> Figure:
    """Validation and test metric by round; those as received are dashed, the best round is marked.

    Rounds before every client was evaluated are shaded: their means are over fewer clients.
    """
    records = [record for record in run.rounds if _evaluated(record)]
    factor = scale(run.metric)
    figure = new_figure(8.2, 4.4)
    axes = figure.add_subplot()
    curves = (
        ("test", "test", COLOURS[0], "-", 2.0),
        ("validation", "validation", COLOURS[1], "-", 1.4),
        ("test_as_received", "test, as received", COLOURS[0], "--", 1.2),
        ("validation_as_received", "validation, as received", COLOURS[1], "--", 1.0),
    )
    numbers = [record["round"] for record in records]
    marker = "o" if len(records) == 1 else None
    for key, label, colour, line, width in curves:
        values = column(records, key) * factor
        if not np.isnan(values).all():
            axes.plot(numbers, values, line, color=colour, linewidth=width, label=label, marker=marker)
    heard = [clients_heard(record) for record in records]
    if heard[0] < max(heard):
        until = numbers[heard.index(max(heard))]
        label = f"fewer than {max(heard)}\nclients heard so far"
        axes.axvspan(numbers[0], until, color="#EEEEEE", zorder=0, label=label)
    best = run.best_record
    if best is not None and number(best.get("test")) is not None:
        value = best["test"] * factor
        axes.axvline(best["round"], color="#777777", linewidth=0.9, linestyle=":")
        label = f"best validation: round {best['round']},\ntest {shown(value, run.metric)}"
        axes.plot(
            [best["round"]],
            [value],
            "o",
            color=COLOURS[0],
            markeredgecolor="white",
            markersize=9,
            label=label,
        )
    name_axes(axes, "communication round", axis_text(run.metric))
    axes.set_title(title(run))
    legend_outside(axes)
    return figure


def clients_figure(run: Run) -> Figure:
    """Test metric of every client at the best round, by client id, with the mean; many as a histogram."""
    per_client = run.figures["per_client"]
    factor, ids = scale(run.metric), np.array(per_client["ids"])
    order = np.argsort(ids, kind="stable")
    tests = _floats(per_client["test_at_best_validation"])[order] * factor
    received = _as_received(run, ids[order]) * factor
    mean, what = float(np.nanmean(tests)), f"test {run.metric}{unit_suffix(run.metric)}"
    if lower_is_better(run.metric):  # The mean of clients' own errors is not the run's error.
        words = f"mean over clients {shown(mean, run.metric)}\nhighest {shown(np.nanmax(tests), run.metric)}"
    else:
        words = f"mean {shown(mean, run.metric)}\nlowest {shown(np.nanmin(tests), run.metric)}"
    if len(ids) > _MOST_BARS:
        figure = new_figure(8.2, 4.0)
        axes = figure.add_subplot()
        axes.hist(tests[~np.isnan(tests)], bins=40, color=COLOURS[5], edgecolor="white", linewidth=0.4)
        axes.axvline(mean, color=COLOURS[1], linewidth=1.6, label=words)
        axes.set_xlabel(what)
        axes.set_ylabel("clients")
        axes.yaxis.set_major_locator(whole_numbers())
    else:
        figure = new_figure(min(16.0, 6.0 + 0.16 * len(ids)), 4.0)
        axes = figure.add_subplot()
        places = np.arange(len(ids))
        bars = axes.bar(places, tests, width=0.72, color=COLOURS[5])
        if not np.isnan(received).all():
            bars.set_label("after local\ntraining")
            axes.plot(places, received, "D", color="black", mfc="white", markersize=4.5, label="as received")
        axes.axhline(mean, color=COLOURS[1], linewidth=1.6, label=words)
        step = max(1, -(-len(ids) // 50))
        axes.set_xticks(places[::step], [str(client) for client in ids[order][::step]])
        axes.tick_params(axis="x", length=0, labelsize=10 if len(ids) <= 30 else 8)
        axes.set_xlim(-0.6, len(ids) - 0.4)
        axes.set_xlabel("client")
        axes.set_ylabel(what)
        if factor == 100:
            axes.set_ylim(0, 100)
    axes.set_title(f"{title(run)}: clients at round {run.figures['best_round']}")
    legend_outside(axes)
    return figure


def mixing_figure(matrices: Mapping[int, NDArray[np.floating]], heading: str) -> Figure:
    """The last mixing matrix as a heat map and, smaller, up to four earlier ones, in one colour scale.

    Args:
        matrices: `[clients, clients]` by round; entry i, j is the weight of client j's parameters for client i.
        heading: the figure's title.
    """
    rounds = sorted(matrices)
    percent = {number: 100.0 * matrices[number] for number in rounds}
    last = percent[rounds[-1]]
    picks = np.unique(np.linspace(0, len(rounds) - 2, _EARLIER_MATRICES).round().astype(int))
    earlier = [rounds[pick] for pick in picks] if len(rounds) > 1 else []
    shown = [last, *(percent[number] for number in earlier)]
    limits = {"vmin": min(0.0, *(float(m.min()) for m in shown)), "vmax": max(float(m.max()) for m in shown)}
    limits["vmax"] = max(limits["vmax"], limits["vmin"] + 1e-9)
    figure = new_figure(9.6 if earlier else 6.0, 5.0)
    grid = figure.add_gridspec(2, 4 if earlier else 2)
    axes = figure.add_subplot(grid[:, :2])
    image = heat_map(axes, last, limits)
    axes.set_title(f"round {rounds[-1]}")
    axes.set_xlabel("client j, whose parameters are taken")
    axes.set_ylabel("client i, who receives the mix")
    if len(last) <= 12:
        _write_weights(axes, last, limits)
    for place, number_of_round in enumerate(earlier):
        small = figure.add_subplot(grid[place // 2, 2 + place % 2])
        heat_map(small, percent[number_of_round], limits)
        small.set_title(f"round {number_of_round}", fontsize=9)
        small.set_xticks([])
        small.set_yticks([])
    bar = figure.colorbar(image, ax=figure.axes, shrink=0.85, label="weight (%); a row sums to 100")
    bar.outline.set_visible(False)
    figure.suptitle(f"{heading}: mixing matrix", x=0.01, ha="left", fontsize=11)
    return figure


def clusters_figure(clusterings: Mapping[int, Clustering], heading: str) -> Figure:
    """The last clusters of users in a plane; by clustering, the clusters' sizes and the share of users who changed.

    Args:
        clusterings: by round.
        heading: the figure's title.
    """
    figure = new_figure(figure_width(clusterings), 5.4)
    draw_clusters(figure, clusterings, COLOURS)
    figure.suptitle(f"{heading}: clusters of users", x=0.01, ha="left", fontsize=11)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches, drawn by Agg and unknown to pyplot: it needs no display and does not leak."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write the figure as PNG; SubflError where that is not possible."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.getvalue())
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}; --no-plots prints the table alone") from None
    return path


def title(run: Run) -> str:
    """Title of a figure of the run."""
    seed = "" if run.seed is None else f", seed {run.seed}"
    mark = "" if run.status == "completed" else f" ({run.status})"
    return f"{run.method} on {run.dataset}, {run.partition}, {run.clients or '?'} clients{seed}{mark}"


def column(records: Sequence[Mapping[str, Any]], key: str) -> NDArray[np.float64]:
    """A mean by record, `[records]`; NaN where a record has none."""
    return _floats([record.get(key) for record in records])


def shown(value: float, metric: str) -> str:
    """A scaled value as text: two decimals and % for fractions, four decimals for errors."""
    return f"{value:.4f}" if scale(metric) == 1 else f"{value:.2f} %"


def name_axes(axes: Any, x: str, y: str) -> None:
    """Label both axes; whole numbers below."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.xaxis.set_major_locator(whole_numbers())


def whole_numbers() -> MaxNLocator:
    """Tick locator for whole numbers, also where the axis is so short that there is one tick."""
    return MaxNLocator(integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)


def legend_outside(axes: Any) -> None:
    """The legend right of the axes, where it hides no data; bars before lines."""
    named = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=lambda pair: isinstance(pair[0], Line2D))
    axes.legend(
        *zip(*named, strict=True),
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        handlelength=2.2,
        labelspacing=0.8,
    )


def _evaluated(record: Mapping[str, Any]) -> bool:
    return number(record.get("test")) is not None or number(record.get("validation")) is not None


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    found = [number(value) for value in values]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)


def _as_received(run: Run, ids: NDArray[Any]) -> NDArray[np.float64]:
    """The clients' test metric at the best round before their local step, `[len(ids)]`; NaN where unknown."""
    best = run.best_record
    reached = [] if best is None else [record for record in run.rounds if record["round"] <= best["round"]]
    known = last_known(reached, "test_as_received")
    return _floats([known.get(int(client)) for client in ids])


def heat_map(axes: Any, matrix: NDArray[np.floating], limits: Mapping[str, float]) -> Any:
    """Draw a clients x clients matrix; `limits` may give ``vmin`` and ``vmax``, else the matrix's range is used."""
    image = axes.imshow(matrix, cmap="Blues", interpolation="nearest", **limits)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(nbins=12, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1))
    return image


def _write_weights(axes: Any, matrix: NDArray[np.floating], limits: Mapping[str, float]) -> None:
    middle = (limits["vmin"] + limits["vmax"]) / 2
    for (row, col), weight in np.ndenumerate(matrix):
        colour = "white" if weight > middle else "black"
        axes.text(col, row, f"{weight:.0f}", ha="center", va="center", fontsize=7.5, color=colour)
