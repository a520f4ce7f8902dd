r"""FedAvg: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017.

Every client gets the same average, :math:`M_{ij} = n_j / n` over the clients that took part.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from strategies.mixing import MixingStrategy
from subfl_flower.runtime.strategy import Updates


class FedAvg(MixingStrategy):
    """The weighted average of all replies."""

    class Settings(MixingStrategy.Settings):
        """`weighting`: by training nodes, as in the paper's equation, or uniform, as much public code does."""

        weighting: Literal["examples", "uniform"] = "examples"

    settings: Settings

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """n_j / n in every row."""
        weights = average_weights(self.roster.num_examples[updates.positions], self.settings.weighting)
        return np.tile(weights, (len(self.roster), 1))


def average_weights(num_examples: np.ndarray, weighting: str) -> np.ndarray:
    """Weights [A] of an average over A clients that sum to one; all alike where nobody has an example."""
    weights = num_examples if weighting == "examples" and num_examples.any() else np.ones(len(num_examples))
    normalised: np.ndarray = weights / weights.sum()
    return normalised
