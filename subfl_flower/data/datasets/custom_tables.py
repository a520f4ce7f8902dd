"""Reading a graph from a table of nodes and a table of edges, CSV or Parquet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.class_numbers import class_numbers
from subfl_flower.data.tables import count_rows, read_ids, read_table
from subfl_flower.errors import SubflError


def read_tables(nodes_path: Path, edges_path: Path, classes: Sequence[str | int] | None = None) -> RawGraph:
    """The graph of two tables.

    Nodes: a column `id` (unique), optionally `label` (anything; empty or -1 for unlabelled), and at least one
    further column, all of them numeric features. Edges: columns `source` and `target` that hold ids; further
    columns are ignored. Ids are compared as text. Classes are numbered as in `classes`, or else in the order of
    their sorted values.

    Raises:
        SubflError: a column is missing or not numeric, an id is missing, repeated or unknown, a label is none of
            `classes`, a feature is NaN; the sentence names the file, how many, and the first row (data rows count
            from 1).
    """
    nodes = read_table(nodes_path, ["id"])
    ids = pd.Index(read_ids(nodes, "id", nodes_path))
    repeated = ids.duplicated()
    if repeated.any():
        raise SubflError(f"{nodes_path}: {count_rows(repeated, 'repeated id')}; ids must be unique")
    edge_index = read_pairs(edges_path, ids, f"an id of {nodes_path.name}")
    labels = _labels(nodes["label"], classes, nodes_path) if "label" in nodes else None
    features = _features(nodes.drop(columns=["id", "label"], errors="ignore"), nodes_path)
    return RawGraph(features, edge_index, labels, len(classes) if classes else None)


def read_pairs(path: Path, ids: pd.Index, allowed: str) -> np.ndarray:
    """The pairs of nodes in the columns `source` and `target` of a table, as positions in `ids`: int64 `[2, pairs]`.

    Args:
        path: of the table, CSV or Parquet.
        ids: the nodes' ids, as text, all different.
        allowed: what a source or target must be, for the error.

    Raises:
        SubflError: the file cannot be read, a column is missing, an id is missing or unknown.
    """
    table = read_table(path, ["source", "target"])
    ends = []
    for column in ("source", "target"):
        named = read_ids(table, column, path)
        position = ids.get_indexer(named)
        if (position < 0).any():
            first = named.iloc[int(np.flatnonzero(position < 0)[0])]
            raise SubflError(
                f"{path}: {count_rows(position < 0, f'unknown {column}')} ({first}); every {column} must be {allowed}"
            )
        ends.append(position)
    return np.stack(ends).astype(np.int64)


def read_node_names(nodes_path: Path) -> np.ndarray:
    """The ids of a table of nodes, as text, in the order of its rows.

    Raises:
        SubflError: the file cannot be read, or a row has no id.
    """
    names: np.ndarray = read_ids(read_table(nodes_path, ["id"]), "id", nodes_path).to_numpy()
    return names


def _labels(column: pd.Series, classes: Sequence[str | int] | None, path: Path) -> np.ndarray:
    unlabelled = (column.isna() | (column.astype(str).isin(["-1", "-1.0"]))).to_numpy()
    labels = np.full(unlabelled.size, -1, dtype=np.int64)
    known = column[~unlabelled]
    if classes is None:
        labels[~unlabelled] = pd.factorize(known, sort=True)[0]
    else:
        labels[~unlabelled] = class_numbers(known.to_numpy(), classes, str(path))
    return labels


def _features(columns: pd.DataFrame, path: Path) -> np.ndarray:
    if columns.shape[1] == 0:
        raise SubflError(f"{path}: no feature columns; beside id and label at least one numeric column is needed")
    matrix = np.empty(columns.shape, dtype=np.float32)
    for position, name in enumerate(columns):
        column = columns[name]
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        not_numeric = np.isnan(numbers) & column.notna().to_numpy()
        if not_numeric.any():
            first = column.iloc[int(np.flatnonzero(not_numeric)[0])]
            raise SubflError(
                f"{path}: the feature column {name} has {count_rows(not_numeric, 'value that is no number')} "
                f"({first}); encode or drop the column"
            )
        matrix[:, position] = numbers
    bad = np.any(~np.isfinite(matrix), axis=1)
    if bad.any():
        name = columns.columns[int(np.flatnonzero(~np.isfinite(matrix[int(np.flatnonzero(bad)[0])]))[0])]
        counted = count_rows(bad, "row with a missing or infinite feature")
        raise SubflError(f"{path}: {counted} (column {name}); fill or drop the rows")
    return matrix
