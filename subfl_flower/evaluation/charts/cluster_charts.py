"""Clusters of users: positions, sizes, and users who change their cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from subfl_flower.evaluation.charts.chart import Bars, Chart, Heat, Line, Panel
from subfl_flower.evaluation.charts.looks import Look, cluster_look
from subfl_flower.runs.round_arrays import Clustering

_MOST_MARKS = 15
# Sizes of more clusters are shades of a heat map instead of lines.
_MOST_LINES = 10


def clusters_chart(clusterings: Mapping[int, Clustering], heading: str) -> Chart:
    """The last clusters in a plane; by round, the clusters' sizes and the share of users who changed.

    Sizes are lines; for many clusters they are shades of a heat map, for a single clustering bars.

    Args:
        clusterings: by round, at least one.
        heading: the figure's title.
    """
    rounds, labels = sorted(clusterings), _labels(clusterings)
    last = clusterings[rounds[-1]]
    sizes = {label: np.array([(clusterings[number].labels == label).sum() for number in rounds]) for label in labels}
    names = {label: f"{'none' if label < 0 else label}: {size[-1]}" for label, size in sizes.items()}
    panels = [_plane(last, names, f"round {rounds[-1]}")]
    if len(rounds) == 1:
        panels.append(_bars({label: int(size[0]) for label, size in sizes.items()}))
    else:
        panels.append((_lines if len(labels) <= _MOST_LINES else _map)(rounds, sizes, names))
        panels.append(_changes(rounds, [changed(clusterings[one], clusterings[two]) for one, two in pairwise(rounds)]))
    return Chart("clusters", f"{heading}: clusters of users", panels, legend="cluster: users")


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


def _plane(clustering: Clustering, names: Mapping[int, str], heading: str) -> Panel:
    size = float(np.clip(110 / max(len(clustering.labels), 1) ** 0.5, 1.7, 5.5))
    marks = []
    for label in sorted(names):  # users without a cluster below all others
        x, y = clustering.points[clustering.labels == label].T
        marks.append(Line(names[label], x, y, cluster_look(label), size=size))
    return Panel(heading, "first principal component", "second principal component", marks, whole=False, equal=True)


def _lines(rounds: Sequence[int], sizes: Mapping[int, NDArray[np.int64]], names: Mapping[int, str]) -> Panel:
    marks = []
    for label, size in sizes.items():
        look = cluster_look(label)
        marker = look.marker if len(rounds) <= _MOST_MARKS else ""
        marks.append(
            Line(names[label], np.array(rounds), size, Look(look.colour, "solid", marker), width=1.2, size=4.5)
        )
    return Panel("sizes", "communication round", "users in cluster", marks, y_range=(0.0, None))


def _map(rounds: Sequence[int], sizes: Mapping[int, NDArray[np.int64]], _: Mapping[int, str]) -> Panel:
    values = np.array([size for label, size in sizes.items() if label >= 0])  # many of these would dim all others
    marks = [Heat(values, "users in cluster", np.array(rounds), low=0.0)]
    return Panel("sizes", "communication round", "cluster", marks)


def _changes(rounds: Sequence[int], shares: Sequence[float]) -> Panel:
    look = Look("#777777", "solid", "circle" if len(rounds) <= _MOST_MARKS else "")
    marks = [Line("", np.array(rounds[1:]), 100 * np.array(shares), look, size=3.5)]
    top = max(100 * float(np.nanmax([*shares, 0.01])) * 1.1, 1.0)
    return Panel(
        "users in another cluster than before", "communication round", "changed (%)", marks, y_range=(0.0, top)
    )


def _bars(sizes: Mapping[int, int]) -> Panel:
    labels = list(sizes)
    bars = Bars(
        "", np.arange(len(labels)), np.array(list(sizes.values())), [cluster_look(each).colour for each in labels]
    )
    ticks = {float(place): "none" if label < 0 else str(label) for place, label in enumerate(labels)}
    return Panel("sizes", "cluster", "users in cluster", [bars], ticks)
