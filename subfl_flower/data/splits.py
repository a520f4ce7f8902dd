"""Roles of nodes: training, validation and test."""

from __future__ import annotations

import numpy as np

from subfl_flower.data.graph import NO_ROLE, TEST, TRAIN, VALIDATION
from subfl_flower.seeding import shared_generator


def random_roles(labels: np.ndarray, train_fraction: float, seed: int) -> np.ndarray:
    """A role for every node of the global graph, drawn before partitioning.

    FED-PUB's split (Baek et al., ICML 2023, Section 5.1; the released code's 20/40/40): of the labelled
    nodes a `train_fraction` trains, half of the rest tests, and the remaining nodes validate. A node has the
    same role at every client, so clients that share a node agree on it.

    Args:
        labels: int64 `[nodes]`, -1 where unlabelled.
        train_fraction: share of the labelled nodes that train, strictly between 0 and 1.
        seed: same seed, same split.

    Returns:
        int8 `[nodes]`: 0 train, 1 validation, 2 test, -1 unlabelled.
    """
    labelled = np.flatnonzero(labels >= 0)
    order = shared_generator(seed, "split").permutation(labelled)
    num_train = round(labelled.size * train_fraction)
    num_test = round(labelled.size * (1 - train_fraction) / 2)
    roles = np.full(labels.shape[0], NO_ROLE, dtype=np.int8)
    roles[order[:num_train]] = TRAIN
    roles[order[num_train : num_train + num_test]] = TEST
    roles[order[num_train + num_test :]] = VALIDATION
    return roles
