"""One round of a secure sum on the server: it relays keys and shares, and opens the sum over the clients that are left.

Before the round's message to train, clients give public keys and share their secrets with each other. After the uploads
have come, each client that is left reveals one share for each neighbour: of the self-mask of a client that is left, or
of the mask key of one that was lost. So the masks of the sum can be removed, and of no other set of uploads.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from logging import WARNING
from typing import Any

import numpy as np

from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.flower.log import log
from subfl_flower.privacy.secure_aggregation.member import BOX_BYTES
from subfl_flower.privacy.secure_aggregation.opening import opened
from subfl_flower.privacy.secure_aggregation.roll import NONCE_BYTES, Advert, Roll, sum_context
from subfl_flower.privacy.secure_aggregation.shamir import SHARE_BYTES
from subfl_flower.privacy.secure_sum import unmask_sum
from subfl_flower.server.exchange import Exchange
from subfl_flower.server.updates import GroupSum, Updates
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import RunContext
from subfl_flower.wire.roster import Roster
from subfl_flower.wire.summed import (
    ADVERT,
    ADVERTS,
    BOXES,
    CLIENTS,
    KEYS,
    MASKED,
    NONCE,
    REVEAL,
    SHARES,
    SHARING,
    SURVIVORS,
    WEIGHT,
    Layout,
    cut,
    ids_bytes,
)

_SLACK = 4096
_ID_BYTES = 8

TRAFFIC = ("bytes_up", "bytes_down", "seconds")

Boxes = dict[int, bytes]
"""Encrypted or revealed shares, by the client that each is for or from."""


@dataclass
class _Group:
    """One sum of a round.

    Attributes:
        roll: the members.
        boxes: encrypted shares by their sender and their receiver, of those who shared their secrets.
    """

    roll: Roll
    boxes: dict[int, Boxes] = field(default_factory=dict)

    @property
    def sharing(self) -> list[int]:
        """The members who shared their secrets."""
        return sorted(self.boxes)


class SummedRound:
    """The secure sums of one round.

    Args:
        exchange: asks clients; its entries of the round are set.
        run: facts of the run.
        layout: shapes of what is summed.
        server_round: 1-based.
        tolerant: go on where a sum cannot be opened; the round then makes no step.

    Attributes:
        positions: of the clients that are asked to train.
        failures: reasons by client id, of those that failed in a phase.
    """

    def __init__(
        self, exchange: Exchange, run: RunContext, layout: Layout, server_round: int, *, tolerant: bool
    ) -> None:
        self._exchange, self._run, self._layout = exchange, run, layout
        self._settings = run.secure_sums
        self._round, self._tolerant = server_round, tolerant
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._groups: list[_Group] = []
        self._phases: list[Mapping[str, Any]] = []
        self._asked = self._summed = self._opened = 0
        self.positions: list[int] = []
        self.failures: dict[int, str] = {}

    @property
    def about(self) -> dict[str, int | bytes]:
        """Entries of the message to train."""
        return {**self._keys, SHARING: ids_bytes([client for group in self._groups for client in group.sharing])}

    @property
    def record(self) -> dict[str, Any]:
        """Entries of the round's record: clients that began, and that are in an opened sum; bytes and seconds.

        Bytes and seconds are those of the phases, and of what the message to train says about the sum.
        """
        total = {key: sum(phase[key] for phase in self._phases) for key in TRAFFIC}
        total["bytes_down"] += len(self.positions) * _bytes_of(self.about)
        return {
            "sums": len(self._groups),
            "opened": self._opened,
            "began": self._asked,
            "summed": self._summed,
            **total,
        }

    # Before the uploads -----------------------------------------------------------------------------------------------

    def begin(self, groups: Sequence[Sequence[int]]) -> None:
        """Have clients give keys and share secrets.

        Args:
            groups: positions of the clients whose uploads are added up together.

        Raises:
            RunFailure: a client failed, and failures are not tolerated; or there is no group of enough clients.
        """
        self._asked = sum(map(len, groups))
        adverts = self._ask(
            KEYS, _advert, {position: {} for group in groups for position in group}, {NONCE: self._nonce}
        )
        reason = "no clients take part"
        for number, group in enumerate(groups):
            found = [
                replace(advert, group=number)
                for position in group
                if (advert := adverts[position]) is not None and advert.client == self._id(position)
            ]
            try:
                self._groups.append(_Group(Roll.of(found, self._settings)))
            except SubflError as error:
                reason = str(error)
        self._share()
        for begun in list(self._groups):
            try:
                begun.roll.require_enough(begun.sharing, "shared their keys")
            except SubflError as error:
                reason = str(error)
                self._groups.remove(begun)
        if not self._groups:
            raise RunFailure(f"round {self._round} has no secure sum: {reason}")
        places = self._places
        self.positions = sorted(places[client] for group in self._groups for client in group.sharing)

    def _share(self) -> None:
        """Have the members of all groups share their secrets."""
        places = self._places
        sent: dict[int, Stack] = {places[a.client]: {} for group in self._groups for a in group.roll.adverts}
        of_box = BOX_BYTES + _ID_BYTES
        answers = self._ask(SHARES, lambda stack: _by_client(stack, BOX_BYTES), sent, self._keys, of_box)
        for group in self._groups:
            for advert in group.roll.adverts:
                answer = answers[places[advert.client]]
                if answer is None:
                    continue
                if set(answer) != set(group.roll.holders(advert.client)):
                    self.failures[advert.client] = "it did not share its secrets of the sum with its neighbours"
                    continue
                group.boxes[advert.client] = answer

    # After the uploads ------------------------------------------------------------------------------------------------

    def open(self, updates: Updates) -> Updates:
        """The replies of the clients in sums that could be opened, with these sums in place of masked uploads.

        Raises:
            RunFailure: a sum stays closed, and that is not tolerated.
        """
        places = self._places
        left = {self._id(position): row for row, position in enumerate(updates.positions.tolist())}
        survivors = {number: [c for c in group.sharing if c in left] for number, group in enumerate(self._groups)}
        closed: dict[int, str] = {}
        sent: dict[int, Stack] = {}
        for number, group in enumerate(self._groups):
            try:
                group.roll.require_enough(survivors[number], "are left")
            except SubflError as error:
                closed[number] = str(error)
                continue
            for client in survivors[number]:
                received = {
                    owner: group.boxes[owner][client] for owner in group.roll.holders(client) if owner in group.boxes
                }
                sent[places[client]] = _stack_of(received)
        sums = []
        if sent:
            everyone = [client for number in survivors if number not in closed for client in survivors[number]]
            about = {**self.about, SURVIVORS: ids_bytes(everyone)}
            answers = self._ask(
                REVEAL, lambda stack: _by_client(stack, SHARE_BYTES), sent, about, SHARE_BYTES + _ID_BYTES
            )
            for number, group in enumerate(self._groups):
                if number in closed:
                    continue
                mine = survivors[number]
                revealed = {c: answer for c in mine if (answer := answers[places[c]]) is not None}
                try:
                    total = updates.arrays[MASKED][[left[c] for c in mine]].sum(0, dtype=np.uint64)
                    values = opened(total, group.roll, group.sharing, mine, revealed, self._context)
                except SubflError as error:
                    closed[number] = str(error)
                    continue
                totals = cut(unmask_sum(values, self._settings.fraction_bits), self._layout)
                sums.append(GroupSum(np.array([places[c] for c in mine]), totals, float(totals.pop(WEIGHT))))
        self._report(closed)
        self._opened, self._summed = len(sums), sum(len(each.positions) for each in sums)
        inside = np.isin(updates.positions, np.concatenate([each.positions for each in sums] or [np.zeros(0, int)]))
        return replace(replace(updates, arrays={}).take(inside), sums=tuple(sums))

    def _report(self, closed: Mapping[int, str]) -> None:
        for reason in dict.fromkeys(closed.values()):
            text = f"the secure sum of round {self._round} stays closed: {reason}"
            if not self._tolerant:
                raise RunFailure(text)
            log(WARNING, "%s; its clients' models stay as they were", text)

    # Asking -----------------------------------------------------------------------------------------------------------

    @property
    def _roster(self) -> Roster:
        return self._exchange.roster

    @property
    def _places(self) -> dict[int, int]:
        return {client: position for position, client in enumerate(self._roster.client_ids)}

    def _id(self, position: int) -> int:
        return self._roster.client_ids[position]

    @property
    def _context(self) -> bytes:
        return sum_context(self._run.run_id, self._round, self._nonce)

    @property
    def _keys(self) -> dict[str, int | bytes]:
        adverts = (advert for group in self._groups for advert in group.roll.adverts)
        return {NONCE: self._nonce, ADVERTS: b"".join(advert.encode() for advert in adverts)}

    def _ask(self, phase: str, decode: Any, sent: dict[int, Stack], about: Any, of_box: int = 0) -> list[Any]:
        """All answers by position, and the phase's share of the record; no answer may be longer than all shares."""
        largest = [_SLACK + of_box * len(sent)] * len(self._roster)
        answers = self._exchange.ask(phase, decode, largest, sent, about)
        traffic = self._exchange.log.pop()  # counted in the round's record
        self._phases.append({**traffic, "bytes_down": traffic["bytes_down"] + len(sent) * _bytes_of(about)})
        self.failures.update(self._exchange.failures)
        return answers


