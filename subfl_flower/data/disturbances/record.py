"""Record of the disturbances of a partition, for `subfl inspect`, `data.json` and fingerprints."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

from subfl_flower.data.description import array_digest, feature_arrays
from subfl_flower.data.disturbances.disturbed import Disturber, homophily
from subfl_flower.data.graph import ClientGraph


class Disturbed:
    """The disturbed clients, taken one after the other.

    Attributes:
        about_last: facts on the last client, for its row among the clients.
    """

    def __init__(self) -> None:
        self._done: Counter[str] = Counter()
        self._digest = hashlib.sha256()
        self.about_last: dict[str, Any] = {}

    def take(self, graph: ClientGraph, done: dict[str, int]) -> ClientGraph:
        """Take in a client's disturbed graph, and the numbers of things that were changed; the graph."""
        self._done.update(done)
        arrays = (*feature_arrays(graph.features), graph.edge_index, graph.edge_weight, graph.labels, graph.roles)
        self._digest.update(array_digest(arrays).encode())
        share = homophily(graph)
        self.about_last = {"changes": sum(done.values())}
        if share is not None:
            self.about_last["homophily"] = round(share, 3)
        return graph

    def digest(self, partition: str) -> str:
        """Fingerprint of the partition's nodes, from `partition`, together with the clients' disturbed data."""
        return hashlib.sha256(f"{partition}{self._digest.hexdigest()}".encode()).hexdigest()

    def facts(self, disturber: Disturber) -> dict[str, int]:
        """Numbers of disturbed clients and of changes, over all clients."""
        return {"clients": len(disturber.chosen), **{name.replace("_", " "): n for name, n in self._done.items()}}
