r"""Methods that are a mixing matrix.

Every method that averages parameters is a row-stochastic matrix M over clients,

.. math:: \theta_i \leftarrow \sum_j M_{ij} \theta_j,

one matrix product over the stack. A method defines only its matrix, or several matrices, each of which mixes a group of
parameters.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from subfl_flower.aggregation import changes, rules
from subfl_flower.aggregation.settings import Rule
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.models.row_stack import RowStack, as_array, completed
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.update_account import UpdateAccount
from subfl_flower.strategies.subgraphs.upload_audit import UploadAudit
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.roster import Roster

_FLOAT32_BYTES = 4


class MixingStrategy(CohortStrategy):
    """Keep a parameter stack [K, ...] and mix it every round.

    `parameters` is what each client is sent next. A client whose row of M is zero keeps its parameters.
    """

    Settings = SubgraphClient.Settings
    counterpart = SubgraphClient

    rules: ClassVar[tuple[Rule, ...]] = ("mean", "median", "trimmed_mean", "krum")

    one_average: ClassVar[bool] = False
    """True where all clients' rows of M are one average, so that the server needs no more of a round than a sum."""

    recorded_group: ClassVar[str] = ""
    """The group whose mixing matrix a run records."""

    zero_is_not_sent: ClassVar[bool] = False
    """True where an entry of zero in an upload stands for one that the client did not send."""

    def __init__(self, run: RunContext, roster: Roster, contract: Contract | None = None) -> None:
        super().__init__(run, roster, contract)
        self.initial = {name: value for name, value in run.initial.items() if name in self.contract.downloads}
        self.parameters: Stack = {
            name: np.broadcast_to(value, (len(roster), *value.shape)) for name, value in self.initial.items()
        }
        self._mixing: dict[str, np.ndarray] = {}
        self._account = UpdateAccount(run, self.contract, len(roster))
        self._audit = UploadAudit(run, len(roster))

    @classmethod
    def check_sums(cls, sums: SecureSumSettings, settings: Any, method: str) -> None:
        """Allow secure sums in all rounds with `one_average`; else refuse them."""
        if not cls.one_average:
            super().check_sums(sums, settings, method)
        sums.require_all_rounds(method)

    @abstractmethod
    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        """M [K, A], the weights of the A replies of a round for each of the K clients; rows sum to one, or are zero."""

    def group(self, name: str) -> str:
        """The group that a parameter is mixed in: by default one for all."""
        return ""

    def mixing_matrices(self, updates: Updates) -> Mapping[str, np.ndarray]:
        """M [K, A] of every group: with one group it is `mixing_matrix`."""
        return {"": self.mixing_matrix(updates)}

    def mixed(self, matrix: np.ndarray, updates: Updates) -> Stack:
        """M applied to the replies in a group's `updates`: [K, ...] by name."""
        return {name: self.averaged(matrix, updates.arrays[name]) for name in self.initial if name in updates.arrays}

    @property
    def takes_sums(self) -> bool:
        """True where the rule is a weighted sum of the replies that are averaged."""
        return self.run.aggregation.rule in ("mean", "krum")

    def averaged(self, matrix: np.ndarray, values: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
        """The averages [K, ...] of values [A, ...] with the weights M, by the run's rule.

        Args:
            matrix: M [K, A].
            values: of one array.
            present: of the shape of `values`, false where a value does not count; None: all count. With ``mean`` these
                must be zero, and the result is a sum.
        """
        if self.takes_sums:
            return mix(matrix, {"": values})[""]
        rule = self.run.aggregation.rule
        hostile = self.run.aggregation.num_hostile(len(values))
        return rules.trimmed(matrix, values, len(values) if rule == "median" else hostile, present)

    @property
    def mixing(self) -> np.ndarray | None:
        """The mixing matrix [K, K] of the last aggregation, of `recorded_group` where there are several.

        Its columns are zero for clients that did not reply.
        """
        return self.mixing_of(self.recorded_group)

    def mixing_of(self, group: str) -> np.ndarray | None:
        """The mixing matrix [K, K] of the last aggregation, of any group."""
        return self._mixing.get(group)

    def state(self) -> Stack:
        """Parameters, M, and the account of protected uploads."""
        kept = {f"parameters.{name}": np.asarray(value) for name, value in self.parameters.items()}
        return {
            **super().state(),
            **kept,
            **self._account.state(),
            **{f"mixing{_dotted(group)}": matrix for group, matrix in self._mixing.items()},
        }

    def load_state(self, state: Stack) -> None:
        """Parameters, M, and the account of protected uploads."""
        super().load_state(state)
        self._account.load_state(state)
        self.parameters = {name: state[f"parameters.{name}"] for name in self.initial}
        names = [name for name in state if name == "mixing" or name.startswith("mixing.")]
        self._mixing = {name.removeprefix("mixing").removeprefix("."): state[name] for name in names}

    def model_bytes(self, prepared: Any) -> Mapping[str, np.ndarray]:
        """``whole_model`` in float32, and ``own_features``: without rows of features that a client does not have."""
        values = sum(value.size for value in self.run.initial.values())
        found = {"whole_model": np.full(len(self.roster), _FLOAT32_BYTES * values)}
        network = self.run.network
        if network is not None and network.input_rows is not None:
            width = self.run.initial[network.input_rows][0].size
            graphs = (prepared.client(client_id) for client_id in self.roster.client_ids)
            absent = np.array([np.count_nonzero(~network.reached_inputs(graph)) for graph in graphs])
            found["own_features"] = found["whole_model"] - _FLOAT32_BYTES * width * absent
        return found

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        """Each client's mixture."""
        return {name: rows(stack, positions) for name, stack in self.parameters.items()}

    def take(self, updates: Updates) -> None:
        """Count protected uploads, and audit them; then remember and aggregate."""
        self._account.watch(updates)
        self._audit.watch(updates, self.parameters)
        super().take(updates)

    def report(self, prepared: Any | None) -> dict[str, Any]:
        """The guarantees of protected uploads, and what uploads give away."""
        audited = self._audit.report(prepared, self.roster.client_ids)
        return {**super().report(prepared), **self._account.report(), **audited}

    def aggregate(self, updates: Updates) -> None:
        """θ ← M θ, group by group."""
        updates = self.guarded(self.with_skipped_rows(updates))
        matrices = self.mixing_matrices(updates)
        mixed: Stack = {}
        for group, matrix in matrices.items():
            others = {name for name in self.initial if self.group(name) != group}
            sent = {name: values for name, values in updates.arrays.items() if name not in others}
            mixed |= self._mixed_or_kept(matrix, replace(updates, arrays=sent))
        self.parameters = {name: mixed[name] for name in self.initial}
        self._mixing = {group: self._of_all(matrix, updates.positions) for group, matrix in matrices.items()}

    def with_skipped_rows(self, updates: Updates) -> Updates:
        """The replies with all rows of the first layer: those that a client skipped are as it was sent them."""
        first = None if self.run.network is None else self.run.network.input_rows
        if not self.run.skips_absent or first is None or first not in self.initial:
            return updates
        whole = completed(updates.arrays[first], rows(self.parameters[first], updates.positions.tolist()))
        return replace(updates, arrays={**updates.arrays, first: whole})

    def guarded(self, updates: Updates) -> Updates:
        """The replies that are averaged: long updates scaled back to the bound, and with ``krum`` without outliers.

        `guard_figures` then has of all replies ``update_norm`` (before), ``clipped`` and, with ``krum``, ``excluded``.
        """
        settings = self.run.aggregation
        names = [name for name in self.initial if name in updates.arrays]
        received = {name: rows(self.parameters[name], updates.positions.tolist()) for name in names}
        sent = {name: updates.arrays[name] for name in names}
        if not sent:
            return updates
        found = changes.norms(sent, received, self.zero_is_not_sent)
        self.guard_figures = {"update_norm": found}
        if settings.norm_bound is not None:
            factors = changes.bound_factors(found, settings.norm_bound, changes.lower_median(found))
            self.guard_figures["clipped"] = (factors < 1).astype(float)
            if (factors < 1).any():
                sent = changes.scaled_back(sent, received, factors, self.zero_is_not_sent)
                updates = replace(updates, arrays={**updates.arrays, **sent})
        if settings.rule == "krum":
            flat = changes.flat_changes(sent, received, self.zero_is_not_sent)
            kept = rules.kept_by_krum(flat, settings.num_hostile(len(flat)))
            self.guard_figures["excluded"] = (~kept).astype(float)
            updates = updates if kept.all() else updates.take(kept)
        return updates

    def _mixed_or_kept(self, matrix: np.ndarray, updates: Updates) -> Stack:
        """A group's mixed parameters; a client whose row is zero keeps its parameters."""
        mixed = self.mixed(matrix, updates)
        kept = np.flatnonzero(~matrix.any(1))
        if len(kept):
            for name, stack in mixed.items():
                mixed[name] = np.array(stack)
                mixed[name][kept] = self.parameters[name][kept]
        return mixed

    def _of_all(self, matrix: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """M [K, A] with columns for all clients: [K, K]."""
        square = np.zeros((len(self.roster), len(self.roster)), dtype=matrix.dtype)
        square[:, positions] = matrix
        return square


def _dotted(group: str) -> str:
    return f".{group}" if group else ""


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
        name: (matrix @ np.asarray(value).reshape(len(value), -1)).reshape(len(matrix), *value.shape[1:])
        for name, value in stack.items()
    }


def average_weights(num_examples: np.ndarray, weighting: str = "examples") -> np.ndarray:
    """FedAvg's weights [A] of an average over A clients, n_j / n.

    Args:
        num_examples: n_j, training examples of each client [A].
        weighting: ``examples``, or ``uniform``: equal weights, as also where no client has an example.
    """
    weights = num_examples if weighting == "examples" and num_examples.any() else np.ones(len(num_examples))
    normalised: np.ndarray = weights / weights.sum()
    return normalised


def average_matrix(roster: Roster, updates: Updates, weighting: str = "examples") -> np.ndarray:
    """FedAvg's matrix M [K, A]: `average_weights` of the A replies in every row."""
    return np.tile(average_weights(roster.num_examples[updates.positions], weighting), (len(roster), 1))


def rows(stack: np.ndarray, positions: Sequence[int]) -> np.ndarray:
    """The rows at `positions`; a stack that is one row in memory stays so."""
    if isinstance(stack, RowStack):
        return as_array(stack.take(positions))
    if stack.strides[0] == 0:
        return np.broadcast_to(stack[0], (len(positions), *stack.shape[1:]))
    if list(positions) == list(range(len(stack))):
        return stack
    return stack[list(positions)]
