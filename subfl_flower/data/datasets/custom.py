"""A user's graph: a PyG file, or a table of nodes and a table of edges."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from subfl_flower.data.cleaning import RawGraph, clean, compact, row_normalised
from subfl_flower.data.datasets.custom_settings import FeatureSettings, GraphColumns
from subfl_flower.data.datasets.feature_fit import scale_warning, treated
from subfl_flower.data.datasets.labels import ClassName, same_text_twice
from subfl_flower.data.datasets.masks import SplitSource
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol
from subfl_flower.data.edge_weights import EdgeWeightRule
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.graph import Graph
from subfl_flower.data.in_memory import is_in_memory, tables_in_memory
from subfl_flower.data.tables.table_file import SUFFIXES, Encoding, require_table, table_stem, table_suffix
from subfl_flower.data.user_path import UserPath
from subfl_flower.errors import SubflError


class CustomDataset(DatasetSettings):
    """A graph from the user's files.

    Give either `path` (a file that `torch.save` wrote of a PyG `Data`, or a directory that holds tables called
    `nodes` and `edges`) or both `nodes` and `edges`. In a table an empty label means unlabelled, in a PyG file -1, -100
    and NaN do.

    Attributes:
        path: a `.pt` file or a directory of tables; or one of these in memory.
        nodes: the table of nodes.
        edges: the table of edges.
        encoding: of tables of text.
        columns: names of columns where they differ from the defaults.
        classes: the labels in the order of their class numbers; None sorts the labels that are found. Sites that
            do not see one another's labels must all state the same.
        unlabelled: labels that mean no label; None: see above.
        split: source of the split; `auto` takes `train_mask`, `val_mask`, `test_mask` where all three are present.
        mask_column: column of the masks, where they have several, one for each split.
        edge_weights: `ignore` weights of edges, or use them. Where a pair of nodes has several weights, take their
            `sum`, `mean`, `max`, or refuse (`unique`).
        features: treatment of features.
    """

    name: Literal["custom"] = "custom"
    path: UserPath | None = None
    nodes: UserPath | None = None
    edges: UserPath | None = None
    encoding: Encoding = "utf-8"
    columns: GraphColumns = GraphColumns()
    classes: tuple[ClassName, ...] | None = Field(default=None, min_length=2)
    unlabelled: tuple[ClassName, ...] | None = None
    split: SplitSource = "auto"
    mask_column: int | None = Field(default=None, ge=0)
    edge_weights: EdgeWeightRule | Literal["ignore"] = "unique"
    features: FeatureSettings = FeatureSettings()
    largest_component: bool = False
    protocol: Protocol = Protocol(rounds=100, local_epochs=1)

    @field_validator("classes", "unlabelled", mode="before")
    @classmethod
    def _no_null(cls, value: object) -> object:
        if isinstance(value, list | tuple) and None in value:
            raise ValueError("null is no label; put a label of this name in quotes, '\"null\"'")
        return value

    @field_validator("classes")
    @classmethod
    def _all_different(cls, value: tuple[ClassName, ...] | None) -> tuple[ClassName, ...] | None:
        if value is not None and same_text_twice(value):
            raise ValueError("every class must be named once")
        if value is not None and any(isinstance(name, str) and not name.strip() for name in value):
            raise ValueError("a class needs a name; an empty label means none")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> CustomDataset:
        tables = (self.nodes is not None) + (self.edges is not None)
        if (self.path is None and tables < 2) or (self.path is not None and tables > 0):
            raise ValueError(
                "give either dataset.path (a PyG Data file, or a directory with nodes.csv and edges.csv or "
                "their .parquet forms) or both dataset.nodes and dataset.edges"
            )
        if self.classes and self.unlabelled and same_text_twice([*self.classes, *self.unlabelled]):
            raise ValueError("classes and unlabelled name the same label; it is a class, or it means none")
        if self.row_normalize and self.features.standardize is True:
            raise ValueError("row_normalize and features.standardize exclude each other: choose one of them")
        return self

    def read(self, root: Path, transform: FeatureTransform | None = None) -> RawGraph:
        """Read the user's files; paths are relative to the working directory, not to `root`.

        Args:
            root: without effect.
            transform: feature transform of a trained model; None encodes as `features` says.

        Raises:
            SubflError: a file is missing or cannot be used; names the file, the count and the first row.
        """
        files = self.files(root)
        if len(files) == 1:
            from subfl_flower.data.datasets.custom_pyg import read_pyg_data  # torch is slow to import

            return read_pyg_data(files[0], self, transform)
        from subfl_flower.data.datasets.custom_tables import read_tables

        return read_tables(files[0], files[1], self, transform)

    def load(self, root: Path) -> Graph:
        """The cleaned graph with features encoded as numbers and not treated yet: float64, NaN where missing.

        Raises:
            SubflError: a file is missing or cannot be used.
        """
        return self._clean(self.read(root), self.features.from_structure)

    def load_as_trained(self, transform: FeatureTransform) -> Graph:
        """The cleaned graph, its features treated as a trained model's were.

        Raises:
            SubflError: a file is missing or cannot be used, or lacks a column that the model reads.
        """
        graph = self._clean(self.read(Path(), transform), transform.structure)
        return self._finished(graph, transform)

    def treated(self, graph: Graph, train: np.ndarray) -> Graph:
        """The graph as models read it: missing features filled and scaled by numbers of training nodes.

        Args:
            graph: the graph from `load`.
            train: bool `[nodes]`.

        Raises:
            SubflError: features are not finite.
        """
        transform = treated(graph, train, self.features, self.row_normalize)
        return self._finished(graph, transform)

    def files(self, root: Path) -> list[Path]:
        """The one PyG file, or the tables of nodes and of edges.

        Raises:
            SubflError: one does not exist, or is no table.
        """
        what = "dataset=custom"
        if self.path is None:
            assert self.nodes is not None and self.edges is not None  # the validator saw to it
            return [require_table(self.nodes, what), require_table(self.edges, what)]
        path = self.path.expanduser()
        if is_in_memory(path):
            tables = tables_in_memory(path)
            return [tables["nodes"], tables["edges"]] if tables else [path]
        if path.is_dir():
            return [_table_in(path, stem) for stem in ("nodes", "edges")]
        if not path.is_file():
            raise SubflError(f"{what}: {path} does not exist (looked for at {path.absolute()})")
        if table_suffix(path) is not None:
            raise SubflError(f"{what}: {path} is one table; a graph needs two, dataset.nodes and dataset.edges")
        return [path]

    def labels_advice(self) -> str:
        """Advice on naming the column of labels."""
        return "dataset.columns.label=... names the column"

    def for_site(self) -> CustomDataset:
        """Settings for a site that makes only its own folder: features are not scaled unless it says so.

        Raises:
            SubflError: a column's categories would be found in the site's data alone.
        """
        features = self.features
        if features.one_hot and not isinstance(features.one_hot, dict):
            raise SubflError(
                "dataset.features.one_hot: a site that makes its own folder must state the categories that all sites "
                f"agree on, for instance 'dataset.features.one_hot={{{features.one_hot[0]}:[a,b]}}'"
            )
        if features.standardize == "auto":  # means over all sites would need sums that others see unprotected
            features = features.model_copy(update={"standardize": False})
        return self.model_copy(update={"features": features})

    def require_common_classes(self) -> None:
        """Require that the classes and their order are stated: a site sees its own labels alone.

        Raises:
            SubflError: they are not.
        """
        if self.classes is None:
            raise SubflError(
                "dataset.classes: a site that makes its own folder must name all classes of the federation in their "
                "common order, for instance 'dataset.classes=[benign,malignant]'"
            )

    def _clean(self, raw: RawGraph, structure: Literal["degree", "identity"] | None) -> Graph:
        rule = "unique" if self.edge_weights == "ignore" else self.edge_weights
        return clean(raw, self.largest_component, False, "dataset=custom", rule, structure)

    def _finished(self, graph: Graph, transform: FeatureTransform) -> Graph:
        features = compact(transform.apply(graph.features), "dataset=custom")
        if transform.row_normalize:
            features = row_normalised(features)
        notes = graph.notes + scale_warning(features, graph.columns, transform)
        return replace(graph, features=features, transform=transform, notes=notes)


def _table_in(directory: Path, stem: str) -> Path:
    found = [path for path in sorted(directory.iterdir()) if table_stem(path) == stem and path.is_file()]
    if len(found) != 1:
        there = f" ({', '.join(path.name for path in found)})" if found else ""
        raise SubflError(
            f"dataset=custom: {directory} holds {len(found)} of {stem}.csv and {stem}.parquet{there}; exactly one "
            f"table {stem} is needed ({', '.join(SUFFIXES)})"
        )
    return found[0]
