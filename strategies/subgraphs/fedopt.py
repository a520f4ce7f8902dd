r"""FedOpt: Reddi et al., "Adaptive federated optimization", ICLR 2021: the server's side of Algorithm 2.

The server takes the mean change of its clients for a gradient of the opposite sign, and steps by an adaptive optimiser:

.. math:: \Delta \leftarrow \sum_i w_i (\theta_i - \theta), \quad
          m \leftarrow \beta_1 m + (1 - \beta_1) \Delta, \quad
          \theta \leftarrow \theta + \eta \frac{m}{\sqrt{v} + \tau},

with :math:`w` FedAvg's weights of the replies, and

- FedAdagrad: :math:`v \leftarrow v + \Delta^2`,
- FedYogi: :math:`v \leftarrow v - (1 - \beta_2) \Delta^2 \operatorname{sign}(v - \Delta^2)`,
- FedAdam: :math:`v \leftarrow \beta_2 v + (1 - \beta_2) \Delta^2` .

As in the paper, m starts at zero and v at :math:`\tau^2`, and nothing corrects their bias. Clients are FedAvg's.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster

_FIRST, _SECOND = "first_moment.", "second_moment."


class FedOpt(FedAvg):
    """FedAvg's average, approached by steps of an optimiser of the server's.

    It stands a level deeper than other strategies because it is FedAvg in all but the step to the average.
    """

    class Settings(FedAvg.Settings):
        """Knobs of the server's optimiser.

        Attributes:
            server_optimizer: how squares of changes are gathered.
            server_lr: η.
            beta1: β1, weight of the past in the mean of changes.
            beta2: β2, weight of the past in the mean of squares; Adagrad has none.
            tau: τ, the optimiser's adaptivity: changes much smaller than it are scaled alike.
        """

        server_optimizer: Literal["adam", "yogi", "adagrad"] = "adam"
        server_lr: float = Field(default=0.003, gt=0)
        beta1: float = Field(default=0.9, ge=0, lt=1)
        beta2: float = Field(default=0.99, ge=0, lt=1)
        tau: float = Field(default=1e-3, gt=0)

    settings: Settings

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        square = np.float32(self.settings.tau**2)
        self._first: Stack = {name: np.zeros_like(value) for name, value in self.initial.items()}
        self._second: Stack = {name: np.full_like(value, square) for name, value in self.initial.items()}

    def mixed(self, matrix: np.ndarray, updates: Updates) -> Stack:
        """θ after the server's step, the same for all clients: [K, ...] by name."""
        found: Stack = {}
        for name, averages in super().mixed(matrix, updates).items():
            before = self.parameters[name][0]
            step = self._step(name, averages[0] - before)
            found[name] = np.broadcast_to(before + step, averages.shape)
        return found

    def _step(self, name: str, change: np.ndarray) -> np.ndarray:
        """The step of one parameter, from the mean change of the clients."""
        settings, square = self.settings, change**2
        self._first[name] = settings.beta1 * self._first[name] + np.float32(1 - settings.beta1) * change
        gathered, new = self._second[name], np.float32(1 - settings.beta2)
        if settings.server_optimizer == "adagrad":
            gathered = gathered + square
        elif settings.server_optimizer == "yogi":
            gathered = gathered - new * square * np.sign(gathered - square)
        else:
            gathered = settings.beta2 * gathered + new * square
        self._second[name] = gathered
        step: np.ndarray = settings.server_lr * self._first[name] / (np.sqrt(gathered) + settings.tau)
        return step.astype(np.float32)

    def state(self) -> Stack:
        """FedAvg's state, and the optimiser's moments."""
        moments = {_FIRST: self._first, _SECOND: self._second}
        kept = {f"{start}{name}": value for start, values in moments.items() for name, value in values.items()}
        return {**super().state(), **kept}

    def load_state(self, state: Stack) -> None:
        """FedAvg's state, and the optimiser's moments."""
        super().load_state(state)
        for start, values in ((_FIRST, self._first), (_SECOND, self._second)):
            values.update({name: np.array(state[f"{start}{name}"]) for name in values})
