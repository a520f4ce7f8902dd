"""Named arrays between the server and the clients of one node: a batch goes in, a result comes out."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subfl_flower.models.row_stack import concatenated
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.memory import hand_back_freed_memory
from subfl_flower.wire.ragged import Ragged


@dataclass(frozen=True, eq=False)
class Batch:
    """The orders for some clients of a node, in one round.

    Attributes:
        clients: ids of the C clients; row c of every array is of client c.
        server_round: 1-based.
        sent: named arrays. Each client has separate rows, or some of a few rows that many clients share.
        rows: named arrays of which each client has a different number of rows.
        announced: numbers that the server tells all clients, by name.
        local_epochs: passes over each client's training examples.
    """

    clients: tuple[int, ...]
    server_round: int = 1
    sent: Choice = field(default_factory=lambda: Choice.for_all({}, 0))
    rows: Mapping[str, Ragged] = field(default_factory=dict)
    announced: Mapping[str, float] = field(default_factory=dict)
    local_epochs: int = 1

    def __len__(self) -> int:
        """The number of clients, C."""
        return len(self.clients)

    @classmethod
    def of_stack(cls, clients: Sequence[int], stack: Mapping[str, np.ndarray], **rest: Any) -> Batch:
        """Make a batch of arrays with a client axis.

        Args:
            clients: ids of the C clients.
            stack: named arrays, each [C, ...].
            rest: further attributes.
        """
        return cls(tuple(clients), sent=Choice.of_stack(dict(stack), len(clients)), **rest)

    @classmethod
    def for_all(cls, clients: Sequence[int], model: Mapping[str, np.ndarray], **rest: Any) -> Batch:
        """Make a batch in which all clients are sent the same model, which has no client axis."""
        return cls(tuple(clients), sent=Choice.for_all(dict(model), len(clients)), **rest)

    @property
    def stack(self) -> Stack:
        """Named arrays [C, ...], each client's first row."""
        return self.sent.stack()

    def tensors(self, device: torch.device, without: Collection[str] = ()) -> dict[str, Tensor]:
        """`stack` as tensors on a device; on a CPU they are views of the message and must not be written to.

        Args:
            device: device of the tensors.
            without: names that are left out.
        """
        return {
            name: tensor_of(np.asarray(values)).to(device) for name, values in self.stack.items() if name not in without
        }

    def take(self, chosen: Sequence[int]) -> Batch:
        """The batch of the clients at some places 0 .. C - 1, in the order of the places."""
        if list(chosen) == list(range(len(self.clients))):
            return self
        return replace(
            self,
            clients=tuple(self.clients[place] for place in chosen),
            sent=self.sent.of(chosen),
            rows={name: rows.take(chosen) for name, rows in self.rows.items()},
        )


@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of a batch.

    Attributes:
        clients: ids of the A clients that succeeded; row a of everything is of client a.
        arrays: uploads, each [A, ...].
        rows: uploads of which each client has a different number of rows.
        metrics: figures, each float [A]; NaN where a client has no such figure.
        failures: reasons by id, of the clients that did not succeed.
    """

    clients: tuple[int, ...] = ()
    arrays: Stack = field(default_factory=dict)
    rows: dict[str, Ragged] = field(default_factory=dict)
    metrics: dict[str, np.ndarray] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)

    def without(self, failures: Mapping[int, str]) -> Result:
        """The result with further clients among those that did not succeed."""
        kept = [row for row, client in enumerate(self.clients) if client not in failures]
        return Result(
            tuple(self.clients[row] for row in kept),
            {name: np.asarray(values)[kept] for name, values in self.arrays.items()},
            {name: rows.take(kept) for name, rows in self.rows.items()},
            {name: values[kept] for name, values in self.metrics.items()},
            {**self.failures, **failures},
        )

    @classmethod
    def joined(cls, parts: Sequence[Result]) -> Result:
        """Join the results of several batches in their order; uploads of the parts are released on the way."""
        failures = {client: reason for part in parts for client, reason in part.failures.items()}
        parts = [part for part in parts if part.clients]
        if not parts:
            return cls(failures=failures)
        rows = {}
        for name in list(parts[0].rows):
            rows[name] = Ragged.joined([part.rows.pop(name) for part in parts])
            if len(parts) > 1:
                hand_back_freed_memory(rows[name].values.nbytes)
        return cls(
            clients=tuple(client for part in parts for client in part.clients),
            arrays={name: concatenated([part.arrays[name] for part in parts]) for name in parts[0].arrays},
            rows=rows,
            metrics={name: concatenated([part.metrics[name] for part in parts]) for name in parts[0].metrics},
            failures=failures,
        )


@dataclass(frozen=True, eq=False)
class Question:
    """A question to some clients outside of rounds.

    Attributes:
        phase: its name.
        received: named arrays of any shape that each client is sent, by client id.
        server_round: the round that the phase comes before.
        announced: numbers that the server tells all clients, by name.
        about: further facts of this phase, by name.
    """

    phase: str
    received: Mapping[int, Stack]
    server_round: int = 1
    announced: Mapping[str, float] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Answers:
    """The answers to a question.

    Attributes:
        arrays: named arrays of any shape of each client that answered, by client id.
        failures: reasons by id, of the clients that could not answer.
    """

    arrays: dict[int, Stack] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)


class _Unguarded:
    """A read-only array that claims to be writable, because PyTorch has no tensors that are not."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values  # keeps the memory
        address, _ = values.__array_interface__["data"]
        self.__array_interface__ = {**values.__array_interface__, "data": (address, False)}


def tensor_of(values: np.ndarray) -> Tensor:
    """The memory of an array as a tensor; nothing must be written to it where `values` is read-only.

    PyTorch would warn of a read-only array, and filters of warnings are not safe among threads.
    """
    return torch.from_numpy(values if values.flags.writeable else np.asarray(_Unguarded(values)))
