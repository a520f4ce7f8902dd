"""What clients are asked outside of training rounds: a phase of its own, one message a node.

A phase is named by its action (``query.structure``). Each client answers with arrays of its own sizes; there is no
client axis. The node's client object answers by `CohortClient.answer`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from subfl_flower.errors import RunFailure
from subfl_flower.runtime.messages import ARRAYS, Stack, read_array, to_array
from subfl_flower.runtime.roster import Roster, describe_error

T = TypeVar("T")

OUTCOME, RUN = "outcome", "run"


class Exchange:
    """Asks all clients of a roster.

    Args:
        grid: the connection to the nodes.
        run: the record that describes the run, sent along.
        roster: the clients.
        tolerant: go on without a client that cannot answer.

    Attributes:
        log: for every phase so far ``action``, ``bytes_up``, ``bytes_down``, ``seconds``.
    """

    def __init__(self, grid: Grid, run: ConfigRecord, roster: Roster, tolerant: bool) -> None:
        self._grid = grid
        self._run = run
        self._roster = roster
        self._tolerant = tolerant
        self.log: list[dict[str, Any]] = []

    def ask(self, action: str, decode: Callable[[Stack], T]) -> list[T | None]:
        """Every client's answer, by position in the roster; None where a client gave none.

        Args:
            action: the phase's name.
            decode: makes sense of one client's arrays; a ValueError that it raises is that client's failure.

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
        for reply in self._grid.send_and_receive(messages):
            clients = [self._roster.client_ids[p] for p in asked[reply.metadata.src_node_id]]
            if reply.has_error():
                failures.update(dict.fromkeys(clients, describe_error(reply)))
                continue
            try:
                stacks, reasons = _read(reply.content)
            except (KeyError, TypeError, ValueError) as error:
                failures.update(dict.fromkeys(clients, f"its node's reply cannot be read: {error}"))
                continue
            for client in clients:
                if client not in stacks:
                    failures[client] = reasons.get(client, "it is missing in its node's reply")
                    continue
                received += sum(values.nbytes for values in stacks[client].values())
                try:
                    answers[position_of[client]] = decode(stacks[client])
                except (KeyError, ValueError) as error:
                    failures[client] = f"its answer cannot be used: {error}"
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


def _read(content: RecordDict) -> tuple[dict[int, Stack], dict[int, str]]:
    outcome = content.config_records[OUTCOME]
    clients: Sequence[Any] = outcome["clients"]  # type: ignore[assignment]
    stacks: dict[int, Stack] = {int(client): {} for client in clients}
    for name, array in content.array_records[ARRAYS].items():
        client, _, array_name = name.partition("/")
        stacks[int(client)][array_name] = read_array(array)
    reasons = {int(client): str(reason) for client, reason in dict(json.loads(str(outcome["failures"]))).items()}
    return stacks, reasons
