"""Comparison of the clients that a node offers with the schema of the run, and with nodes that came before."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.wire.replies import one_line
from subfl_flower.wire.roster import RosterAnswer, Schema, Shape

_NAMES = "the names of classes or features, their order, or whether edges have weights, differ from"


def misfit(answer: RosterAnswer, dataset: str, schema: FederationSchema, known: Collection[int] | None) -> str | None:
    """The reason for which a run excludes a node's clients; None where they fit.

    Args:
        answer: the node's answer.
        dataset: name of the run's data set.
        schema: of the run.
        known: the ids of the run's clients, quick to be looked up in; None where they are not known.
    """
    who, shape = _named(sorted(answer.sizes)), Shape.of(schema)
    if answer.dataset != dataset:
        return f"{who}: data of {one_line(repr(answer.dataset))}, and this run is on dataset={dataset}"
    if answer.schema.shape != shape:
        things = "features" if schema.items is None else "items"
        theirs, stated = _told_apart(answer.schema.shape, shape, things)
        return f"{who}: {theirs}, where the run's schema has {stated}"
    if schema.names is not None and answer.schema.names != schema.names:
        return f"{who}: {_NAMES} the run's schema; all sites state the same dataset.classes and columns"
    if schema.partition is not None and answer.schema.partition != schema.partition:
        return f"{who}: not of the partition of {answer.dataset!r} that the run's schema names"
    if answer.overlapping and not schema.overlapping:
        return f"{who}: of a partition whose clients share nodes, where schema.overlapping is false"
    listed = schema.client_ids
    if listed is not None and answer.num_clients not in (0, len(listed)):
        return f"{who}: of a partition into {answer.num_clients} clients, where the run's schema has {len(listed)}"
    if known is not None and (unknown := [client for client in sorted(answer.sizes) if client not in known]):
        return f"a node hosts client {unknown[0]}, but the run has the clients {_range(sorted(known))}"
    return None


def disagreement(answer: RosterAnswer, agreed: Schema | None) -> str | None:
    """The reason for which a node's data cannot be mixed with those of accepted nodes, if there is one."""
    if agreed is None or answer.schema == agreed or not answer.sizes:
        return None
    who = _named(sorted(answer.sizes))
    if answer.schema.names != agreed.names:
        return f"{who}: {_NAMES} those of nodes that came before; schema.names says which are right"
    return f"{who}: of another partition than nodes that came before; schema.partition says which is right"


def _told_apart(one: Shape, other: Shape, things: str) -> list[str]:
    """Descriptions of two shapes, as far as they differ; a feature is one of `things`."""
    if one[:2] != other[:2]:
        return [f"{shape.num_features} {things} and {shape.num_classes} classes" for shape in (one, other)]
    named = ("users", one.user_values, other.user_values), ("items", one.item_values, other.item_values)
    whose, *both = next(row for row in named if row[1] != row[2])
    return [f"attributes of {whose} with {_listed(sizes)} values" for sizes in both]


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes[:8])) + (", ..." if len(sizes) > 8 else "") if sizes else "no"


def _named(clients: Sequence[int]) -> str:
    if not clients:
        return "a node without clients"
    return f"client {clients[0]}" if len(clients) == 1 else f"clients {_range(clients)}"


def _range(ids: Sequence[int]) -> str:
    if len(ids) > 1 and ids[-1] - ids[0] == len(ids) - 1:
        return f"{ids[0]} .. {ids[-1]}"
    return one_line(", ".join(map(str, ids)))
