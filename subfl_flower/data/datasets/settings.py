"""Base class of the settings of graph data sets."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.cleaning import RawGraph, clean
from subfl_flower.data.graph import Graph
from subfl_flower.data.source import Protocol, SourceSettings

__all__ = ["DatasetSettings", "Protocol"]


class DatasetSettings(SourceSettings):
    """Settings of a data set that holds a graph: its source, cleaning and split.

    Your class implements `read`. It may override `files`, where the graph comes from files: their content is then part
    of the key under which prepared data are kept. Cleaning, splitting and keeping are inherited.

    Attributes:
        kind: kind of data, fixed by the class.
        name: the data set's name in `conf/dataset`.
        train_fraction: share of the labelled nodes that train; the rest validates and tests in halves.
        largest_component: keep only the largest connected component.
        row_normalize: make the feature rows sum to one.
        protocol: the training length that the paper uses; no part of a cache key.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "graph"
    disturbable: ClassVar[bool] = True

    train_fraction: float = Field(default=0.2, gt=0, lt=1)
    largest_component: bool = True
    row_normalize: bool = False
    protocol: Protocol = Protocol(rounds=100, local_epochs=1)

    @abstractmethod
    def read(self, root: Path) -> RawGraph:
        """The graph as its source holds it.

        Args:
            root: the data root; public benchmarks are searched below it and downloaded into it.

        Raises:
            SubflError: a file is missing or damaged; the sentence names it.
        """

    def load(self, root: Path) -> Graph:
        """The cleaned graph.

        Args:
            root: the data root.

        Raises:
            SubflError: a file is missing or damaged, or its content cannot be used.
        """
        return clean(self.read(root), self.largest_component, self.row_normalize, f"dataset={self.name}")

    def treated(self, graph: Graph, train: np.ndarray) -> Graph:
        """The graph as models read it, its features treated by numbers learnt from training nodes.

        Args:
            graph: the graph from `load`.
            train: bool `[nodes]`.

        Raises:
            SubflError: its features cannot be used.
        """
        return graph

    def labels_advice(self) -> str:
        """Ways to give the graph labels, for the end of an error; empty where there are none."""
        return ""
