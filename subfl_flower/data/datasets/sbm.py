"""Synthetic community graphs: FED-PUB's two, with disjoint and with overlapping communities."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol


class StochasticBlockModelDataset(DatasetSettings):
    """A stochastic block model whose communities have different classes.

    After the two synthetic graphs of FED-PUB (Baek et al., ICML 2023, arXiv 2206.10206, App. B.3), for
    which no generator was published; the details below are therefore this project's choice.

    Community `c` has its own classes (two of ten by default), so that communities are heterogeneous. Blocks
    are pairs (membership, class) of equal size. Two nodes are joined with probability `p_class` if they share
    a community and a class, `p_community` if they share a community only, `p_out` otherwise. In the variant
    `overlapping`, a share `overlap` of every community's nodes belongs to the next community as well (in a
    ring): they are joined to both as members, and take their classes from both. Features are
    `signal * mean[class] + N(0, I)` with `mean[class] ~ N(0, I)`. Nodes are in random order.

    Attributes:
        variant: disjoint (`nonoverlapping`) or `overlapping` communities.
        communities: number of communities.
        nodes_per_community: nodes whose first community is this one.
        classes_per_community: classes of each community.
        overlap: share of a community's nodes that also belong to the next; only with `overlapping`.
        p_class: edge probability within a community and a class.
        p_community: edge probability within a community, between classes.
        p_out: edge probability between communities.
        features: width of the feature matrix.
        signal: standard deviation of the class means; the noise has 1.
        graph_seed: seed of the graph itself (`partition.seed` drives split and partition).
    """

    name: Literal["sbm"] = "sbm"
    variant: Literal["nonoverlapping", "overlapping"] = "nonoverlapping"
    communities: int = Field(default=5, ge=2)
    nodes_per_community: int = Field(default=200, ge=1)
    classes_per_community: int = Field(default=2, ge=1)
    overlap: float = Field(default=0.2, ge=0, le=1)
    p_class: float = Field(default=0.08, ge=0, le=1)
    p_community: float = Field(default=0.02, ge=0, le=1)
    p_out: float = Field(default=0.002, ge=0, le=1)
    features: int = Field(default=64, ge=1)
    signal: float = Field(default=0.3, ge=0)
    graph_seed: int = Field(default=0, ge=0)
    protocol: Protocol = Protocol(rounds=50, local_epochs=1)

    def read(self, root: Path) -> RawGraph:
        """Draw the graph; nothing is read from `root`."""
        generator = np.random.default_rng(self.graph_seed)
        memberships, classes, sizes = self._blocks()
        starts = np.concatenate([[0], np.cumsum(sizes)])
        edges = []
        for a in range(sizes.size):
            for b in range(a, sizes.size):
                together = bool(memberships[a] & memberships[b])
                within = self.p_class if classes[a] == classes[b] else self.p_community
                p = within if together else self.p_out
                edges.append(edges_between(int(starts[a]), int(sizes[a]), int(starts[b]), int(sizes[b]), p, generator))
        labels = np.repeat(classes, sizes)
        num_classes = self.communities * self.classes_per_community
        means = self.signal * generator.standard_normal((num_classes, self.features), dtype=np.float32)
        features = means[labels] + generator.standard_normal((labels.size, self.features), dtype=np.float32)
        new_id = generator.permutation(labels.size)
        old_id = np.argsort(new_id)
        return RawGraph(features[old_id], new_id[np.concatenate(edges, axis=1)], labels[old_id], num_classes)

    def _blocks(self) -> tuple[list[set[int]], np.ndarray, np.ndarray]:
        """The blocks' memberships, classes `[blocks]` and sizes `[blocks]`."""
        shared = round(self.nodes_per_community * self.overlap) if self.variant == "overlapping" else 0
        memberships: list[set[int]] = []
        classes: list[int] = []
        sizes: list[int] = []
        for community in range(self.communities):
            following = (community + 1) % self.communities
            for members, count in (
                ({community}, self.nodes_per_community - shared),
                ({community, following}, shared),
            ):
                width = self.classes_per_community
                own = [c * width + i for c in sorted(members) for i in range(width)]
                for position, own_class in enumerate(own):
                    memberships.append(members)
                    classes.append(own_class)
                    sizes.append(count // len(own) + (position < count % len(own)))
        return memberships, np.array(classes), np.array(sizes)


def edges_between(
    start_a: int, size_a: int, start_b: int, size_b: int, p: float, generator: np.random.Generator
) -> np.ndarray:
    """Each pair of two blocks (of one block, if they are the same) with probability p: int64 `[2, edges]`.

    Args:
        start_a, size_a: the first block: its first node, and its number of nodes.
        start_b, size_b: the second block.
        p: probability of an edge.
        generator: draws the edges.
    """
    same = start_a == start_b and size_a == size_b
    pairs = size_a * (size_a - 1) // 2 if same else size_a * size_b
    chosen = _distinct(pairs, int(generator.binomial(pairs, p)), generator)
    if not same:
        return np.stack([start_a + chosen // size_b, start_b + chosen % size_b])
    # Pair number k of the strict lower triangle: row r holds the numbers r(r-1)/2 .. r(r+1)/2 - 1.
    rows = np.arange(size_a)
    row = np.searchsorted(rows * (rows + 1) // 2, chosen, side="right")
    return np.stack([start_a + row, start_a + chosen - row * (row - 1) // 2])


def _distinct(numbers: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` different numbers below `numbers`, every set equally likely, in memory O(`count`)."""
    if count > numbers // 2:
        return generator.permutation(numbers)[:count]
    chosen = np.unique(generator.integers(numbers, size=count)) if count else np.zeros(0, np.int64)
    while chosen.size < count:
        chosen = np.unique(np.concatenate([chosen, generator.integers(numbers, size=count - chosen.size)]))
    return chosen
