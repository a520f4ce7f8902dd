"""Facts on prepared data in words and numbers: the content of `data.json` and of `subfl inspect`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph, FeatureMatrix, Graph
from subfl_flower.data.in_memory import digest_in_memory, is_in_memory
from subfl_flower.storage.checksums import sha256_of

DATA_SCHEMA = 1
"""Raised whenever an older version could not read a description."""

_ROLES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_MAJORITY = 0.7


def file_digests(paths: Sequence[Path]) -> list[list[str]]:
    """Name and sha256 of each file, in order; of data in memory the path and the fingerprint in it.

    Raises:
        SubflError: one cannot be read.
    """
    return [
        [str(path), digest_in_memory(path)] if is_in_memory(path) else [path.name, sha256_of(path)] for path in paths
    ]


def array_digest(arrays: Iterable[np.ndarray | None]) -> str:
    """One sha256 over the types, shapes and contents of arrays, in order."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"none;")
            continue
        if array.dtype == object:  # text
            array = np.char.encode(array.astype(str), "utf-8")
        digest.update(f"{array.dtype.str}{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def graph_digests(graph: Graph, roles: np.ndarray, assignments: Sequence[np.ndarray]) -> dict[str, str]:
    """Fingerprints of the treated graph (`data`), the roles (`split`) and the clients' nodes (`partition`)."""
    transform = None if graph.transform is None else graph.transform.model_dump_json()
    names = np.array([json.dumps([graph.class_names, transform])], dtype=object)
    content = (
        *feature_arrays(graph.features),
        graph.edge_index,
        graph.labels,
        graph.edge_weight,
        names,
        graph.node_names,
    )
    return {
        "data": array_digest(content),
        "split": array_digest([roles]),
        "partition": array_digest(assignments),
    }


def feature_arrays(features: FeatureMatrix) -> tuple[np.ndarray, ...]:
    """The arrays that hold features."""
    return (features,) if isinstance(features, np.ndarray) else (features.data, features.indices, features.indptr)


def describe_graph(
    graph: Graph,
    roles: np.ndarray,
    assignments: Sequence[np.ndarray],
    clients: Sequence[Mapping[str, int]],
    between: int,
) -> dict[str, Any]:
    """Facts on a partitioned graph.

    Args:
        graph: as models read it.
        roles: int8 `[nodes]`.
        assignments: for each client its nodes.
        clients: for each client its numbers of nodes, of nodes of each role, and of directed edges.
        between: number of edges that no client holds both ends of.
    """
    edges = graph.num_edges // 2
    degrees = np.bincount(graph.edge_index[0], minlength=graph.num_nodes)
    adjacency = sp.csr_array(
        (np.ones(graph.num_edges, dtype=np.int8), tuple(graph.edge_index)), shape=(graph.num_nodes,) * 2
    )
    num_components, component = connected_components(adjacency, directed=False)
    counts = np.zeros(graph.num_classes, dtype=np.int64)
    unlabelled = graph.num_nodes
    if graph.labels is not None:
        labelled = graph.labels[graph.labels >= 0]
        counts, unlabelled = np.bincount(labelled, minlength=graph.num_classes), graph.num_nodes - labelled.size
    classes = dict(zip(class_names(graph.num_classes, graph.class_names), map(int, counts), strict=True))
    held = np.zeros(graph.num_nodes, dtype=bool)
    for nodes in assignments:
        held[nodes] = True
    about = [_client(client, nodes, graph) for client, nodes in zip(clients, assignments, strict=True)]
    weights = None
    if graph.edge_weight is not None and edges:
        weights = {"least": float(graph.edge_weight.min()), "largest": float(graph.edge_weight.max())}
    unheld = [f"no client holds {np.count_nonzero(~held)} of {held.size} nodes"] if not held.all() else []
    warnings = [*graph.notes.warnings, *unheld, *_class_warnings(classes, graph, roles, about)]
    return {
        "schema": DATA_SCHEMA,
        "kind": "graph",
        "nodes": graph.num_nodes,
        "edges": edges,
        **{name: int(count) for name, count in graph.notes.counts.items()},
        "edges_between_clients": int(between),
        "components": int(num_components),
        "largest_component": int(np.bincount(component).max()),
        "isolated": int(np.count_nonzero(degrees == 0)),
        "features": graph.num_features,
        "feature_kinds": _feature_kinds(graph),
        "classes": classes,
        "unlabelled": int(unlabelled),
        "split": "masks" if graph.given_roles is not None else "drawn",
        **{name: int(np.count_nonzero(roles == role)) for name, role in _ROLES.items()},
        "weights": weights,
        "ids": graph.node_names is not None,
        "clients": about,
        "dropped": list(graph.notes.dropped),
        "warnings": warnings,
    }


def describe_client_graph(graph: ClientGraph, names: Sequence[str] | None) -> dict[str, Any]:
    """Facts on the graph that one client holds on its own machine.

    Args:
        graph: the client's.
        names: names of the classes.
    """
    labels = np.empty(0, dtype=np.int64) if graph.labels is None else graph.labels[graph.labels >= 0]
    counts = np.bincount(labels, minlength=graph.num_classes).tolist()
    return {
        "schema": DATA_SCHEMA,
        "kind": "graph",
        "client": graph.client_id,
        "nodes": graph.num_nodes,
        "edges": int(graph.edge_index.shape[1]) // 2,
        "features": graph.num_features,
        "classes": dict(zip(class_names(graph.num_classes, names), counts, strict=True)),
        "unlabelled": graph.num_nodes - int(labels.size),
        **{name: int(np.count_nonzero(graph.roles == role)) for name, role in _ROLES.items()},
        "dropped": [],
        "warnings": [],
    }


def class_names(num_classes: int, names: Sequence[str] | None) -> tuple[str, ...]:
    """The name of each class; its number where the source has no names."""
    return tuple(map(str, range(num_classes))) if names is None else tuple(names)


def _client(counts: Mapping[str, int], nodes: np.ndarray, graph: Graph) -> dict[str, int]:
    found = {**counts, "edges": counts["edges"] // 2}
    if graph.labels is not None:
        labels = graph.labels[nodes]
        found["classes"] = int(np.unique(labels[labels >= 0]).size)
    return found


def _feature_kinds(graph: Graph) -> dict[str, int]:
    """Number of features by kind."""
    transform = graph.transform
    if transform is None:
        return {"as they are": graph.num_features}
    if transform.structure is not None:
        return {f"of the {transform.structure}": graph.num_features}
    categories = sum(map(len, transform.one_hot.values()))
    mean, scale = np.array(transform.mean or ()), np.array(transform.scale or ())
    scaled = int(np.count_nonzero((mean != 0) | (scale != 1)))
    kinds = {"categories": categories, "standardized": scaled}
    kinds["as they are"] = graph.num_features - categories - scaled
    return {kind: count for kind, count in kinds.items() if count}


def _class_warnings(
    classes: Mapping[str, int], graph: Graph, roles: np.ndarray, clients: Sequence[Mapping[str, int]]
) -> list[str]:
    total = sum(classes.values())
    if not total or graph.labels is None:
        return []
    said = []
    name, most = max(classes.items(), key=lambda item: item[1])
    if most >= _MAJORITY * total:
        said.append(
            f"the class {name} has {most / total:.1%} of all labels: a model that always predicts it has that accuracy"
        )
    if lacking := [name for name, count in classes.items() if not count]:
        said.append(f"no node has the class {', '.join(lacking[:5])}")
    untrained = np.setdiff1d(graph.labels[graph.labels >= 0], graph.labels[roles == TRAIN])
    if untrained.size:
        names = class_names(graph.num_classes, graph.class_names)
        said.append(f"no training node has the class {', '.join(names[number] for number in untrained[:5])}")
    single = [client for client, about in enumerate(clients) if about["classes"] == 1]
    if single and len(clients) > 1:
        said.append(
            f"{len(single)} of {len(clients)} clients have nodes of one class only, the first is client {single[0]}"
        )
    for role in ("validation", "test"):
        if without := [client for client, about in enumerate(clients) if not about[role]]:
            said.append(
                f"{len(without)} of {len(clients)} clients have no {role} node, the first is client {without[0]}"
            )
    return said
