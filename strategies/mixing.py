r"""Methods that are a mixing matrix.

Every method that averages parameters is a row-stochastic matrix M over clients,

.. math:: \theta_i \leftarrow \sum_j M_{ij} \theta_j,

one matrix product over the stack. A method states its matrix; the rest is here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np

from subfl_flower.models.stacked_gnn import layer_parameters
from subfl_flower.runtime.messages import ArraySpec, Stack
from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.strategy import CohortStrategy, Updates


class MixingStrategy(CohortStrategy):
    """Keeps a parameter stack [K, ...] and mixes it every round.

    `parameters` is what each client is sent next. A client whose row of M is zero keeps what it had.
    """

    class Settings(CohortStrategy.Settings):
        """`personal_layers`: layers that stay with the clients and are not mixed; FedPer's is the classifier."""

        personal_layers: tuple[str, ...] = ()

    settings: Settings

    def __init__(self, settings: CohortStrategy.Settings, roster: Roster, initial: Stack) -> None:
        super().__init__(settings, roster, initial)
        own = layer_parameters(initial, self.settings.personal_layers)
        initial = self.initial = {name: value for name, value in initial.items() if name not in own}
        self.parameters: Stack = {
            name: np.broadcast_to(value, (len(roster), *value.shape)) for name, value in initial.items()
        }
        self._mixing: np.ndarray | None = None

    @abstractmethod
    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """M [K, A]: how each of the K clients mixes the A replies of a round; rows sum to one, or are zero."""

    def mixed(self, matrix: np.ndarray, updates: Updates) -> Stack:
        """M applied to the replies: [K, ...] by name."""
        return mix(matrix, {name: updates.arrays[name] for name in self.initial})

    @property
    def expected(self) -> dict[str, ArraySpec]:
        """The parameters that are not personal."""
        return {name: ArraySpec(value.shape, str(value.dtype)) for name, value in self.initial.items()}

    @property
    def mixing(self) -> np.ndarray | None:
        """The mixing matrix [K, K] of the last aggregation; zero columns for clients that did not reply."""
        return self._mixing

    def state(self) -> Stack:
        """Parameters and M."""
        kept = {f"parameters.{name}": value for name, value in self.parameters.items()}
        return kept if self._mixing is None else {**kept, "mixing": self._mixing}

    def load_state(self, state: Stack) -> None:
        """Parameters and M."""
        self.parameters = {name: state[f"parameters.{name}"] for name in self.initial}
        self._mixing = state.get("mixing")

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """Each client's own mixture."""
        return {name: rows(stack, positions) for name, stack in self.parameters.items()}

    def aggregate(self, updates: Updates) -> None:
        """θ ← M θ."""
        matrix = self.mixing_matrix(updates)
        kept = np.flatnonzero(~matrix.any(1))
        mixed = self.mixed(matrix, updates)
        if len(kept):
            for name, stack in mixed.items():
                mixed[name] = np.array(stack)
                mixed[name][kept] = self.parameters[name][kept]
        self.parameters = mixed
        self._mixing = np.zeros((len(self.roster), len(self.roster)), dtype=matrix.dtype)
        self._mixing[:, updates.positions] = matrix


def mix(matrix: np.ndarray, stack: Mapping[str, np.ndarray]) -> Stack:
    """M [K, A] times a stack [A, ...]: [K, ...] by name.

    Where all rows of M are one row, as in FedAvg, it is applied once and the result is one row in memory.
    """
    matrix = matrix.astype(np.float32)
    if len(matrix) > 1 and (matrix == matrix[0]).all():
        return {
            name: np.broadcast_to(value, (len(matrix), *value.shape[1:]))
            for name, value in mix(matrix[:1], stack).items()
        }
    return {
        name: (matrix @ value.reshape(len(value), -1)).reshape(len(matrix), *value.shape[1:])
        for name, value in stack.items()
    }


def rows(stack: np.ndarray, positions: Sequence[int]) -> np.ndarray:
    """The rows at `positions`; a stack that is one row in memory stays so."""
    if stack.strides[0] == 0:
        return np.broadcast_to(stack[0], (len(positions), *stack.shape[1:]))
    if list(positions) == list(range(len(stack))):
        return stack
    return stack[list(positions)]
