"""The clients that one node hosts: their graphs, and the chunks that they are worked in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.prepared import PreparedPartition
from subfl_flower.models.chunk import GraphChunk

# A stacked step keeps several copies of its parameters and activations alive; on a GPU a chunk takes at most this share
# of the free memory, each parameter and activation counted this many times.
_MEMORY_SHARE, _COPIES = 0.4, 12
# On a CPU a client's step is fastest while its working set stays in cache; clients smaller than this are worth
# stacking.
_SMALL_CLIENT_FLOATS = 20_000


@dataclass(frozen=True)
class Cohort:
    """The clients of a node.

    Attributes:
        graphs: by position in the cohort.
        num_features, num_classes: of the whole data set.
        device: where models are trained.
        chunk: clients worked at once; ``auto`` decides by device and size, ``all`` is the whole cohort.
    """

    graphs: tuple[ClientGraph, ...]
    num_features: int
    num_classes: int
    device: torch.device
    chunk: int | Literal["auto", "all"]

    def __post_init__(self) -> None:
        object.__setattr__(self, "_chunks", {})

    @classmethod
    def load(
        cls,
        partition: PreparedPartition,
        client_ids: Sequence[int],
        device: torch.device,
        chunk: int | Literal["auto", "all"],
    ) -> Cohort:
        """Read the graphs of `client_ids` from a prepared partition."""
        graphs = tuple(partition.client(client_id) for client_id in client_ids)
        return cls(graphs, partition.num_features, partition.num_classes, device, chunk)

    @property
    def client_ids(self) -> tuple[int, ...]:
        """The clients, by position."""
        return tuple(graph.client_id for graph in self.graphs)

    def chunk_size(self, num_parameters: int, hidden: int) -> int:
        """Clients to work at once, for models of `num_parameters` entries and layers of width `hidden`."""
        if self.chunk == "all":
            return len(self.graphs)
        if self.chunk != "auto":
            return self.chunk
        floats = num_parameters + 2 * hidden * max(graph.num_nodes for graph in self.graphs)
        if self.device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self.device)
            return max(1, min(len(self.graphs), int(_MEMORY_SHARE * free / (4 * _COPIES * floats))))
        return max(1, _SMALL_CLIENT_FLOATS // floats)

    def split(self, positions: Sequence[int], size: int) -> Iterator[list[int]]:
        """Cut `positions` into runs of at most `size`."""
        for start in range(0, len(positions), size):
            yield list(positions[start : start + size])

    def graph_chunk(self, positions: Sequence[int]) -> GraphChunk:
        """The stacked graphs of some clients, prepared on first use."""
        chunks: dict[tuple[int, ...], GraphChunk] = self.__dict__["_chunks"]
        key = tuple(positions)
        if key not in chunks:
            chunks[key] = GraphChunk.build([self.graphs[position] for position in positions], self.device)
        return chunks[key]
