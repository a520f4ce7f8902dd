r"""FedAvg: McMahan et al., "Communication-efficient learning of deep networks from decentralized data", AISTATS 2017.

Every client gets the same average, :math:`M_{ij} = n_j / n` over the clients that took part.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, average_matrix


class FedAvg(MixingStrategy):
    """The weighted average of all replies."""

    class Settings(SubgraphClient.Settings):
        """Knob of the average.

        Attributes:
            weighting: by training ``examples``, as in the paper's equation, or ``uniform``, as in much public code.
        """

        weighting: Literal["examples", "uniform"] = "examples"

    settings: Settings

    one_average = True

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """n_j / n in every row."""
        return average_matrix(self.roster, updates, self.settings.weighting)
