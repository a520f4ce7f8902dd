"""Graphs as safetensors files: no pickle, readable in any language."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from subfl_flower.data.graph import ClientGraph, FeatureMatrix, Graph
from subfl_flower.errors import SubflError


def write_tensors(path: Path, tensors: dict[str, np.ndarray], sizes: dict[str, int]) -> None:
    """Write arrays and some whole numbers to one safetensors file; the same input gives the same bytes."""
    # One metadata entry, because safetensors writes several in random order.
    metadata = {"sizes": json.dumps(sizes, sort_keys=True)}
    # Not `save_file`: that makes files which only their owner can read, whatever the umask.
    path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, metadata))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The arrays and whole numbers that `write_tensors` wrote.

    Raises:
        SubflError: the file is missing or not a whole safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, json.loads((file.metadata() or {}).get("sizes", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise SubflError(f"{path} is missing or damaged ({error}); prepare the partition again") from error


def write_graph(path: Path, graph: Graph, roles: np.ndarray) -> None:
    """Write the global graph and the role of each node (int8 `[nodes]`)."""
    tensors = _feature_tensors(graph.features) | {"edge_index": graph.edge_index, "roles": roles}
    if graph.labels is not None:
        tensors["labels"] = graph.labels
    if graph.edge_weight is not None:
        tensors["edge_weight"] = graph.edge_weight
    write_tensors(path, tensors, _sizes(graph))


def read_graph(path: Path) -> tuple[Graph, np.ndarray]:
    """The global graph and the role of each node, as `write_graph` wrote them.

    Raises:
        SubflError: the file is missing, damaged, or not a graph.
    """
    tensors, sizes = read_tensors(path)
    try:
        graph = Graph(
            features=_features(tensors, sizes),
            edge_index=tensors["edge_index"],
            labels=tensors.get("labels"),
            num_classes=sizes["num_classes"],
            edge_weight=tensors.get("edge_weight"),
        )
        return graph, tensors["roles"]
    except KeyError as error:
        raise SubflError(f"{path} does not hold a prepared graph: {error} is missing") from error


def write_client_graph(path: Path, client: ClientGraph) -> None:
    """Write one client's graph; the file needs no other file."""
    tensors = _feature_tensors(client.features) | {
        "node_ids": client.node_ids,
        "edge_index": client.edge_index,
        "roles": client.roles,
        "shareable": client.shareable,
        "cross_edges": client.cross_edges,
    }
    if client.labels is not None:
        tensors["labels"] = client.labels
    for name, weight in (("edge_weight", client.edge_weight), ("cross_weight", client.cross_weight)):
        if weight is not None:
            tensors[name] = weight
    write_tensors(path, tensors, _sizes(client) | {"client_id": client.client_id})


def read_client_graph(path: Path) -> ClientGraph:
    """One client's graph, as `write_client_graph` wrote it.

    Raises:
        SubflError: the file is missing, damaged, or not a client's graph.
    """
    tensors, sizes = read_tensors(path)
    try:
        return ClientGraph(
            client_id=sizes["client_id"],
            node_ids=tensors["node_ids"],
            features=_features(tensors, sizes),
            edge_index=tensors["edge_index"],
            labels=tensors.get("labels"),
            num_classes=sizes["num_classes"],
            roles=tensors["roles"],
            shareable=tensors["shareable"],
            cross_edges=tensors["cross_edges"],
            edge_weight=tensors.get("edge_weight"),
            cross_weight=tensors.get("cross_weight"),
        )
    except KeyError as error:
        raise SubflError(f"{path} does not hold a client's graph: {error} is missing") from error


def _sizes(graph: Graph | ClientGraph) -> dict[str, int]:
    return {
        "num_nodes": graph.num_nodes,
        "num_features": graph.num_features,
        "num_classes": graph.num_classes,
    }


def _feature_tensors(features: FeatureMatrix) -> dict[str, np.ndarray]:
    if isinstance(features, np.ndarray):
        return {"features": features}
    return {
        "features.data": features.data,
        "features.indices": features.indices,
        "features.indptr": features.indptr,
    }


def _features(tensors: dict[str, np.ndarray], sizes: dict[str, int]) -> FeatureMatrix:
    if "features" in tensors:
        return tensors["features"]
    parts = (tensors["features.data"], tensors["features.indices"], tensors["features.indptr"])
    return sp.csr_array(parts, shape=(sizes["num_nodes"], sizes["num_features"]))
