"""Panels of clusters of users: positions, sizes, and users who change their cluster."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from subfl_flower.runs.round_arrays import Clustering

# With eight colours sixty-four looks: colour and shape together identify a cluster.
_SHAPES = "os^DvPX*"
_GREY = "#A0A0A0"
_MOST_MARKS = 15
# Sizes of more clusters are shades of a heat map instead of lines.
_MOST_LINES = 10
# Clusters in one column of the legend.
_COLUMN = 20
_COLUMN_INCHES = 1.1


def figure_width(clusterings: Mapping[int, Clustering]) -> float:
    """Width in inches of the panels and their legend."""
    return 9.2 + _COLUMN_INCHES * _columns(len(_labels(clusterings)))


def draw_clusters(figure: Figure, clusterings: Mapping[int, Clustering], colours: Sequence[str]) -> None:
    """Draw all panels.

    Left, the last clustering in its plane. Right, by round, the number of users in each cluster and the share of users
    who are in another cluster than at the clustering before. Sizes are lines; for many clusters they are shades of a
    heat map, for a single clustering bars.

    Args:
        figure: an empty one.
        clusterings: by round, at least one.
        colours: of the clusters, in turn.
    """
    rounds, labels = sorted(clusterings), _labels(clusterings)
    last = clusterings[rounds[-1]]
    looks = {label: _look(label, colours) for label in labels}
    grid = figure.add_gridspec(3, 2, width_ratios=(1.15, 1))
    _points(figure.add_subplot(grid[:, 0]), last, looks, f"round {rounds[-1]}")
    sizes = {label: np.array([(clusterings[number].labels == label).sum() for number in rounds]) for label in labels}
    if len(rounds) == 1:
        _bars(figure.add_subplot(grid[:, 1]), {label: int(size[0]) for label, size in sizes.items()}, looks)
    else:
        above = figure.add_subplot(grid[:2, 1])
        below = figure.add_subplot(grid[2, 1], sharex=above)
        if len(labels) <= _MOST_LINES:
            _size_lines(above, rounds, sizes, looks)
        else:
            bar = figure.colorbar(_size_map(above, rounds, sizes), ax=[above, below], label="users in cluster")
            bar.outline.set_visible(False)
        above.set_title("sizes")
        above.tick_params(axis="x", labelbottom=False)
        _changes(below, rounds, [changed(clusterings[one], clusterings[two]) for one, two in pairwise(rounds)])
    figure.legend(
        [Line2D([], [], linestyle="", markersize=6, **look) for look in looks.values()],
        [f"{_name(label)}: {size[-1]}" for label, size in sizes.items()],
        title="cluster: users",
        loc="outside right upper",
        ncols=_columns(len(labels)),
        handletextpad=0.2,
        columnspacing=1.0,
        borderaxespad=0.0,
    )


def changed(before: Clustering, after: Clustering) -> float:
    """Share of users whose cluster changed, among those with a cluster in both; NaN where there are none."""
    _, one, two = np.intersect1d(before.client_ids, after.client_ids, return_indices=True)
    old, new = before.labels[one], after.labels[two]
    both = (old >= 0) & (new >= 0)
    return float(np.mean(old[both] != new[both])) if both.any() else float("nan")


def _labels(clusterings: Mapping[int, Clustering]) -> list[int]:
    """All labels up to the largest, ascending; then -1 if a user is without a cluster."""
    found = np.concatenate([clustering.labels for clustering in clusterings.values()])
    return [*range(int(found.max(initial=-1)) + 1), *([-1] if (found < 0).any() else [])]


def _columns(clusters: int) -> int:
    return max(1, -(-clusters // _COLUMN))


def _name(label: int) -> str:
    return "none" if label < 0 else str(label)


def _look(label: int, colours: Sequence[str]) -> dict[str, Any]:
    if label < 0:
        return {"color": _GREY, "marker": "."}
    shape = (label + label // len(colours)) % len(_SHAPES)
    return {"color": colours[label % len(colours)], "marker": _SHAPES[shape]}


def _points(axes: Any, clustering: Clustering, looks: Mapping[int, Mapping[str, Any]], heading: str) -> None:
    size = float(np.clip(12_000 / max(len(clustering.labels), 1), 3, 30))
    for label, look in sorted(looks.items()):  # users without a cluster below all others
        x, y = clustering.points[clustering.labels == label].T
        axes.scatter(x, y, s=2 * size if label < 0 else size, alpha=0.8, linewidths=0, **look)
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(False)
    axes.set_xlabel("first principal component")
    axes.set_ylabel("second principal component")
    axes.set_title(heading)


def _size_lines(
    axes: Any,
    rounds: Sequence[int],
    sizes: Mapping[int, NDArray[np.int64]],
    looks: Mapping[int, Mapping[str, Any]],
) -> None:
    every = -(-len(rounds) // _MOST_MARKS)
    for label, size in sizes.items():
        axes.plot(rounds, size, linewidth=1.2, markersize=4.5, markevery=every, **looks[label])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylim(bottom=0)
    axes.set_ylabel("users in cluster")


def _size_map(axes: Any, rounds: Sequence[int], sizes: Mapping[int, NDArray[np.int64]]) -> Any:
    values = np.array([size for label, size in sizes.items() if label >= 0])  # many of these would dim all others
    image = axes.pcolormesh(rounds, np.arange(len(values)), values, shading="nearest", cmap="Blues", vmin=0)
    axes.grid(False)
    axes.invert_yaxis()
    _number_ticks(axes.yaxis, list(sizes))
    axes.set_ylabel("cluster")
    return image


def _changes(axes: Any, rounds: Sequence[int], shares: Sequence[float]) -> None:
    marker = "." if len(rounds) <= _MOST_MARKS else None
    axes.plot(rounds[1:], 100 * np.array(shares), color="#333333", marker=marker, clip_on=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.set_ylim(0, max(100 * np.nanmax([*shares, 0.01]) * 1.1, 1))
    axes.set_xlabel("communication round")
    axes.set_ylabel("changed (%)")
    axes.set_title("users in another cluster than before")


def _bars(axes: Any, sizes: Mapping[int, int], looks: Mapping[int, Mapping[str, Any]]) -> None:
    axes.bar(np.arange(len(sizes)), list(sizes.values()), width=0.72, color=[look["color"] for look in looks.values()])
    _number_ticks(axes.xaxis, list(sizes))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("cluster")
    axes.set_ylabel("users in cluster")
    axes.set_title("sizes")


def _number_ticks(axis: Any, labels: Sequence[int]) -> None:
    """Label the ticks with the clusters' numbers as far as there is room."""
    numbers = [label for label in labels if label >= 0]
    axis.set_ticks(numbers[:: max(1, -(-len(numbers) // _COLUMN))])
