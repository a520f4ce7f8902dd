"""Divergence of the clients' label distributions."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr


def label_distribution(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The share of every class among the labelled nodes, [classes]; NaN where no node is labelled.

    Args:
        labels: int [nodes], -1 where unlabelled.
        num_classes: number of classes.
    """
    counts = np.bincount(labels[labels >= 0], minlength=num_classes)
    return counts / counts.sum() if counts.any() else np.full(num_classes, np.nan)


def jensen_shannon_divergence(distributions: np.ndarray) -> np.ndarray:
    r"""Jensen-Shannon divergence of every pair of distributions, [K, K], in bits (logarithms of base 2).

    .. math:: \tfrac12 D(p \Vert m) + \tfrac12 D(q \Vert m), \quad m = \tfrac12 (p + q)

    (Lin, 1991): 0 for equal distributions, 1 for those without a common class. It is the square of SciPy's
    ``jensenshannon(p, q, base=2)``.

    Args:
        distributions: [K, classes], rows that sum to 1; a row of NaN gives NaN for its pairs.
    """
    divergence = np.empty((len(distributions), len(distributions)))
    for i, own in enumerate(distributions):
        middle = (own + distributions) / 2
        nats = (rel_entr(own, middle).sum(1) + rel_entr(distributions, middle).sum(1)) / 2
        divergence[i] = np.clip(nats / np.log(2), 0, 1)
    return divergence
