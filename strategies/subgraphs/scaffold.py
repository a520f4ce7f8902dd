r"""SCAFFOLD: Karimireddy et al., "SCAFFOLD: stochastic controlled averaging for federated learning", ICML 2020.

This is the server's side of Algorithm 1. With the replies of the clients in S, out of N (eq. 5),

.. math:: x \leftarrow x + \eta_g \sum_{i \in S} w_i (y_i - x), \quad
          c \leftarrow c + \sum_{i \in S} p_i (c_i^+ - c_i),

where :math:`w` are FedAvg's weights within S, and :math:`p` its weights within all N clients. With equal weights
:math:`w_i = 1/|S|` and :math:`p_i = 1/N`, as in the paper, so that c stays the mean of all :math:`c_i`, absent clients
included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.aggregation import changes
from subfl_flower.clients.subgraphs.scaffold import CHANGE, CONTROL, ScaffoldClient
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.mixing import average_weights
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster


class Scaffold(FedAvg):
    """FedAvg's average of models with a global step size, and the server's control variate.

    It stands a level deeper than other strategies because it is FedAvg whose clients also send control variates.

    Attributes:
        control: c by the parameter's name, without a client axis.
    """

    class Settings(FedAvg.Settings):
        """Knobs of the server's steps.

        Attributes:
            weighting: ``uniform`` as in the paper, or by training ``examples``.
            server_lr: η_g, the global step size.
        """

        weighting: Literal["examples", "uniform"] = "uniform"
        server_lr: float = Field(default=1.0, gt=0)

    settings: Settings

    counterpart = ScaffoldClient

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self.control: Stack = {name: np.zeros_like(value) for name, value in self.initial.items()}

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """x and c, for every client."""
        controls = {
            f"{CONTROL}{name}": np.broadcast_to(value, (len(positions), *value.shape))
            for name, value in self.control.items()
        }
        return {**super().instructions(server_round, positions), **controls}

    def mixed(self, matrix: np.ndarray, updates: Updates) -> Stack:
        """x and c after eq. 5: [K, ...] by name; c is changed in place of being sent back."""
        self._move_control(matrix[:1], updates)
        averages = super().mixed(matrix, updates)
        if self.settings.server_lr == 1:
            return averages
        rate = np.float32(self.settings.server_lr)
        return {name: value + rate * (averages[name] - value) for name, value in self.parameters.items()}

    def _move_control(self, weights: np.ndarray, updates: Updates) -> None:
        """Add the replies' changes of c_i to c.

        Changes that are longer than the run's bound are scaled back, as those of parameters are. Their average with
        w, by the run's rule, times the share that S has of all clients' weights, is the sum with p.

        Args:
            weights: w [1, A].
            updates: of the A clients in S.
        """
        sent = {name: updates.arrays[f"{CHANGE}{name}"] for name in self.control}
        if self.run.aggregation.norm_bound is not None:
            nothing = {name: np.zeros_like(values) for name, values in sent.items()}
            lengths = changes.norms(sent, nothing)
            usual = changes.lower_median(lengths)
            factors = changes.bound_factors(lengths, self.run.aggregation.norm_bound, usual)
            if (factors < 1).any():
                sent = changes.scaled_back(sent, nothing, factors)
        everyone = average_weights(self.roster.num_examples, self.settings.weighting)
        share = np.float32(everyone[updates.positions].sum())
        self.control = {
            name: (value + share * self.averaged(weights, sent[name])[0]).astype(np.float32)
            for name, value in self.control.items()
        }

    def state(self) -> Stack:
        """FedAvg's state, and c."""
        return {**super().state(), **{f"{CONTROL}{name}": value for name, value in self.control.items()}}

    def load_state(self, state: Stack) -> None:
        """FedAvg's state, and c."""
        super().load_state(state)
        self.control = {name: np.array(state[f"{CONTROL}{name}"]) for name in self.control}
