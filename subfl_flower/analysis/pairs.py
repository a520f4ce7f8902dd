"""Values for every pair of clients: matrices [K, K] whose diagonal has no meaning."""

from __future__ import annotations

import numpy as np
from scipy.stats import spearmanr


def pair_values(matrix: np.ndarray) -> np.ndarray:
    """The K (K - 1) / 2 entries above the diagonal of a symmetric matrix [K, K]."""
    values: np.ndarray = matrix[np.triu_indices(len(matrix), k=1)]
    return values


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two symmetric matrices [K, K] over pairs of clients.

    Pairs that are NaN in either matrix are left out. The result is NaN where fewer than three pairs are left, or where
    one matrix has a single value: then there is no order to compare.
    """
    pairs = np.stack([pair_values(first), pair_values(second)])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 3 or (pairs == pairs[:, :1]).all(axis=1).any():
        return float("nan")
    return float(spearmanr(*pairs).statistic)


def linear_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Pearson's correlation of two matrices [K, K] over ordered pairs of different clients.

    Pairs that are not finite in both are left out. NaN where fewer than three are left, or where one matrix has a
    single value.
    """
    different = ~np.eye(len(first), dtype=bool)
    pairs = np.stack([first[different], second[different]])
    pairs = pairs[:, np.isfinite(pairs).all(axis=0)]
    if pairs.shape[1] < 3 or (pairs == pairs[:, :1]).all(axis=1).any():
        return float("nan")
    return float(np.corrcoef(pairs)[0, 1])


def most_and_least_similar(similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most and the least similar other client of every client, int [K] each.

    Among equals the lower id wins. `similarity` is [K, K], K at least 2.
    """
    itself = np.eye(len(similarity), dtype=bool)
    most = np.where(itself, -np.inf, similarity).argmax(axis=1)
    least = np.where(itself, np.inf, similarity).argmin(axis=1)
    return most, least
