"""Weights of undirected edges, from a source that may list an edge more than once.

A source lists an undirected edge in one direction or in both, and may list either one repeatedly, as a table of
payments does. The user then chooses an `EdgeWeightRule` that defines its weight.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import numpy as np

from subfl_flower.errors import SubflError

EdgeWeightRule: TypeAlias = Literal["unique", "sum", "mean", "max"]
"""Rule that reduces several weights of a pair of nodes to one; see `weighted_edges`."""


def weighted_edges(
    edge_index: np.ndarray,
    weight: np.ndarray,
    num_nodes: int,
    reduce: EdgeWeightRule,
    source: str,
    names: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Both directions of every edge once, without self-loops, and a weight for each that is equal in both.

    Weights are read as float32. A pair of nodes has the entries (a, b, weight) and (b, a, weight) of the source;
    ``reduce`` selects the rule that combines them:

    - ``unique``: all entries of a pair must have one weight, which is the pair's.
    - ``sum``: the entries of each direction are added up. If every pair then has the same sum in both directions, the
      source lists an undirected graph twice, as PyG does, and that sum is the weight. If a single pair differs, or is
      listed in one direction alone, the source is a directed graph: the weight of each pair is the sum of both
      directions.
    - ``mean``: the mean of all entries.
    - ``max``: the largest entry.

    Args:
        edge_index: integers `[2, edges]`, each below `num_nodes`.
        weight: numbers `[edges]`; those of self-loops are ignored.
        num_nodes: number of nodes.
        reduce: see above.
        source: name of the data in an error.
        names: text `[nodes]`, names of nodes in an error; None uses their numbers.

    Returns:
        int64 `[2, edges']`, sorted by (row, column), as `undirected_edges` gives them, and float32 `[edges']`.

    Raises:
        SubflError: there is not one weight for each edge, a weight is not positive and finite, `reduce` is ``unique``
            and a pair has several weights, or a sum is too large.
    """
    if weight.shape != (edge_index.shape[1],):
        raise SubflError(
            f"{source}: edge weights have the shape {list(weight.shape)}; expected [{edge_index.shape[1]}]"
        )
    called = np.arange(num_nodes) if names is None else names
    row, column = edge_index.astype(np.int64, copy=False)
    places = np.flatnonzero(row != column)
    row, column = row[places], column[places]
    values = _float32(weight[places])
    unusable = ~(np.isfinite(values) & (values > 0))
    if unusable.any():
        first = int(unusable.argmax())
        raise SubflError(
            f"{source}: {np.count_nonzero(unusable)} edge weights are not positive finite numbers, "
            f"the first is {weight[places[first]]} of edge {places[first]}, from node {called[row[first]]} to "
            f"node {called[column[first]]}; dataset.edge_weights=ignore leaves weights out"
        )
    size = max(num_nodes, 1)
    low, high = np.minimum(row, column), np.maximum(row, column)
    pairs, pair_of = np.unique(low * size + high, return_inverse=True)
    low, high = pairs // size, pairs % size
    of_pair = _RULES[reduce](values, pair_of, row < column, len(pairs))
    wrong = ~np.isfinite(of_pair)
    if wrong.any():
        first = int(wrong.argmax())
        if reduce == "unique":
            different = np.unique(values[pair_of == first])
            raise SubflError(
                f"{source}: {np.count_nonzero(wrong)} pairs of nodes are joined by edges of different weights, the "
                f"first are {called[low[first]]} and {called[high[first]]} ({different[0]} and {different[1]}); choose "
                "dataset.edge_weights=sum, mean, max or ignore"
            )
        raise SubflError(
            f"{source}: the edge weights of {np.count_nonzero(wrong)} pairs of nodes add up to more than "
            f"{np.finfo(np.float32).max:.3g}, the first are {called[low[first]]} and {called[high[first]]}; choose "
            "dataset.edge_weights=mean, max or ignore"
        )
    order = np.argsort(np.concatenate([low * size + high, high * size + low]))
    ends = np.concatenate([[low, high], [high, low]], axis=1)
    return ends[:, order], np.concatenate([of_pair, of_pair])[order]


def _float32(values: np.ndarray) -> np.ndarray:
    """Cast numbers to float32; those that are too large become infinite."""
    with np.errstate(over="ignore"):
        return np.asarray(values).astype(np.float32)


def _unique(values: np.ndarray, pair_of: np.ndarray, forwards: np.ndarray, count: int) -> np.ndarray:
    """The weight of each pair; NaN where there are several."""
    found = np.zeros(count, dtype=np.float32)
    found[pair_of] = values
    found[pair_of[found[pair_of] != values]] = np.nan
    return found


def _sum(values: np.ndarray, pair_of: np.ndarray, forwards: np.ndarray, count: int) -> np.ndarray:
    """The sum of one direction where both are equal everywhere, else of both."""
    there, back = (np.bincount(pair_of[of], values[of], minlength=count) for of in (forwards, ~forwards))
    if np.array_equal(_float32(there), _float32(back)):
        return _float32(there)
    return _float32(there + back)


def _mean(values: np.ndarray, pair_of: np.ndarray, forwards: np.ndarray, count: int) -> np.ndarray:
    """The mean of all entries."""
    return _float32(np.bincount(pair_of, values, minlength=count) / np.bincount(pair_of, minlength=count))


def _max(values: np.ndarray, pair_of: np.ndarray, forwards: np.ndarray, count: int) -> np.ndarray:
    """The largest entry."""
    found = np.zeros(count, dtype=np.float32)
    np.maximum.at(found, pair_of, values)
    return found


_RULES: dict[EdgeWeightRule, Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]] = {
    "unique": _unique,
    "sum": _sum,
    "mean": _mean,
    "max": _max,
}
