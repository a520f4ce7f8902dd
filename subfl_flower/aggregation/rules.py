r"""Rules in place of a weighted mean.

A method's weights :math:`M_{ij}` say how much client i's average has of client j's parameters. The rules keep these
weights, so that they also hold for averages that differ by client. Sources: Yin et al., "Byzantine-robust distributed
learning", ICML 2018, definitions 1 and 2 (median, trimmed mean, here with weights); Blanchard et al., "Machine learning
with adversaries", NeurIPS 2017, section 4 (Krum, Multi-Krum).
"""

from __future__ import annotations

import numpy as np

# Entries of the clients' parameters that are sorted at once.
_BLOCK = 1 << 18

_ROUNDING = 1e-6


def trimmed(matrix: np.ndarray, values: np.ndarray, num_trimmed: int, present: np.ndarray | None = None) -> np.ndarray:
    """The weighted, trimmed mean of A clients' values, coordinate by coordinate, for each row of the matrix.

    At either end, as much weight is left out as the `num_trimmed` clients of largest weight in the row have together,
    so that no such number of clients keeps any. Where that would be half of all weight or more, the median is left.

    Args:
        matrix: weights, not negative [K, A].
        values: [A, ...].
        num_trimmed: clients to leave out at either end; A for the median.
        present: of the shape of `values`, false for a value that does not count; None: all count.

    Returns:
        float32 [K, ...]; zero where no value counts.
    """
    flat, counts = values.reshape(len(values), -1), None if present is None else present.reshape(len(values), -1)
    matrix = np.asarray(matrix, dtype=np.float64)
    same = len(matrix) > 1 and bool((matrix == matrix[0]).all())
    weights = matrix[:1] if same else matrix
    found = np.zeros((len(weights), flat.shape[1]), dtype=np.float32)
    step = max(1, _BLOCK // len(flat))
    for block in (slice(start, start + step) for start in range(0, flat.shape[1], step)):
        part = np.asarray(flat[:, block], dtype=np.float64)
        order = np.argsort(part, axis=0, kind="stable")
        part = np.take_along_axis(part, order, 0)
        count = None if counts is None else np.take_along_axis(counts[:, block], order, 0)
        for row, own in enumerate(weights):
            weight = own[order] if count is None else own[order] * count
            heaviest = np.sort(own)[::-1][:num_trimmed].sum()
            found[row, block] = _middle(part, weight, heaviest)
    shaped = found.reshape(len(found), *values.shape[1:])
    return np.broadcast_to(shaped[0], (len(matrix), *values.shape[1:])) if same else shaped


def _middle(part: np.ndarray, weight: np.ndarray, left_out: float) -> np.ndarray:
    """The mean of sorted values [A, P] without the weight that is left out at either end; the median if that is all."""
    total = weight.sum(0)
    after = np.cumsum(weight, 0)
    before = after - weight
    # Where few count, less is there to be left out.
    cut = np.full(len(total), left_out)
    kept = np.clip(np.minimum(after, total - cut) - np.maximum(before, cut), 0, None)
    weight_kept = kept.sum(0)
    trims = weight_kept > _ROUNDING * np.maximum(total, np.finfo(np.float64).tiny)
    mean = (kept * part).sum(0) / np.where(trims, weight_kept, 1)
    half = total / 2
    lower = np.argmax(after >= half - _ROUNDING * total, 0)
    upper = np.argmax((after > half + _ROUNDING * total) | (after >= total), 0)
    columns = np.arange(part.shape[1])
    median = (part[lower, columns] + part[upper, columns]) / 2
    found: np.ndarray = np.where(total > 0, np.where(trims, mean, median), 0.0)
    return found


def kept_by_krum(changes: np.ndarray, num_hostile: int) -> np.ndarray:
    """The updates that Multi-Krum keeps: all but the `num_hostile` whose nearest others are farthest away, bool [A].

    An update's score is the sum of its squared distances to its A - f - 2 nearest others, f being `num_hostile`. Krum
    needs 2 f + 3 updates; with fewer, f is as large as they allow, and with fewer than five none is left out.

    Args:
        changes: the updates [A, P].
        num_hostile: at least 1.
    """
    num_clients = len(changes)
    hostile = min(num_hostile, (num_clients - 3) // 2)
    kept = np.ones(num_clients, dtype=bool)
    if hostile < 1:
        return kept
    exact = changes.astype(np.float64)
    squares = (exact**2).sum(1)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * exact @ exact.T, 0)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, : num_clients - hostile - 2].sum(1)
    kept[np.argsort(scores, kind="stable")[num_clients - hostile :]] = False
    return kept