def sums_of_run(records: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The summary's entry on secure sums, from all rounds' records: None where there were none.

    ``rounds``, ``sums`` and ``opened`` count; bytes and seconds are those in addition to the rounds' messages.
    """
    found = [record["secure_sums"] for record in records if "secure_sums" in record]
    if not found:
        return None
    keys = ("sums", "opened", *TRAFFIC)
    return {"rounds": len(found), **{key: sum(each[key] for each in found) for key in keys}}


def _bytes_of(about: Mapping[str, int | bytes]) -> int:
    return sum(len(value) for value in about.values() if isinstance(value, bytes))


def _advert(stack: Stack) -> Advert:
    found = Advert.decode_all(stack[ADVERT].tobytes())
    if len(found) != 1:
        raise ValueError(f"it holds the keys of {len(found)} clients")
    return found[0]


def _by_client(stack: Stack, size: int) -> Boxes:
    """Byte strings of one size, by client; ValueError where there are others."""
    clients, boxes = stack[CLIENTS], stack[BOXES]
    if clients.dtype != np.int64 or boxes.dtype != np.uint8 or boxes.shape != (clients.size, size):
        raise ValueError(f"shares of a secure sum are uint8 [clients, {size}]")
    return {client: box.tobytes() for client, box in zip(clients.tolist(), boxes, strict=True)}


def _stack_of(boxes: Boxes) -> Stack:
    rows = [np.frombuffer(box, dtype=np.uint8) for box in boxes.values()]
    return {CLIENTS: np.array(list(boxes), dtype=np.int64), BOXES: np.stack(rows)}
