"""Members of a federation: nodes that join, answer the roster's question, leave and come back.

Every answer is compared with the run's schema, whatever other nodes say. In a simulation all nodes are there from the
start and any misfit ends the run. In a deployment a node whose clients do not fit is refused, by name, and the others
go on. A client that comes late, or comes back, is taken in between two rounds without delay for the others.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from subfl_flower.aggregation.changes import largest_size
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.flower.log import log
from subfl_flower.server.schema_fit import disagreement, misfit
from subfl_flower.trust.members import Admission
from subfl_flower.wire.replies import one_line
from subfl_flower.wire.roster import ROSTER, SIZES, Matcher, Roster, RosterAnswer, Schema, Shape, describe_error

_LOOK_SECONDS = 0.2
_ASK_AGAIN_SECONDS = 60.0
_TELL_SECONDS = 10.0
_MOST_NAMED = 8
"""Clients that a refusal of too many lists."""
_SLOWER = 3.0
"""Longest wait for a further node of a simulation, as a multiple of the slowest node's time so far."""
# Clients that are refused, and the reason.
Refusals = list[tuple[list[int], str]]


class Membership:
    """The roster of a run, kept up to date.

    Args:
        grid: the connection to the nodes.
        run: the record that describes the run, sent along.
        dataset: name of the clients' data set.
        schema: schema of the clients' data, with the clients' ids where these are known.
        tolerant: refuse a node whose clients do not fit and go on, instead of ending the run.
        patience: seconds to wait for clients.
        min_clients: number that suffices when `patience` is over; None: all.
        max_clients: number that may come where the schema does not list them; None: any.
        known: the roster of the run that is resumed; no other clients are taken in.
        needs_matcher: wait at the start also for the matcher's node.
        admission: decides which clients a node may host; None: any, and of two nodes the first.

    Attributes:
        refusals: for every refused node its clients (where it named any) and the reason.
    """

    def __init__(
        self,
        grid: Grid,
        run: ConfigRecord,
        dataset: str,
        schema: FederationSchema,
        *,
        tolerant: bool,
        patience: float,
        min_clients: int | None = None,
        max_clients: int | None = None,
        known: Roster | None = None,
        needs_matcher: bool = False,
        admission: Admission | None = None,
        size_bound: float | None = None,
    ) -> None:
        self._size_bound = size_bound
        self._bounded: set[tuple[int, str]] = set()
        self._max_clients = max_clients
        self._admission = admission
        self._grid, self._run, self._dataset = grid, run, dataset
        self._tolerant, self._patience, self._min_clients = tolerant, patience, min_clients
        self._schema, self._shape, self._stated_ids = schema, Shape.of(schema), schema.client_ids
        self._answers: dict[int, RosterAnswer] = {}
        self._asked: dict[str, int] = {}
        self._failed_at: dict[int, float] = {}
        # Names and partition of the first accepted node, for facts that the schema leaves open.
        self._agreed: Schema | None = None
        self._hosts: dict[int, int] = {}
        self._roster = known
        self._needs_matcher = needs_matcher
        self._matchers: dict[int, Matcher] = {}
        self._changed = True
        self.refusals: list[dict[str, Any]] = []

    # At the start ---------------------------------------------------------------------------------------------------

    def gather(self, tell: Callable[[str], None] | None = None) -> Roster:
        """Wait until every client is hosted, or until enough are when `patience` is over.

        In a simulation all nodes will come, and their processes are slow on a busy machine: every node that answers
        extends the wait to three times the time so far.

        Args:
            tell: takes a sentence on a wait that lasts, every `_TELL_SECONDS`.

        Raises:
            SubflError: too few came in time; or, where that is not tolerated, a node's clients do not fit.
        """
        start, heard = time.monotonic(), 0
        deadline, told = start + self._patience, start
        while True:
            self._look()
            if not self._tolerant and len(self._answers) > heard:
                heard = len(self._answers)
                deadline = max(deadline, start + _SLOWER * (time.monotonic() - start))
            hosts, refused = self._assigned()
            if refused and not self._tolerant:
                raise SubflError(refused[0][1])
            wanted = self._wanted()
            complete = wanted is not None and len(hosts) >= wanted
            if complete and (self._matchers or not self._needs_matcher):
                break
            if time.monotonic() > deadline:
                if complete:
                    self._do_without_matcher()
                    break
                if len(hosts) >= (self._min_clients or 1) and (self._min_clients or wanted is None):
                    break
                raise SubflError(self._too_few(hosts, refused))
            if tell is not None and time.monotonic() - told >= _TELL_SECONDS:
                told = time.monotonic()
                here = f"{len(hosts)} clients" if wanted is None else f"{len(hosts)} of {wanted} clients"
                tell(f"waits for nodes: {here} are there, {deadline - told:.0f} s are left (runtime.node_timeout)")
            time.sleep(_LOOK_SECONDS)
        self._settle(hosts, refused)
        if self._roster is None:
            self._roster = self._first_roster()
        return self._updated()

    def _do_without_matcher(self) -> None:
        text = f"no node is the matcher, and none came within {self._patience:.0f} s (runtime.node_timeout)"
        if not self._tolerant:
            raise SubflError(text)
        log(WARNING, "%s; training starts without it", text)

    def _wanted(self) -> int | None:
        """Number of clients to wait for; None where it is not known."""
        ids = self._known_ids()
        return self._min_clients if ids is None else len(ids)

    def _known_ids(self) -> Sequence[int] | None:
        """The ids of the run's clients, ascending; None where they are not known."""
        if self._roster is not None:
            return self._roster.client_ids
        return self._stated_ids

    def _too_few(self, hosts: dict[int, int], refused: Refusals) -> str:
        ids, waited = self._known_ids(), f"within {self._patience:.0f} s (runtime.node_timeout)"
        if ids is not None:
            missing = [client for client in ids if client not in hosts]
            text = (
                f"{len(missing)} of {len(ids)} clients are hosted by no node, the first is client {missing[0]}; "
                f"{len(self._answers)} nodes answered {waited}"
            )
        elif self._answers:
            text = f"{len(hosts)} clients that fit came {waited}"
            text += f", and federation.min_clients is {self._min_clients}" if self._min_clients else ""
        else:
            text = f"no node answered {waited}"
        reasons = dict.fromkeys([*(reason for _, reason in refused), *(told["reason"] for told in self.refusals)])
        if reasons:
            text += f"; refused: {'; '.join(reasons)}"
        return text if not self._tolerant else f"{text}; federation.min_clients lets a run start with fewer"

    # Between rounds -------------------------------------------------------------------------------------------------

    def refresh(self) -> Roster:
        """Notice nodes that left, joined or came back; wait only where too few clients are left.

        Raises:
            RunFailure: too few clients are there, and no more came in time.
            SubflError: a node that came has no clients to offer, and that is not tolerated.
        """
        deadline = time.monotonic() + self._patience
        while True:
            self._look()
            if self._changed:
                self._settle(*self._assigned())
                self._updated()
            roster = self._roster
            assert roster is not None
            needed = self._min_clients or 1
            if not self._changed or len(roster.reachable) >= needed:
                self._changed = False
                return roster
            if time.monotonic() > deadline:
                raise RunFailure(
                    f"{len(roster.reachable)} of {len(roster)} clients are connected, {needed} are needed "
                    f"(federation.min_clients), and no more came within {self._patience:.0f} s (runtime.node_timeout)"
                )
            time.sleep(_LOOK_SECONDS)

    def part_with(self, node: int, reason: str) -> None:
        """Do without a node until it has left and come again."""
        clients = sorted(answer.sizes) if (answer := self._answers.pop(node, None)) else []
        self._failed_at[node] = math.inf
        self._changed = True
        self._refuse(clients, reason)

    # Polling --------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Forget nodes that left, ask new ones for their clients, and take in the answers so far."""
        present = set(self._grid.get_node_ids())
        for node in (set(self._answers) | set(self._matchers)) - present:
            self._answers.pop(node, None)
            self._matchers.pop(node, None)
            self._changed = True
        self._failed_at = {node: when for node, when in self._failed_at.items() if node in present}
        self._asked = {message: node for message, node in self._asked.items() if node in present}
        hopeless = {node for node, when in self._failed_at.items() if time.monotonic() - when < _ASK_AGAIN_SECONDS}
        new = sorted(present - set(self._answers) - set(self._matchers) - set(self._asked.values()) - hopeless)
        messages = [Message(RecordDict({"run": self._run}), node, f"query.{ROSTER}") for node in new]
        if messages:
            self._asked.update(
                (message, node)
                for message, node in zip(self._grid.push_messages(messages), new, strict=False)
                if message is not None
            )
        if not self._asked:
            return
        for reply in self._grid.pull_messages(list(self._asked)):
            asked = self._asked.pop(reply.metadata.reply_to_message_id, None)
            if asked is not None:
                self._take(asked, reply)

    def _take(self, node: int, reply: Message) -> None:
        """Take in a node's answer; a node without an answer is refused, and asked again later."""
        self._changed = True
        try:
            if reply.has_error():
                raise SubflError(f"a node could not open its clients: {one_line(describe_error(reply))}")
            if ROSTER not in reply.content.config_records:
                raise SubflError(f"node {node} gave no roster; does it run this app, in this version?")
            record = reply.content.config_records[ROSTER]
            try:
                if matcher := Matcher.of(node, record):
                    self._seat(matcher)
                else:
                    self._answers[node] = RosterAnswer.of(record)
            except ValueError as error:
                raise SubflError(f"the roster of node {node}: {error}; does it run this version?") from None
        except SubflError as error:
            self._failed_at[node] = time.monotonic()
            if not self._tolerant:
                raise
            self._refuse([], str(error))

    def _seat(self, matcher: Matcher) -> None:
        """Take a matcher; there is one, and the first to come stays the matcher for as long as it is there."""
        if self._admission and (reason := self._admission.refusal(matcher.node_id, [], matcher=True)):
            raise SubflError(reason)
        if self._matchers:
            raise SubflError(f"node {matcher.node_id} is a second matcher; a federation has one")
        self._matchers[matcher.node_id] = matcher

    @property
    def fingerprints(self) -> dict[int, str]:
        """The fingerprint of each client's data, for nodes that send it."""
        return {
            client: self._answers[node].fingerprints[client]
            for client, node in sorted(self._hosts.items())
            if client in self._answers[node].fingerprints
        }

    # Assignment -----------------------------------------------------------------------------------------------------

    def _assigned(self) -> tuple[dict[int, int], Refusals]:
        """The node of each client, and for each node the clients that do not fit with the reason."""
        ids, agreed = self._known_ids(), self._agreed
        known = ids if ids is None or isinstance(ids, range) else frozenset(ids)
        refused: Refusals = []
        hosts: dict[int, int] = {}
        # In the order in which nodes answered: the first node that hosts a client keeps it for as long as it is there.
        for node, answer in self._answers.items():
            reason = self._admission.refusal(node, sorted(answer.sizes)) if self._admission else None
            if reason := reason or misfit(answer, self._dataset, self._schema, known) or disagreement(answer, agreed):
                refused.append((sorted(answer.sizes), reason))
                continue
            if ids is None and self._max_clients and len(hosts.keys() | answer.sizes.keys()) > self._max_clients:
                reason = (
                    f"node {node} hosts {len(answer.sizes)} clients, with which there would be more than "
                    f"{self._max_clients} (federation.max_clients)"
                )
                refused.append((sorted(answer.sizes)[:_MOST_NAMED], reason))
                continue
            if taken := [client for client in sorted(answer.sizes) if hosts.setdefault(client, node) != node]:
                reason = (
                    f"client {taken[0]} is hosted by two nodes, {hosts[taken[0]]} and {node}; every client must have "
                    "exactly one"
                )
                refused.append((taken, reason))
            if answer.sizes:
                agreed = agreed or answer.schema
        return hosts, refused

    def _settle(self, hosts: dict[int, int], refused: Refusals) -> None:
        """Fix the node of each client, and report the refused ones."""
        self._agreed = self._agreed or next((self._answers[node].schema for node in hosts.values()), None)
        self._hosts = hosts
        for clients, reason in refused:
            self._refuse(clients, reason)

    def _refuse(self, clients: Sequence[int], reason: str) -> None:
        refusal = {"clients": list(clients), "reason": reason}
        if refusal not in self.refusals:
            self.refusals.append(refusal)
            log(WARNING, "a node is refused: %s", reason)

    # The roster -----------------------------------------------------------------------------------------------------

    def _first_roster(self) -> Roster:
        known = self._known_ids()
        ids = tuple(sorted(self._hosts) if known is None else known)
        nothing = np.full(len(ids), np.nan)
        return Roster(
            client_ids=ids,
            node_ids=(None,) * len(ids),
            num_examples=nothing,
            num_nodes=nothing,
            num_edges=nothing,
            overlapping=self._schema.overlapping,
            **self._shape._asdict(),
        )

    def _updated(self) -> Roster:
        """The roster with the present nodes, and the sizes of clients that were not known before."""
        assert self._roster is not None
        sizes = {key: np.array(getattr(self._roster, key)) for key in SIZES}
        for position, client in enumerate(self._roster.client_ids):
            if client in self._hosts:
                for key, value in zip(SIZES, self._answers[self._hosts[client]].sizes[client], strict=True):
                    sizes[key][position] = value
        self._bound(sizes)
        nodes = tuple(self._hosts.get(client) for client in self._roster.client_ids)
        matcher = next(iter(self._matchers.values()), None)
        self._roster = replace(self._roster, node_ids=nodes, matcher=matcher, **sizes)  # type: ignore[arg-type]
        return self._roster

    def _bound(self, sizes: Mapping[str, np.ndarray]) -> None:
        """Lower sizes that are too large against those of the other clients: nobody can check what a node states."""
        if self._size_bound is None:
            return
        assert self._roster is not None
        for key, stated in sizes.items():
            most = largest_size(stated, self._size_bound)
            for position in np.flatnonzero(stated > most).tolist():
                client = self._roster.client_ids[position]
                if (client, key) not in self._bounded:
                    self._bounded.add((client, key))
                    log(
                        WARNING,
                        "client %d states %s of %.0f, above aggregation.size_bound times the median of all clients; "
                        "it counts as %.0f",
                        client,
                        key,
                        stated[position],
                        most,
                    )
                stated[position] = most
