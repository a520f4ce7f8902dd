"""Graphs as safetensors files: no pickle, readable in any language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from subfl_flower.data.graph import ClientGraph, FeatureMatrix, Graph
from subfl_flower.errors import SubflError
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file

_MAY_LACK = ("labels", "edge_weight", "cross_weight")
_OF_GRAPH = ("edge_index", "labels", "edge_weight")
_OF_CLIENT = (
    *("node_ids", "edge_index", "labels", "roles"),
    *("shareable", "cross_edges", "edge_weight", "cross_weight"),
)


class _Sizes(Card):
    """Sizes of a graph.

    Attributes:
        num_nodes, num_features, num_classes: of the graph.
    """

    remedy: ClassVar[str] = "prepare the partition again"

    num_nodes: int = Field(ge=0)
    num_features: int = Field(ge=0)
    num_classes: int = Field(ge=0)


class GraphCard(_Sizes):
    """Sizes of the global graph."""

    holds: ClassVar[str] = "a prepared graph"

    kind: Literal["graph"] = "graph"


class ClientGraphCard(_Sizes):
    """Sizes of one client's graph.

    Attributes:
        client_id: of the client.
    """

    holds: ClassVar[str] = "a client's graph"

    kind: Literal["client_graph"] = "client_graph"
    client_id: int = Field(ge=0)


def write_graph(path: Path, graph: Graph, roles: np.ndarray) -> None:
    """Write the global graph and the role of each node (int8 `[nodes]`)."""
    arrays = {"roles": roles, **_held(graph, _OF_GRAPH)}
    write_tensor_file(path, _feature_tensors(graph.features) | arrays, GraphCard(**_sizes(graph)))


def read_graph(path: Path) -> tuple[Graph, np.ndarray]:
    """The global graph and the role of each node, as `write_graph` wrote them.

    Raises:
        SubflError: the file is missing, damaged, or not a graph.
    """
    tensors, card = read_tensor_file(path, GraphCard)
    try:
        graph = Graph(features=_features(tensors, card), num_classes=card.num_classes, **_arrays(tensors, _OF_GRAPH))
        return graph, tensors["roles"]
    except Exception as error:
        raise _no_graph(path, card, error) from error


def write_client_graph(path: Path, client: ClientGraph) -> None:
    """Write one client's graph; the file needs no other file."""
    tensors = _feature_tensors(client.features) | _held(client, _OF_CLIENT)
    write_tensor_file(path, tensors, ClientGraphCard(**_sizes(client), client_id=client.client_id))


def read_client_graph(path: Path) -> ClientGraph:
    """One client's graph, as `write_client_graph` wrote it.

    Raises:
        SubflError: the file is missing, damaged, or not a client's graph.
    """
    tensors, card = read_tensor_file(path, ClientGraphCard)
    try:
        return ClientGraph(
            client_id=card.client_id,
            features=_features(tensors, card),
            num_classes=card.num_classes,
            **_arrays(tensors, _OF_CLIENT),
        )
    except Exception as error:
        raise _no_graph(path, card, error) from error


def _held(graph: Graph | ClientGraph, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The graph's arrays of these names, without those that it lacks."""
    return {name: array for name in names if (array := getattr(graph, name)) is not None}


def _arrays(tensors: Mapping[str, np.ndarray], names: Sequence[str]) -> dict[str, Any]:
    """The arrays of these names; None for those that a graph may lack. KeyError for others that are missing."""
    return {name: tensors.get(name) if name in _MAY_LACK else tensors[name] for name in names}


def _no_graph(path: Path, card: _Sizes, error: Exception) -> SubflError:
    """The error of arrays that make no graph; NumPy and SciPy each raise their own."""
    return card.damaged(path, f"{error} is missing" if isinstance(error, KeyError) else error)


def _sizes(graph: Graph | ClientGraph) -> dict[str, Any]:
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


def _features(tensors: dict[str, np.ndarray], card: _Sizes) -> FeatureMatrix:
    if "features" in tensors:
        return tensors["features"]
    parts = (tensors["features.data"], tensors["features.indices"], tensors["features.indptr"])
    if any(part.dtype.kind != "i" for part in parts[1:]):  # SciPy would cut digits off
        raise ValueError(
            f"features.indices and features.indptr are {parts[1].dtype} and {parts[2].dtype}, not integers"
        )
    return sp.csr_array(parts, shape=(card.num_nodes, card.num_features))
