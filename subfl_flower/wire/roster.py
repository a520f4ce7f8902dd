"""The roster: the node of each client, and facts on the clients' data that the server needs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from flwr.app import ConfigRecord, Message

from subfl_flower.data.federation_schema import MOST_CLIENTS, FederationSchema
from subfl_flower.data.ratings.attributes import MOST_FIELDS, MOST_VALUES

ROSTER = "roster"
ROLE, MATCHER = "role", "matcher"

_COLOURS = re.compile("\x1b\\[[0-9;]*m")

SIZES = ("num_examples", "num_nodes", "num_edges")
"""Names of the sizes of each client's data."""


class Shape(NamedTuple):
    """Sizes of the clients' data on which a model's shape depends.

    Attributes:
        num_features, num_classes: of the data set.
        user_values, item_values: number of values of each attribute of users, or of items; empty where there are none.
    """

    num_features: int
    num_classes: int
    user_values: tuple[int, ...] = ()
    item_values: tuple[int, ...] = ()

    @classmethod
    def of(cls, schema: FederationSchema) -> Shape:
        """The shape that a schema states; ratings' features are items."""
        return cls(schema.items or schema.features or 0, schema.classes or 0, schema.user_values, schema.item_values)


class Schema(NamedTuple):
    """Facts that must be equal for all clients, as a node reports them.

    Attributes:
        shape: of models.
        partition: key of the partition that the data are of; empty where sites make their own.
        names: digest of the names of classes and features; empty where there are none.
    """

    shape: Shape
    partition: str
    names: str = ""


@dataclass(frozen=True)
class Matcher:
    """The node that matches users' sealed boxes, where a method needs one; it hosts no client.

    Attributes:
        node_id: Flower's id of it.
        public_key: X25519, 32 bytes; users seal to it.
    """

    node_id: int
    public_key: bytes

    @classmethod
    def of(cls, node_id: int, record: ConfigRecord) -> Matcher | None:
        """The matcher, if the node reports that role; None where it hosts clients.

        Raises:
            ValueError: it has another role, or gives no key.
        """
        if ROLE not in record:
            return None
        role, key = record[ROLE], record.get("public_key")
        if role != MATCHER:
            raise ValueError(f"there is no role {role!r}")
        if not isinstance(key, bytes) or len(key) != 32:
            raise ValueError("a matcher's public_key has 32 bytes")
        return cls(node_id, key)


@dataclass(frozen=True)
class Roster:
    """The federation's clients; position p of every server-side stack belongs to ``client_ids[p]``.

    Attributes:
        client_ids: ascending.
        node_ids: the Flower node of each client, None while it has none. Flower's ids change at every start; nothing is
            keyed by them.
        num_examples: training examples of each client [K]; NaN for a client that was never there.
        num_nodes, num_edges: of each client's graph [K]; edges count once for each direction.
        num_features, num_classes: of the data set.
        overlapping: True where clients may share nodes.
        matcher: the present matcher, if there is one.
        user_values, item_values: number of values of each attribute of users, or of items; empty where there are none.
    """

    client_ids: tuple[int, ...]
    node_ids: tuple[int | None, ...]
    num_examples: np.ndarray
    num_nodes: np.ndarray
    num_edges: np.ndarray
    num_features: int
    num_classes: int
    overlapping: bool
    matcher: Matcher | None = None
    user_values: tuple[int, ...] = ()
    item_values: tuple[int, ...] = ()

    def __len__(self) -> int:
        """The number of clients, K."""
        return len(self.client_ids)

    @property
    def shape(self) -> Shape:
        """Sizes on which a model's shape depends."""
        return Shape(self.num_features, self.num_classes, self.user_values, self.item_values)

    @property
    def reachable(self) -> list[int]:
        """Positions of the clients that have a node at present."""
        return [position for position, node in enumerate(self.node_ids) if node is not None]

    def by_node(self, positions: Sequence[int]) -> dict[int, list[int]]:
        """The given positions that have a node, grouped by node."""
        groups: dict[int, list[int]] = {}
        for position in positions:
            node = self.node_ids[position]
            if node is not None:
                groups.setdefault(node, []).append(position)
        return groups


