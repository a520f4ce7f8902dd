"""Client folders that tests make by hand, sound or not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.graph_file import write_client_graph


def small_client(sparse: bool = False, **changes: Any) -> ClientGraph:
    """Client 2: the nodes 5, 7, 8 and 11 in a row, two classes, the last one without a label; 3, 6 and 12 elsewhere."""
    features = np.array([[1, 0, 0], [0, 2, 0], [0, 0, 3], [4, 0, 5]], dtype=np.float32)
    graph = ClientGraph(
        client_id=2,
        node_ids=np.array([5, 7, 8, 11]),
        features=sp.csr_array(features) if sparse else features,
        edge_index=np.array([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]]),
        labels=np.array([0, 1, 1, -1]),
        num_classes=2,
        roles=np.array([0, 1, 2, -1], dtype=np.int8),
        shareable=np.array([False, True, False, False]),
        cross_edges=np.array([[0, 2, 2], [3, 6, 12]]),
    )
    return replace(graph, **changes)


def describe(folder: Path, **changes: Any) -> None:
    """Write `client.json` for the file of `small_client`, with the right size and checksum of whatever is there."""
    content = (folder / "graph.safetensors").read_bytes()
    described = {
        "schema": 5,
        "kind": "graph",
        "client": 2,
        "dataset": "toy",
        "partition": "0123456789abcdef",
        "clients": 10,
        "num_nodes": 4,
        "num_edges": 6,
        "num_cross_edges": 3,
        "num_features": 3,
        "num_classes": 2,
        "overlapping": True,
        "train": 1,
        "validation": 1,
        "test": 1,
        "files": {"graph.safetensors": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    }
    (folder / "client.json").write_text(json.dumps(described | changes))


def by_hand(folder: Path, graph: ClientGraph, **changes: Any) -> Path:
    """A folder that nobody checked while it was written."""
    folder.mkdir()
    write_client_graph(folder / "graph.safetensors", graph)
    (folder / "clients.key").write_bytes(b"k" * 32)
    describe(folder, **changes)
    return folder
