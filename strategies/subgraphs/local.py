"""Local training without aggregation, M = I."""

from __future__ import annotations

import numpy as np

from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy


class Local(MixingStrategy):
    """The baseline without a federation; parameters travel only to make rounds and bytes comparable."""

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """The identity; absent clients keep their parameters."""
        return np.eye(len(self.roster))[:, updates.positions]
