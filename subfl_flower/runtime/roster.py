"""Which node hosts which client, and what the server must know of the clients' data."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from subfl_flower.errors import SubflError

ROSTER = "roster"

_OF_CLIENTS = ("num_examples", "num_nodes", "num_edges")


@dataclass(frozen=True)
class Roster:
    """The federation's clients; position p of every server-side stack belongs to ``client_ids[p]``.

    Attributes:
        client_ids: ascending.
        node_ids: the Flower node of each client. Flower's ids change at every start; nothing is keyed by them.
        num_examples: training examples of each client [K].
        num_nodes, num_edges: of each client's graph [K]; edges count once for each direction.
        num_features, num_classes: of the data set.
        overlapping: whether clients may share nodes.
    """

    client_ids: tuple[int, ...]
    node_ids: tuple[int, ...]
    num_examples: np.ndarray
    num_nodes: np.ndarray
    num_edges: np.ndarray
    num_features: int
    num_classes: int
    overlapping: bool

    def __len__(self) -> int:
        """The number of clients, K."""
        return len(self.client_ids)

    def by_node(self, positions: Sequence[int]) -> dict[int, list[int]]:
        """The given positions, grouped by the node that hosts them."""
        groups: dict[int, list[int]] = {}
        for position in positions:
            groups.setdefault(self.node_ids[position], []).append(position)
        return groups


def collect_roster(grid: Grid, run: ConfigRecord, num_clients: int, timeout: float) -> Roster:
    """Ask every node which clients it hosts, waiting up to `timeout` seconds for nodes to come up.

    Args:
        grid: the connection to the nodes.
        run: the record that describes the run, sent along.
        num_clients: clients expected, 0 .. num_clients - 1.
        timeout: seconds to wait until every client is hosted.

    Raises:
        SubflError: a node answers with an error, a client is hosted twice, or one is hosted by nobody.
    """
    deadline = time.monotonic() + timeout
    answers: dict[int, ConfigRecord] = {}
    while True:
        new = sorted(set(grid.get_node_ids()) - set(answers))
        messages = [Message(RecordDict({"run": run}), node, f"query.{ROSTER}") for node in new]
        left = max(1.0, deadline - time.monotonic())
        for reply in grid.send_and_receive(messages, timeout=left) if messages else ():
            if reply.has_error():
                raise SubflError(f"a node could not open its clients: {describe_error(reply)}")
            answers[reply.metadata.src_node_id] = _checked(reply)
        hosted = {_client for answer in answers.values() for _client in _ids(answer)}
        if len(hosted) >= num_clients:
            return _roster(answers, num_clients)
        if time.monotonic() > deadline:
            missing = sorted(set(range(num_clients)) - hosted)
            raise SubflError(
                f"{len(missing)} of {num_clients} clients are hosted by no node, the first is client {missing[0]}; "
                f"{len(answers)} nodes answered within {timeout:.0f} s (runtime.node_timeout)"
            )
        time.sleep(0.2)


def _checked(reply: Message) -> ConfigRecord:
    """A node's answer, if it is one."""
    node = reply.metadata.src_node_id
    if ROSTER not in reply.content.config_records:
        raise SubflError(f"node {node} gave no roster; does it run this app, in this version?")
    answer = reply.content.config_records[ROSTER]
    missing = {"clients", *_OF_CLIENTS, "num_features", "num_classes", "overlapping"} - set(answer)
    if missing:
        raise SubflError(f"the roster of node {node} lacks {', '.join(sorted(missing))}; does it run this version?")
    for key in _OF_CLIENTS:
        if len(_floats(answer[key])) != len(_ids(answer)):
            raise SubflError(f"the roster of node {node} has not one {key} for each client; does it run this version?")
    return answer


def _roster(answers: dict[int, ConfigRecord], num_clients: int) -> Roster:
    host: dict[int, tuple[int, dict[str, float]]] = {}
    for node, answer in answers.items():
        for place, client in enumerate(_ids(answer)):
            if client in host:
                raise SubflError(f"client {client} is hosted by two nodes; every client must have exactly one")
            host[client] = node, {key: _floats(answer[key])[place] for key in _OF_CLIENTS}
    if unknown := sorted(set(host) - set(range(num_clients))):
        raise SubflError(f"a node hosts client {unknown[0]}, but the run has the clients 0 .. {num_clients - 1}")
    schemas = {tuple(answer[key] for key in ("num_features", "num_classes")) for answer in answers.values()}
    if len(schemas) != 1:
        raise SubflError(f"nodes disagree on (features, classes): {sorted(map(str, schemas))}")
    first = next(iter(answers.values()))
    ids = sorted(host)
    return Roster(
        client_ids=tuple(ids),
        node_ids=tuple(host[client][0] for client in ids),
        **{key: np.array([host[client][1][key] for client in ids]) for key in _OF_CLIENTS},
        num_features=int(first["num_features"]),  # type: ignore[arg-type]
        num_classes=int(first["num_classes"]),  # type: ignore[arg-type]
        overlapping=any(bool(answer["overlapping"]) for answer in answers.values()),
    )


def describe_error(reply: Message) -> str:
    """The reason of an error reply in one line, without the class name that Flower wraps it in."""
    reason = reply.error.reason or f"error code {reply.error.code}"
    _, separator, inner = reason.partition(":<'")
    lines = (inner.removesuffix("'>") if separator else reason).strip().splitlines()
    return lines[0] if lines else reason


def _ids(answer: ConfigRecord) -> list[int]:
    return [int(value) for value in _floats(answer["clients"])]


def _floats(values: object) -> list[float]:
    return values if isinstance(values, list) else []
