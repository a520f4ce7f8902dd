"""Colours, dashes and markers: one look for each method, the same in all figures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product
from zlib import crc32

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
"""The palette of Okabe and Ito, which colour-blind readers can distinguish.

Grey stands for its black, which a dark page would hide, and its yellow, which a white one would.
"""

_CLUSTER_COLOURS = (*COLOURS, "#8C6D31")
DASHES = ("solid", "dash", "dot", "dashdot")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "x", "star")
GREY = "#999999"

_METHODS = (
    *("fedpub", "fedavg", "local", "subpfed", "gcfl", "fedper", "fedprox"),
    *("fedsage_plus", "fedgcn", "fedsg", "fedgnn_subgraph", "gcfl_plus", "fedsage", "oracle"),
    *("fedgnn", "fedmf", "perfedrec", "fcf", "central", "central_gnn", "popularity"),
    *("fedavg_whole_graph", "fedpub_released", "bias_row", "central_mf", "fedper_similar", "scaffold", "fedgta"),
    *("pfedgraph", "fedopt"),
)
"""Built-in methods in the order of their looks; those of one line have different colours."""


@dataclass(frozen=True)
class Look:
    """Appearance of a line: `dash` is empty for points alone, `marker` for a line alone."""

    colour: str
    dash: str = "solid"
    marker: str = ""


def method_look(method: str) -> Look:
    """The look of a method, from its name alone."""
    place = _METHODS.index(method) if method in _METHODS else crc32(method.encode())
    colour, turn = place % len(COLOURS), place // len(COLOURS)
    return Look(COLOURS[colour], DASHES[turn % len(DASHES)], MARKERS[turn % len(MARKERS)])


def looks_of(rows: Iterable[tuple[str, str]]) -> dict[str, Look]:
    """A different look for each label, as long as there are any.

    Args:
        rows: method and label. Labels of one method have its colour, the first of them its look.
    """
    found: dict[str, Look] = {}
    for method, label in rows:
        own = method_look(method)
        others = (replace(own, dash=dash, marker=marker) for marker, dash in product(MARKERS, DASHES))
        free = (look for look in (own, *others) if look not in found.values())
        found.setdefault(label, next(free, own))
    return found


def cluster_look(label: int) -> Look:
    """The look of the points of a cluster; -1 for none. The looks of 64 clusters differ."""
    if label < 0:
        return Look(GREY, "", "circle")
    turn, colour = divmod(label, len(_CLUSTER_COLOURS))
    return Look(_CLUSTER_COLOURS[colour], "", MARKERS[(label + turn) % len(MARKERS)])
