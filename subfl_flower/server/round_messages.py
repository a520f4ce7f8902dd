"""The messages of a round: orders to clients go out grouped by node, replies come back stacked by client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from logging import WARNING
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict

from subfl_flower.flower.log import log
from subfl_flower.server.updates import Updates
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.bundle import bundle, scaled
from subfl_flower.wire.choice import Choice
from subfl_flower.wire.contract import Contract
from subfl_flower.wire.payload import pack
from subfl_flower.wire.ragged import Ragged, pack_ragged
from subfl_flower.wire.replies import Reply, combine, one_line, read_reply
from subfl_flower.wire.roster import Roster, describe_error

RUN = "run"
"""Name of the record that describes the run, in every message to a node."""

ANNOUNCED = "announced."

NO_REPLY = "no reply"
"""Reason of a client whose node gave no sign in time."""

KEEP = "keep"
"""Action of the message that has a node write its clients' states for a checkpoint."""


def announced(numbers: Mapping[str, float]) -> dict[str, float]:
    """Entries of the run's record with a method's announcements for clients."""
    return {f"{ANNOUNCED}{name}": value for name, value in numbers.items()}


def announced_in(run: Mapping[str, Any]) -> dict[str, Any]:
    """The announcements in entries that `announced` made."""
    return {key.removeprefix(ANNOUNCED): value for key, value in run.items() if key.startswith(ANNOUNCED)}


@dataclass(frozen=True, eq=False)
class Orders:
    """Named arrays for some clients.

    Attributes:
        sent: a stack [clients, ...], or a choice of rows that many clients share.
        rows: arrays of which each client is sent a different number of rows.
    """

    sent: Stack | Choice
    rows: Mapping[str, Ragged]


@dataclass(frozen=True, eq=False)
class Sent:
    """The messages of one half of a round.

    Attributes:
        server_round: 1-based.
        messages: one a node.
        asked: positions of the clients that each node was asked about, by node.
        away: positions of clients without a node at present.
        bytes_down: payload bytes of every client [K].
    """

    server_round: int
    messages: list[Message]
    asked: dict[int, list[int]]
    away: list[int]
    bytes_down: np.ndarray


def address(
    kind: str,
    server_round: int,
    chosen: Sequence[int],
    orders: Callable[[Sequence[int]], Orders],
    roster: Roster,
    about: Mapping[str, Any],
    timeout: float | None = None,
    dtype: str = "float32",
    compression: str | None = None,
) -> Sent:
    """Make one message a node.

    Args:
        kind: ``train`` or ``evaluate``.
        server_round: 1-based.
        chosen: positions of the clients that are asked.
        orders: gives the orders for the clients at some positions.
        roster: the clients, and their present nodes.
        about: entries of the run's record.
        timeout: seconds after which an answer is of no use.
        dtype: number format in which float32 values travel.
        compression: of a message's arrays, which are then sent in a bundle; None sends them one by one.
    """
    sent = Sent(
        server_round,
        messages=[],
        asked=roster.by_node(chosen),
        away=[position for position in chosen if roster.node_ids[position] is None],
        bytes_down=np.zeros(len(roster), dtype=np.int64),
    )
    for node, positions in sent.asked.items():
        ordered = orders(positions)
        packed = pack(ordered.sent, len(positions), dtype)
        of_rows = (part.bytes_per_client for part in ordered.rows.values())
        sizes = sum(of_rows, packed.bytes_per_client)
        ids = [roster.client_ids[position] for position in positions]
        content = RecordDict({RUN: ConfigRecord({**about, "round": server_round, "clients": ids})})
        packed.into(content)
        pack_ragged(ordered.rows, content)
        share = 1.0 if compression is None else bundle(content, compression)
        sent.bytes_down[positions] = scaled(sizes, share)
        sent.messages.append(Message(content, node, kind, ttl=timeout))
    return sent


def collect(sent: Sent, replies: Iterable[Message], roster: Roster, contract: Contract) -> Updates:
    """Check the replies to some messages against the contract, and stack them by client.

    Args:
        sent: the messages.
        replies: of the nodes, in any order; some may be missing.
        roster: the clients.
        contract: its uploads are required of every client; empty after an evaluation.
    """
    waiting = {node: [roster.client_ids[p] for p in positions] for node, positions in sent.asked.items()}
    failures: dict[int, str] = {}
    read: list[Reply] = []
    for reply in replies:
        node = reply.metadata.src_node_id
        asked = waiting.pop(node, [])
        if not asked:
            log(WARNING, "a reply of node %d is ignored: nothing was asked, or it has replied before", node)
        elif reply.has_error():
            failures.update(dict.fromkeys(asked, one_line(describe_error(reply))))
        else:
            try:
                read.append(read_reply(reply.content, asked, contract, sent.server_round))
            except ValueError as error:
                failures.update(dict.fromkeys(asked, one_line(f"its node's reply cannot be read: {error}")))
    failures.update(dict.fromkeys((client for clients in waiting.values() for client in clients), NO_REPLY))
    away = (roster.client_ids[position] for position in sent.away)
    failures.update(dict.fromkeys(away, "no node hosts it at the moment"))
    everyone = combine(read, contract)
    positions = np.searchsorted(roster.client_ids, everyone.clients)
    bytes_up = np.zeros(len(roster), dtype=np.int64)
    bytes_up[positions] = everyone.bytes_per_client
    return Updates(
        server_round=sent.server_round,
        positions=positions,
        arrays=everyone.stack,
        ragged=everyone.ragged,
        metrics=everyone.metrics,
        failures={**failures, **everyone.failures},
        bytes_up=bytes_up,
        bytes_down=sent.bytes_down.copy(),
        client_seconds=everyone.seconds,
        startup_seconds=everyone.startup,
    )
