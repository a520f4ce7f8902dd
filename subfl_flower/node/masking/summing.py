"""Clients' half of secure sums on a node: it answers the phases of a sum, and masks uploads.

A client goes through four stages in a round, each once and in this order: it gives its public keys (``sum_keys``),
shares its secrets (``sum_shares``), sends its masked upload, and reveals one share for each neighbour (``sum_reveal``).
Its secrets are kept with its other state between the messages, and are erased before the last answer leaves. A stage is
written down before its answer leaves, so that a server that asks again gets a refusal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np

from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.node.masking.clipping import clipped
from subfl_flower.privacy.secure_aggregation.member import BOX_BYTES, SECRET_BYTES, Member
from subfl_flower.privacy.secure_aggregation.roll import NONCE_BYTES, Advert, Roll, sum_context
from subfl_flower.privacy.secure_sum import quantise
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers, Batch, Question, Result
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
    SUM_PHASES,
    SURVIVORS,
    ids_of,
)

_KEPT = "secure-sum"
_ADVERTISED, _SHARED, _UPLOADED, _SPENT = range(4)
_STAGES = ("its keys", "its shares", "its upload", "its answer")


@dataclass(frozen=True)
class _Progress:
    """A client's secrets, and the stage that it has reached.

    Attributes:
        member: the secrets; zeros once they are erased.
        stage: the last stage.
        roll: digest of the members that it shared its secrets with.
        sharing: digest of the members among whom its upload is masked.
    """

    member: Member
    stage: int
    roll: bytes = b""
    sharing: bytes = b""


class SummingClients:
    """The clients of a node in the secure sum of a round.

    Args:
        client: the object that trains them.
        about: entries of the message: the round, and those of the sum.
    """

    phases = SUM_PHASES

    def __init__(self, client: CohortClient, about: Mapping[str, Any]) -> None:
        self._client, self._about = client, about
        self._settings, self._kept = client.run.secure_sums, client.store.kept
        self._round = int(about["round"])

    # Answers ----------------------------------------------------------------------------------------------------------

    def answer(self, question: Question) -> Answers:
        """Have some clients answer a question of one of the `phases`, client by client."""
        step = {KEYS: self._keys, SHARES: self._shares, REVEAL: self._revealed}[question.phase]
        answers = Answers()
        for client_id, received in question.received.items():
            try:
                answers.arrays[client_id] = step(client_id, received)
            except SubflError as error:
                answers.failures[client_id] = str(error)
        return answers

    def _keys(self, client_id: int, received: Stack) -> Stack:
        """New public keys; they replace those of a sum that was begun and not ended."""
        if not self._settings.sums(self._round):
            raise SubflError(f"round {self._round} has no secure sum (secure_sums.enabled, secure_sums.from_round)")
        member = Member.new(client_id, self._context)
        self._keep(_Progress(member, _ADVERTISED))
        return {ADVERT: _bytes(member.advert(self._shared_key).encode())}

    def _shares(self, client_id: int, received: Stack) -> Stack:
        """Encrypted shares of both secrets for every holder."""
        now, roll = self._reached(client_id, _ADVERTISED), self._roll(client_id)
        mine = replace(now.member.advert(self._shared_key), group=roll.advert(client_id).group)
        if roll.advert(client_id) != mine:
            raise SubflError(f"the server names other keys of client {client_id} than it gave")
        boxes = now.member.boxes(roll)
        self._keep(replace(now, stage=_SHARED, roll=roll.digest))
        return {CLIENTS: np.array(list(boxes), dtype=np.int64), BOXES: _boxes(boxes.values())}

    def _revealed(self, client_id: int, received: Stack) -> Stack:
        """One share for each owner; the secrets are erased."""
        now, roll = self._reached(client_id, _UPLOADED), self._same_roll(client_id)
        sharing, survivors = self._ids(SHARING, roll), self._ids(SURVIVORS, roll)
        if _digest(sharing) != now.sharing:
            raise SubflError("the server names other sharers of keys than when the upload was masked")
        revealed = now.member.revealed(_opened_boxes(received), roll, sharing, survivors)
        erased = Member.restored(client_id, now.member.context, bytes(SECRET_BYTES))
        self._keep(replace(now, member=erased, stage=_SPENT))
        return {CLIENTS: np.array(list(revealed), dtype=np.int64), BOXES: _boxes(revealed.values())}

    # Uploads ----------------------------------------------------------------------------------------------------------

    def masked(self, result: Result, batch: Batch) -> Result:
        """The result with all uploads of each client in one masked vector, uint64 [A, values].

        Updates are scaled to the announced norm before. A client that cannot take part in the sum fails; its upload
        does not leave.
        """
        if self._settings.clip is not None and result.clients:
            result = clipped(result, self._client.compared_with(batch, result), self._settings.clip)
        hidden, rows = [], []
        failures = dict(result.failures)
        for row, client_id in enumerate(result.clients):
            try:
                hidden.append(self._masked_row(client_id, self._client.summands(result, row)))
                rows.append(row)
            except SubflError as error:
                failures[client_id] = str(error)
        return Result(
            tuple(result.clients[row] for row in rows),
            {MASKED: np.stack(hidden)} if rows else {},
            metrics={name: values[rows] for name, values in result.metrics.items()},
            failures=failures,
        )

    def _masked_row(self, client_id: int, summands: Stack) -> np.ndarray:
        now, roll = self._reached(client_id, _SHARED), self._same_roll(client_id)
        sharing = self._ids(SHARING, roll)
        values = np.concatenate([np.asarray(values, dtype=np.float64).reshape(-1) for values in summands.values()])
        found = now.member.masked(quantise(values, self._settings.fraction_bits), roll, sharing)
        self._keep(replace(now, stage=_UPLOADED, sharing=_digest(sharing)))
        return found

    # What the message says --------------------------------------------------------------------------------------------

    @cached_property
    def _context(self) -> bytes:
        nonce = self._about.get(NONCE)
        if not isinstance(nonce, bytes) or len(nonce) != NONCE_BYTES:
            raise SubflError("the server began no secure sum: uploads are not sent without one")
        return sum_context(self._client.run.run_id, self._round, nonce)

    @cached_property
    def _shared_key(self) -> bytes:
        key = self._client.cohort.shared_key
        if key is None:
            raise SubflError("this node has no shared key, by which clients recognise each other in a secure sum")
        found: bytes = key.read()
        return found

    @cached_property
    def _rolls(self) -> dict[int, Roll]:
        """The roll of each client's sum, by client."""
        encoded = self._about.get(ADVERTS)
        try:
            adverts = Advert.decode_all(encoded if isinstance(encoded, bytes) else b"")
        except ValueError as error:
            raise SubflError(f"the server sent keys that cannot be read: {error}") from None
        groups: dict[int, list[Advert]] = {}
        for advert in adverts:
            groups.setdefault(advert.group, []).append(advert)
        own = set(self._client.cohort.client_ids)
        found: dict[int, Roll] = {}
        for members in groups.values():
            if own.isdisjoint(advert.client for advert in members):
                continue
            roll = Roll.of(members, self._settings)
            roll.require_genuine(self._shared_key, self._context)
            found.update((advert.client, roll) for advert in members)
        return found

    def _roll(self, client_id: int) -> Roll:
        if client_id not in self._rolls:
            raise SubflError(f"the server does not name client {client_id} among those of a secure sum")
        return self._rolls[client_id]

    def _same_roll(self, client_id: int) -> Roll:
        """The roll, if it is the one that the client shared its secrets with."""
        roll = self._roll(client_id)
        if self._progress(client_id).roll != roll.digest:
            raise SubflError("the server names other clients, or other keys, than when keys were shared")
        return roll

    def _ids(self, entry: str, roll: Roll) -> list[int]:
        """The clients that an entry of the message names, of a roll."""
        return [client for client in ids_of(self._about.get(entry)) if client in roll]

    # What is kept -----------------------------------------------------------------------------------------------------

    def _progress(self, client_id: int) -> _Progress:
        if self._kept.round_of(client_id, _KEPT) != self._round:
            raise SubflError(f"client {client_id} has begun no secure sum in round {self._round}")
        kept = {name: values.tobytes() for name, values in self._kept.get(client_id, _KEPT).items()}
        member = Member.restored(client_id, kept["context"], kept["secrets"])
        return _Progress(member, kept["stage"][0], kept["roll"], kept["sharing"])

    def _reached(self, client_id: int, stage: int) -> _Progress:
        """The progress of a client whose last stage is `stage`, in the sum that the message is of."""
        found = self._progress(client_id)
        if found.member.context != self._context:
            raise SubflError(f"client {client_id} has begun another secure sum in round {self._round}")
        if found.stage > stage:
            raise SubflError(f"client {client_id} gave {_STAGES[stage + 1]} before; a secure sum takes them once")
        if found.stage < stage:
            raise SubflError(f"client {client_id} has not given {_STAGES[found.stage + 1]} to the secure sum yet")
        return found

    def _keep(self, progress: _Progress) -> None:
        arrays = {
            "context": progress.member.context,
            "secrets": progress.member.secrets,
            "stage": bytes([progress.stage]),
            "roll": progress.roll,
            "sharing": progress.sharing,
        }
        kept = {name: _bytes(values) for name, values in arrays.items()}
        self._kept.put(progress.member.client, _KEPT, self._round, kept)


def _bytes(values: bytes) -> np.ndarray:
    return np.frombuffer(values, dtype=np.uint8)


def _boxes(parts: Any) -> np.ndarray:
    """Byte strings of one length as rows."""
    rows = [_bytes(part) for part in parts]
    return np.stack(rows)


def _opened_boxes(received: Stack) -> dict[int, bytes]:
    """The boxes that a client was sent, by their senders."""
    if not {CLIENTS, BOXES} <= set(received):
        raise SubflError("the server sent no shares of others to open a secure sum with")
    senders, boxes = received[CLIENTS], received[BOXES]
    if senders.dtype != np.int64 or boxes.dtype != np.uint8 or boxes.shape != (senders.size, BOX_BYTES):
        raise SubflError(f"shares of others must be uint8 [clients, {BOX_BYTES}], and the server sent other arrays")
    return {sender: box.tobytes() for sender, box in zip(senders.tolist(), boxes, strict=True)}


def _digest(clients: list[int]) -> bytes:
    return sha256(np.array(sorted(clients), dtype="<i8").tobytes()).digest()
