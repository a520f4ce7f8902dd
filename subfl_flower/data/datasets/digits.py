"""scikit-learn's handwritten digits as a nearest-neighbour graph: real data, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol

_ROWS = 256
"""Points whose distances are held at a time."""


class DigitsDataset(DatasetSettings):
    """1,797 images of 8 x 8 pixels scaled to [0, 1], 10 classes, each connected to its nearest neighbours.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, through
    `sklearn.datasets.load_digits`. An edge joins two images if either is among the other's nearest. Distances are
    compared exactly and ties go to the image of the lower number (`nearest_points`), so that every machine has the same
    edges: 9,929 pairs with 8 neighbours.

    Attributes:
        neighbours: Euclidean neighbours per image; from 8 on the graph is connected.
    """

    name: Literal["digits"] = "digits"
    neighbours: int = Field(default=8, ge=1, le=1796)
    protocol: Protocol = Protocol(rounds=50, local_epochs=1)

    def read(self, root: Path) -> RawGraph:
        """The neighbour graph; nothing is read from `root`."""
        from sklearn.datasets import load_digits  # slow to import, and most runs open a cache

        images, digits = load_digits(return_X_y=True)
        nearest = nearest_points(images, self.neighbours)
        edges = np.stack([np.repeat(np.arange(len(images)), self.neighbours), nearest.ravel()])
        return RawGraph((images / 16.0).astype(np.float32), edges, digits, num_classes=10)


def nearest_points(points: np.ndarray, count: int) -> np.ndarray:
    """Find the `count` nearest other points of each point; among equal distances the lower number is the nearer.

    Args:
        points: `[points, width]`, whole numbers whose squared distances are below 2^53. Float64 holds these exactly,
            whatever the order of summation.
        count: neighbours per point, less than `points`.

    Returns:
        int64 `[points, count]`: the numbers of the neighbours of each point, in no particular order.
    """
    total = len(points)
    exact = points.astype(np.float64)
    squares = (exact**2).sum(1)
    found = np.empty((total, count), dtype=np.int64)
    for first in range(0, total, _ROWS):
        rows = np.arange(first, min(first + _ROWS, total))
        distances = squares[rows, None] + squares - 2 * exact[rows] @ exact.T
        keys = distances.astype(np.int64) * total + np.arange(total)  # ordered by distance, then by number
        keys[rows - first, rows] = np.iinfo(np.int64).max
        found[rows] = np.argpartition(keys, count - 1, axis=1)[:, :count]
    return found
