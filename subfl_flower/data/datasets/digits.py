"""scikit-learn's handwritten digits as a nearest-neighbour graph: real data, no download."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol


class DigitsDataset(DatasetSettings):
    """1,797 images of 8 x 8 pixels scaled to [0, 1], 10 classes, each tied to its nearest neighbours.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998, through
    `sklearn.datasets.load_digits`. An edge joins two images if either is among the other's nearest.

    Attributes:
        neighbours: Euclidean neighbours per image; from 8 on the graph is in one piece.
    """

    name: Literal["digits"] = "digits"
    neighbours: int = Field(default=8, ge=1, le=1796)
    protocol: Protocol = Protocol(rounds=50, local_epochs=1)

    def read(self, root: Path) -> RawGraph:
        """The neighbour graph; nothing is read from `root`."""
        from sklearn.datasets import load_digits  # slow to import, and most runs open a cache
        from sklearn.neighbors import kneighbors_graph

        images, digits = load_digits(return_X_y=True)
        features = (images / 16.0).astype(np.float32)
        nearest = kneighbors_graph(features, self.neighbours).tocoo()
        return RawGraph(features, np.stack([nearest.row, nearest.col]), digits, num_classes=10)
