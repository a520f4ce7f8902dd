"""A user's own graph: a PyG file, or a table of nodes and a table of edges."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol
from subfl_flower.data.raw_files import fingerprint
from subfl_flower.errors import SubflError

TABLE_SUFFIXES = (".csv", ".parquet")


class CustomDataset(DatasetSettings):
    """A graph from the user's own files.

    Give either `path` (a file that `torch.save` wrote of a PyG `Data`, or a directory that holds
    `nodes.csv|parquet` and `edges.csv|parquet`) or both `nodes` and `edges`. An empty label, or -1, means
    unlabelled.

    Attributes:
        path: a `.pt` file or a directory of tables.
        nodes: the table of nodes.
        edges: the table of edges.
        classes: the labels in the order of their class numbers; None sorts the labels that are found. Sites that
            do not see one another's labels must all state the same.
    """

    name: Literal["custom"] = "custom"
    path: Path | None = None
    nodes: Path | None = None
    edges: Path | None = None
    classes: tuple[str | int, ...] | None = Field(default=None, min_length=1)
    largest_component: bool = False
    protocol: Protocol = Protocol(rounds=100, local_epochs=1)

    @field_validator("classes")
    @classmethod
    def _all_different(cls, value: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        if value is not None and len({str(name) for name in value}) < len(value):
            raise ValueError("every class must be named once")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> CustomDataset:
        tables = (self.nodes is not None) + (self.edges is not None)
        if (self.path is None and tables < 2) or (self.path is not None and tables > 0):
            raise ValueError(
                "give either dataset.path (a PyG Data file, or a directory with nodes.csv and edges.csv or "
                "their .parquet forms) or both dataset.nodes and dataset.edges"
            )
        return self

    def read(self, root: Path) -> RawGraph:
        """Read the user's files; paths are relative to the working directory, not to `root`.

        Raises:
            SubflError: a file is missing or cannot be used; names the file, the count and the first row.
        """
        files = self._files()
        if len(files) == 1:
            from subfl_flower.data.datasets.custom_pyg import (
                read_pyg_data,
            )  # torch and pandas are slow to import

            return read_pyg_data(files[0], self.classes)
        from subfl_flower.data.datasets.custom_tables import read_tables

        return read_tables(files[0], files[1], self.classes)

    def node_names(self) -> np.ndarray | None:
        """The ids of a table's nodes, as text, in the order of its rows; None for a PyG file.

        Raises:
            SubflError: the file is missing or cannot be read.
        """
        files = self._files()
        if len(files) == 1:
            return None
        from subfl_flower.data.datasets.custom_tables import read_node_names

        return read_node_names(files[0])

    def raw_fingerprint(self, root: Path) -> str:
        """A digest of the user's files.

        Raises:
            SubflError: a file is missing.
        """
        return fingerprint(self._files())

    def _files(self) -> list[Path]:
        """The one PyG file, or the two tables."""
        if self.path is None:
            assert self.nodes is not None and self.edges is not None  # the validator saw to it
            files = [self.nodes.expanduser(), self.edges.expanduser()]
        elif self.path.expanduser().is_dir():
            files = [_table_in(self.path.expanduser(), stem) for stem in ("nodes", "edges")]
        else:
            files = [self.path.expanduser()]
        for file in files:
            if not file.is_file():
                raise SubflError(f"dataset=custom: {file} does not exist (looked for at {file.absolute()})")
            if len(files) == 2 and file.suffix not in TABLE_SUFFIXES:
                raise SubflError(f"dataset=custom: {file} is neither .csv nor .parquet")
        return files


def _table_in(directory: Path, stem: str) -> Path:
    found = [directory / f"{stem}{suffix}" for suffix in TABLE_SUFFIXES if (directory / f"{stem}{suffix}").is_file()]
    if len(found) != 1:
        names = " and ".join(f"{stem}{suffix}" for suffix in TABLE_SUFFIXES)
        raise SubflError(f"dataset=custom: {directory} holds {len(found)} of {names}; exactly one of them is needed")
    return found[0]
