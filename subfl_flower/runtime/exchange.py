"""What clients are asked outside of training rounds: a phase of its own, one message a node.

A phase is named by its action (``query.structure``). Each client answers with arrays of its own sizes; there is no
client axis. The node's client object answers by `CohortClient.answer`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from logging import WARNING
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore import log

from subfl_flower.errors import RunFailure
from subfl_flower.runtime.delivery import send_and_wait
from subfl_flower.runtime.messages import ARRAYS, Stack, read_array, to_array
from subfl_flower.runtime.replies import OUTCOME, one_line, read_outcome
from subfl_flower.runtime.roster import Roster, describe_error

T = TypeVar("T")

RUN = "run"


class Exchange:
    """Asks all clients of a roster.

    Args:
        grid: the connection to the nodes.
        run: the record that describes the run, sent along.
        roster: the clients.
        tolerant: go on without a client that cannot answer.
        timeout: seconds to wait for answers; None: for all of them.
        interval: seconds between two looks for answers.

    Attributes:
        log: for every phase so far ``action``, ``bytes_up``, ``bytes_down``, ``seconds``.
    """

    def __init__(
        self,
        grid: Grid,
        run: ConfigRecord,
        roster: Roster,
        tolerant: bool,
        timeout: float | None = None,
        interval: float = 0.005,
    ) -> None:
        self._grid = grid
        self._timeout, self._interval = timeout, interval
        self._run = run
        self._roster = roster
        self._tolerant = tolerant
        self.log: list[dict[str, Any]] = []

    def ask(self, action: str, decode: Callable[[Stack], T], largest: Sequence[int] | None = None) -> list[T | None]:
        """Every client's answer, by position in the roster; None where a client gave none.

        Args:
            action: the phase's name.
            decode: makes sense of one client's arrays; a ValueError that it raises is that client's failure.
            largest: bytes that each client's answer may have, by position; None: any number.

        Raises:
            RunFailure: a client gave no answer, or one that cannot be decoded, and failures are not tolerated.
        """
        start = time.perf_counter()
        asked = self._roster.by_node(range(len(self._roster)))
        messages = []
        for node, positions in asked.items():
            run = ConfigRecord({**self._run, "clients": [self._roster.client_ids[p] for p in positions]})
            messages.append(Message(RecordDict({RUN: run}), node, f"query.{action}"))
        answers: list[T | None] = [None] * len(self._roster)
        failures = {client: "no reply" for client in self._roster.client_ids}
        received = 0
        position_of = {client: position for position, client in enumerate(self._roster.client_ids)}
        for reply in send_and_wait(self._grid, messages, self._timeout, self._interval):
            node = reply.metadata.src_node_id
            clients = [self._roster.client_ids[p] for p in asked.pop(node, [])]
            if not clients:
                log(WARNING, "a reply of node %d is ignored: nothing was asked, or it has replied before", node)
                continue
            if reply.has_error():
                failures.update(dict.fromkeys(clients, one_line(describe_error(reply))))
                continue
            try:
                answered, reasons = _read(reply.content, clients)
            except ValueError as error:
                failures.update(dict.fromkeys(clients, one_line(f"its node's reply cannot be read: {error}")))
                continue
            failures.update(reasons)
            for client, arrays in answered.items():
                position = position_of[client]
                try:
                    stack = _stack(arrays, None if largest is None else largest[position])
                    received += sum(values.nbytes for values in stack.values())
                    answers[position] = decode(stack)
                except (KeyError, ValueError) as error:
                    failures[client] = one_line(f"its answer cannot be used: {error}")
                else:
                    del failures[client]
        self.log.append(
            {"action": action, "bytes_up": received, "bytes_down": 0, "seconds": time.perf_counter() - start}
        )
        if failures and not self._tolerant:
            client, reason = min(failures.items())
            raise RunFailure(f"client {client} failed in query.{action}: {reason}")
        return answers


def answer_record(answers: dict[int, Stack], failures: dict[int, str]) -> RecordDict:
    """A node's reply: its clients' arrays, each named ``<client>/<array>``, and the reasons of those that failed."""
    arrays = {
        f"{client}/{name}": to_array(np.ascontiguousarray(values))
        for client, stack in answers.items()
        for name, values in stack.items()
    }
    outcome = ConfigRecord({"clients": list(answers), "failures": json.dumps(failures)})
    return RecordDict({ARRAYS: ArrayRecord(arrays), OUTCOME: outcome})


def _read(content: RecordDict, asked: Sequence[int]) -> tuple[dict[int, dict[str, Array]], dict[int, str]]:
    """The arrays of every client that answered, and reasons of the others."""
    _, clients, reasons = read_outcome(content, asked)
    if ARRAYS not in content.array_records:
        raise ValueError(f"it has no record {ARRAYS!r}")
    owners = {str(client): client for client in clients}
    answers: dict[int, dict[str, Array]] = {client: {} for client in clients}
    for name, array in content.array_records[ARRAYS].items():
        owner, _, array_name = name.partition("/")
        if owner not in owners:
            raise ValueError(f"it holds an array {name}, which is of no client that it answers for")
        answers[owners[owner]][array_name] = array
    return answers, reasons


def _stack(arrays: Mapping[str, Array], largest: int | None) -> Stack:
    """One client's answer."""
    size = sum(len(array.data) for array in arrays.values())
    if largest is not None and size > largest:
        raise ValueError(f"it has {size} bytes, and may have {largest}")
    return {name: read_array(array) for name, array in arrays.items()}
