"""Synthetic communities of clients, as in FED-PUB's Figures 1 and 3."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.sbm import edges_between
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol


class CommunitiesDataset(DatasetSettings):
    """Communities of subgraphs: each community has a class, and each subgraph belongs to one community.

    Baek et al., ICML 2023, App. B.3: 50 subgraphs in communities of 5, 5 and 40 with edge probabilities 0.5 and 0.1
    (Figure 1), and 20 in communities of 5 and 15 with 0.7 and 0.01 (Figure 3), 30 nodes a subgraph. The paper does not
    print the features. Here they are `signal * mean[class] + N(0, I)` with `mean[class] ~ N(0, I)`, as in
    `dataset=sbm`.

    Rows are in the order of the subgraphs, those of the first community first, so `partition=consecutive` with as many
    clients as there are subgraphs gives each client one. `mixed` above 0 makes classes inexact: a client whose nodes
    are all of one class has nothing to learn but that class.

    Attributes:
        subgraphs: number of subgraphs of each community.
        nodes: nodes of each subgraph.
        p_in: probability of an edge between two nodes of the same community.
        p_out: probability of an edge between two nodes of different communities.
        mixed: share of each community's nodes that have another community's class, at random.
        features: width of the feature matrix.
        signal: standard deviation of the class means; the noise has 1.
        graph_seed: seed of the graph itself (`partition.seed` drives the split).
    """

    name: Literal["communities"] = "communities"
    subgraphs: list[Annotated[int, Field(ge=1)]] = Field(default=[5, 5, 40], min_length=2)
    nodes: int = Field(default=30, ge=1)
    p_in: float = Field(default=0.5, ge=0, le=1)
    p_out: float = Field(default=0.1, ge=0, le=1)
    mixed: float = Field(default=0.0, ge=0, le=1)
    features: int = Field(default=64, ge=1)
    signal: float = Field(default=0.3, ge=0)
    graph_seed: int = Field(default=0, ge=0)
    largest_component: bool = False
    protocol: Protocol = Protocol(rounds=100, local_epochs=3)

    def read(self, root: Path) -> RawGraph:
        """Draw the graph; nothing is read from `root`."""
        generator = np.random.default_rng(self.graph_seed)
        sizes = [count * self.nodes for count in self.subgraphs]
        starts = np.concatenate([[0], np.cumsum(sizes)])[:-1].tolist()
        blocks = list(zip(starts, sizes, strict=True))
        edges = [
            edges_between(*first, *second, self.p_in if a == b else self.p_out, generator)
            for a, first in enumerate(blocks)
            for b, second in enumerate(blocks[a:], start=a)
        ]
        labels = np.repeat(np.arange(len(sizes)), sizes)
        for start, size in blocks if self.mixed else ():
            chosen = start + generator.permutation(size)[: round(self.mixed * size)]
            labels[chosen] += generator.integers(1, len(sizes), size=chosen.size)
        labels %= len(sizes)
        means = self.signal * generator.standard_normal((len(sizes), self.features), dtype=np.float32)
        features = means[labels] + generator.standard_normal((labels.size, self.features), dtype=np.float32)
        return RawGraph(features, np.concatenate(edges, axis=1), labels, len(sizes))
