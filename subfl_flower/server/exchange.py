"""Questions to clients outside of training rounds: a phase, with one message a node.

A phase has a name, such as ``structure``, which a method's clients declare (`CohortClient.phases`). Each client may be
sent arrays. It answers with arrays of any size, without a client axis. All phases have one type of message,
``query.ask``, and the node's client object answers by `CohortClient.answer`. `Exchange.ask_matcher` asks the matcher, a
node without clients.
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

from subfl_flower.errors import RunFailure
from subfl_flower.flower.delivery import send_and_wait
from subfl_flower.flower.log import log
from subfl_flower.server.round_messages import RUN, announced_in
from subfl_flower.wire.array_bytes import read_array, to_array
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Question
from subfl_flower.wire.payload import ARRAYS
from subfl_flower.wire.replies import OUTCOME, one_line, read_outcome
from subfl_flower.wire.roster import Roster, describe_error

T = TypeVar("T")

ASK = "ask"
"""Action of the messages of all phases."""

PHASE = "phase"
"""Entry of the run's record that names the phase."""


class Exchange:
    """Exchange of questions and answers with all clients of a roster.

    Args:
        grid: the connection to the nodes.
        run: the record that describes the run, sent along.
        roster: the clients.
        tolerant: go on without a client that cannot answer.
        timeout: seconds to wait for answers; None: for all of them.
        interval: seconds between two polls for answers.

    Attributes:
        roster: the clients, and their present nodes.
        log: for every phase so far ``action``, ``round`` (which it came before), ``bytes_up``, ``bytes_down``,
            ``seconds``.
        failures: reasons by client id, of those that gave no answer in the last phase.
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
        self.roster = roster
        self._tolerant = tolerant
        self.announce: Callable[[str], None] = lambda action: None
        """Callback before every phase."""
        self.about: Mapping[str, Any] = {}
        """Entries of the round's messages in addition to the run's record."""
        self.next_round = 1
        """The round that the phases come before."""
        self.log: list[dict[str, Any]] = []
        self.failures: dict[int, str] = {}

    def ask(
        self,
        action: str,
        decode: Callable[[Stack], T],
        largest: Sequence[int] | None = None,
        sent: Mapping[int, Stack] | None = None,
        about: Mapping[str, int | bytes] | None = None,
        tolerant: bool | None = None,
    ) -> list[T | None]:
        """Every client's answer, by position in the roster; None where a client gave none.

        Args:
            action: the phase's name.
            decode: decodes one client's arrays; a ValueError that it raises is that client's failure.
            largest: bytes that each client's answer may have, by position; None: any number.
            sent: arrays for the client at a position; only these clients are asked. None: all are asked, without
                arrays.
            about: further entries of the question.
            tolerant: replaces the exchange's own setting.

        Raises:
            RunFailure: a client gave no answer, or one that cannot be decoded, and failures are not tolerated.
        """
        self.announce(action)
        start = time.perf_counter()
        chosen = range(len(self.roster)) if sent is None else sorted(sent)
        asked = self.roster.by_node(chosen)
        messages, bytes_down = [], 0
        for node, positions in asked.items():
            ids = [self.roster.client_ids[p] for p in positions]
            content = RecordDict({RUN: self._question(action, ids, about or {})})
            if sent is not None:
                stacks = {client: sent[position] for client, position in zip(ids, positions, strict=True)}
                bytes_down += sum(values.nbytes for stack in stacks.values() for values in stack.values())
                content[ARRAYS] = client_arrays(stacks)
            messages.append(Message(content, node, f"query.{ASK}"))
        answers: list[T | None] = [None] * len(self.roster)
        failures = {self.roster.client_ids[position]: "no reply" for position in chosen}
        received = 0
        position_of = {self.roster.client_ids[position]: position for position in chosen}
        for reply in send_and_wait(self._grid, messages, self._timeout, self._interval):
            node = reply.metadata.src_node_id
            clients = [self.roster.client_ids[p] for p in asked.pop(node, [])]
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
        self._log(action, received, bytes_down, start)
        self.failures = failures
        if failures:
            client, reason = min(failures.items())
            if not (self._tolerant if tolerant is None else tolerant):
                raise RunFailure(f"client {client} failed in query.{action}: {reason}")
            said = "%d clients failed in query.%s, the first is client %d: %s"
            log(WARNING, said, len(failures), action, client, reason)
        return answers

    def ask_matcher(self, action: str, sent: Mapping[int, Stack]) -> dict[int, Stack]:
        """The matcher's answers, by those of the keys of `sent` that it has an answer for.

        Args:
            action: the phase's name.
            sent: arrays by a number that stands for the user they concern.

        Raises:
            RunFailure: there is no matcher, or it gave no answer.
        """
        self.announce(action)
        start = time.perf_counter()
        if self.roster.matcher is None:
            raise RunFailure("there is no matcher")
        content = RecordDict({RUN: self._question(action, sorted(sent), {})})
        content[ARRAYS] = client_arrays(
            dict(sorted(sent.items()))
        )  # in the caller's order they would say whose they are
        message = Message(content, self.roster.matcher.node_id, f"query.{ASK}")
        replies = send_and_wait(self._grid, [message], self._timeout, self._interval)
        if not replies:
            raise RunFailure("the matcher did not reply")
        if replies[0].has_error():
            raise RunFailure(f"the matcher failed: {one_line(describe_error(replies[0]))}")
        try:
            answered, reasons = _read(replies[0].content, sorted(sent))
            answers = {key: _stack(arrays, None) for key, arrays in answered.items()}
        except ValueError as error:
            raise RunFailure(one_line(f"the matcher's reply cannot be read: {error}")) from None
        for reason in dict.fromkeys(reasons.values()):
            log(WARNING, "the matcher refused %d boxes: %s", list(reasons.values()).count(reason), reason)
        up, down = (
            sum(values.nbytes for stack in stacks.values() for values in stack.values()) for stacks in (answers, sent)
        )
        self._log(action, up, down, start)
        return answers

    def _question(self, action: str, ids: list[int], about: Mapping[str, int | bytes]) -> ConfigRecord:
        own: dict[str, Any] = {PHASE: action, "clients": ids}
        return ConfigRecord({**self._run, "round": self.next_round, **self.about, **about, **own})

    def _log(self, action: str, bytes_up: int, bytes_down: int, start: float) -> None:
        traffic = {"bytes_up": bytes_up, "bytes_down": bytes_down}
        seconds = time.perf_counter() - start
        self.log.append({"action": action, "round": self.next_round, **traffic, "seconds": seconds})


def client_arrays(stacks: Mapping[int, Stack]) -> ArrayRecord:
    """Arrays of several clients, each named ``<client>/<array>``."""
    return ArrayRecord(
        {
            f"{client}/{name}": to_array(np.ascontiguousarray(values))
            for client, stack in stacks.items()
            for name, values in stack.items()
        }
    )


def read_question(content: RecordDict) -> Question:
    """The question that a message asks.

    Raises:
        ValueError: it holds arrays for a client that is not asked, or arrays that cannot be read.
    """
    run: dict[str, Any] = dict(content.config_records[RUN])
    received: dict[int, Stack] = {int(client): {} for client in run["clients"]}
    if ARRAYS in content.array_records:
        by_client = _by_client(content, list(received))
        received = {client: _stack(arrays, None) for client, arrays in by_client.items()}
    return Question(str(run[PHASE]), received, int(run["round"]), announced_in(run), run)


def answer_record(answers: Answers) -> RecordDict:
    """A node's reply: its clients' arrays, each named ``<client>/<array>``, and the reasons of those that failed."""
    outcome = ConfigRecord({"clients": list(answers.arrays), "failures": json.dumps(answers.failures)})
    return RecordDict({ARRAYS: client_arrays(answers.arrays), OUTCOME: outcome})


def _read(content: RecordDict, asked: Sequence[int]) -> tuple[dict[int, dict[str, Array]], dict[int, str]]:
    """The arrays of every client that answered, and reasons of the others."""
    _, clients, reasons = read_outcome(content, asked)
    if ARRAYS not in content.array_records:
        raise ValueError(f"it has no record {ARRAYS!r}")
    return _by_client(content, clients), reasons


def _by_client(content: RecordDict, clients: Sequence[int]) -> dict[int, dict[str, Array]]:
    owners = {str(client): client for client in clients}
    found: dict[int, dict[str, Array]] = {client: {} for client in clients}
    for name, array in content.array_records[ARRAYS].items():
        owner, _, array_name = name.partition("/")
        if owner not in owners:
            raise ValueError(f"it holds an array {name}, which is of no client that it answers for")
        found[owners[owner]][array_name] = array
    return found


def _stack(arrays: Mapping[str, Array], largest: int | None) -> Stack:
    """One client's answer."""
    size = sum(len(array.data) for array in arrays.values())
    if largest is not None and size > largest:
        raise ValueError(f"it has {size} bytes, and may have {largest}")
    return {name: read_array(array) for name, array in arrays.items()}