@dataclass(frozen=True)
class RosterAnswer:
    """A node's answer about its clients, checked for form.

    Attributes:
        sizes: by client, in the order of `SIZES`.
        schema: sizes for a model's shape, and the partition of its files.
        dataset: name of its data set.
        num_clients: clients of the whole partition; 0 where the node does not know.
        overlapping: True where its clients may share nodes with others.
        fingerprints: of each client's data, where the node sends them.
    """

    sizes: dict[int, tuple[float, ...]]
    schema: Schema
    dataset: str
    num_clients: int
    overlapping: bool
    fingerprints: dict[int, str]

    @classmethod
    def of(cls, record: ConfigRecord) -> RosterAnswer:
        """Read an answer; ValueError where the record is not one of this app, in this version."""
        needed = {"clients", *SIZES, *Shape._fields, "dataset", "partition", "num_clients"}
        if missing := {*needed, "overlapping"} - set(record):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        clients = _list(record, "clients", int)
        if any(client < 0 for client in clients) or len(set(clients)) != len(clients):
            raise ValueError("clients must be different ids from 0 on")
        if len(clients) > MOST_CLIENTS:
            raise ValueError(f"clients must be at most {MOST_CLIENTS}")
        columns = [_list(record, key, float) for key in SIZES]
        if any(len(column) != len(clients) for column in columns):
            raise ValueError(f"it has not one {' and one '.join(SIZES)} for each client")
        if not all(0 <= value < 2**53 for column in columns for value in column):
            raise ValueError(f"{', '.join(SIZES)} must be counts")
        features, classes, known = (_one(record, key, int) for key in ("num_features", "num_classes", "num_clients"))
        if not (0 < features < 2**31 and 0 <= classes < 2**31 and 0 <= known <= MOST_CLIENTS):
            raise ValueError("num_features, num_classes, num_clients must be counts")
        values = [tuple(_list(record, key, int)) for key in ("user_values", "item_values")]
        if any(len(sizes) > MOST_FIELDS or any(not 0 < size <= MOST_VALUES for size in sizes) for sizes in values):
            raise ValueError(f"user_values, item_values must be at most {MOST_FIELDS} counts of 1 to {MOST_VALUES}")
        names, digests = record.get("names", ""), record.get("fingerprints", [])
        if not isinstance(names, str) or not re.fullmatch("([0-9a-f]{16})?", names):
            raise ValueError("names must be a digest of 16 hexadecimal digits")
        if not isinstance(digests, list) or len(digests) not in (0, len(clients)):
            raise ValueError("fingerprints must be one for each client, or none")
        if not all(isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest) for digest in digests):
            raise ValueError("fingerprints must have 64 hexadecimal digits")
        return cls(
            sizes={client: tuple(column[row] for column in columns) for row, client in enumerate(clients)},
            schema=Schema(Shape(features, classes, *values), _one(record, "partition", str), names),
            fingerprints=dict(zip(clients, digests, strict=bool(digests))),  # type: ignore[arg-type]
            dataset=_one(record, "dataset", str),
            num_clients=known,
            overlapping=_one(record, "overlapping", bool),
        )


def describe_error(reply: Message) -> str:
    """The reason of an error reply in one line, without Flower's class name or Ray's stack trace around it."""
    reason = reply.error.reason or f"error code {reply.error.code}"
    _, separator, inner = reason.partition(":<'")
    plain = _COLOURS.sub("", inner.removesuffix("'>") if separator else reason)
    lines = plain.strip().splitlines()
    if not lines:
        return reason
    return lines[-1].strip() if lines[0].startswith("ray::") else lines[0]  # Ray's begins with the trace


def _one(record: ConfigRecord, key: str, kind: type) -> Any:
    value = record[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{key} must be of type {kind.__name__}")
    return value


def _list(record: ConfigRecord, key: str, kind: type) -> list[Any]:
    values: Any = record[key]
    if not isinstance(values, list) or any(type(value) not in (int, kind) for value in values):
        raise ValueError(f"{key} must be a list of type {kind.__name__}")
    if any(value != value or abs(value) > 2**53 for value in values):
        raise ValueError(f"{key} must be a list of finite numbers")
    return [kind(value) for value in values]
