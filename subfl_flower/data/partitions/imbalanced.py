"""Disjoint subgraphs of very different sizes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.metis import metis_parts
from subfl_flower.data.partitions.settings import PartitionSettings

SIZE_RATIO = 8.0
"""By default the first client's share is this many times the last one's."""


class ImbalancedPartition(PartitionSettings):
    """METIS into more parts than clients; every client merges a group of parts.

    Attributes:
        parts: number of METIS parts; default 4 a client, or as many as `groups` names.
        groups: for every client the parts that it merges, each part named once. By default the group sizes
            fall geometrically from the first client to the last, 8 to 1 as nearly as whole parts allow.
    """

    name: Literal["imbalanced"] = "imbalanced"
    clients: int = Field(default=10, ge=1)
    parts: int | None = Field(default=None, ge=1)
    groups: list[list[int]] | None = None

    @model_validator(mode="after")
    def _groups_fit(self) -> ImbalancedPartition:
        if self.groups is None:
            if self.parts is not None and self.parts < self.clients:
                raise ValueError(f"partition.parts={self.parts} is less than partition.clients={self.clients}")
            return self
        if len(self.groups) != self.clients:
            raise ValueError(
                f"partition.groups lists {len(self.groups)} groups for partition.clients={self.clients}; "
                "one group a client is needed"
            )
        named = sorted(part for group in self.groups for part in group)
        parts = len(named) if self.parts is None else self.parts
        if named != list(range(parts)) or not all(self.groups):
            raise ValueError(
                f"partition.groups must name each of the {parts} parts 0..{parts - 1} once, and no group may be empty"
            )
        return self

    def part_groups(self) -> list[list[int]]:
        """The METIS parts of every client."""
        if self.groups is not None:
            return self.groups
        parts = 4 * self.clients if self.parts is None else self.parts
        bounds = np.cumsum(geometric_sizes(parts, self.clients))
        return [group.tolist() for group in np.split(np.arange(parts), bounds[:-1])]

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Disjoint, covers every node.

        Raises:
            SubflError: more parts than nodes, or METIS leaves a part empty.
        """
        groups = self.part_groups()
        parts = metis_parts(graph, sum(map(len, groups)), self.seed, "partition.parts")
        return [np.sort(np.concatenate([parts[part] for part in group])) for group in groups]


def geometric_sizes(total: int, count: int) -> np.ndarray:
    """`count` whole sizes of at least one that sum to `total` and fall geometrically, 8 to 1.

    The part above one each is shared by largest remainders.

    Args:
        total: number to share; at least `count`.
        count: number of sizes.
    """
    shares = SIZE_RATIO ** (-np.arange(count) / max(count - 1, 1))
    exact = np.maximum(shares / shares.sum() * total - 1, 0)
    exact *= (total - count) / exact.sum() if exact.sum() > 0 else 0
    extra = np.floor(exact).astype(np.int64)
    left = total - count - int(extra.sum())
    extra[np.argsort(extra - exact, kind="stable")[:left]] += 1
    return 1 + extra
