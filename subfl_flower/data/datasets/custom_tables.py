"""Reading a graph from a table of nodes and a table of edges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.labels import label_warnings, numbered_labels
from subfl_flower.data.datasets.masks import MASKS, roles_of_masks
from subfl_flower.data.datasets.table_features import encoded_features
from subfl_flower.data.graph import Notes
from subfl_flower.data.tables.columns import Problems, matched, numbers_of, read_ids, read_numbers, read_table, texts_of
from subfl_flower.data.tables.table_file import Table, TableFormat
from subfl_flower.errors import SubflError

if TYPE_CHECKING:
    from subfl_flower.data.datasets.custom import CustomDataset
    from subfl_flower.data.feature_transform import FeatureTransform

_NODE_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "id": ("node_id",),
    "label": (),
    "train_mask": (),
    "val_mask": ("valid_mask", "validation_mask"),
    "test_mask": (),
}
_EDGE_COLUMNS: Mapping[str, tuple[str, ...]] = {"source": (), "target": (), "weight": ("edge_weight",)}


def read_tables(
    nodes_path: Path, edges_path: Path, settings: CustomDataset, transform: FeatureTransform | None = None
) -> RawGraph:
    """The graph of two tables.

    Nodes: a column `id` (unique), optionally `label` (an empty one is unlabelled) and the masks `train_mask`,
    `val_mask` and `test_mask`; every further column is a feature. Edges: columns `source` and `target` that hold
    ids, optionally `weight`. Ids, labels and categories are compared as text.

    Args:
        nodes_path: of the table of nodes.
        edges_path: of the table of edges.
        settings: names of columns, classes, features, masks and weights.
        transform: feature transform of a trained model; None encodes as `settings` say.

    Raises:
        SubflError: a column is missing or not numeric, an id is missing, repeated or unknown, a label is none of
            the classes, a feature is missing; names the file and all its errors, each with its count and first row
            (data rows count from 1).
    """
    named = settings.columns.model_dump()
    format = TableFormat(settings.encoding)
    table, columns = read_table(nodes_path, _NODE_COLUMNS, ["id"], named, format)
    if not len(table):
        raise SubflError(f"{nodes_path} has no rows: a header without nodes")
    problems = Problems(nodes_path)
    ids = read_ids(table, columns["id"], "id", problems)
    problems.add_rows(_repeated(ids), "repeated id", "ids must be unique", ids)
    features = encoded_features(table, set(columns.values()), settings.features, problems, transform)
    roles, about_masks = _given_roles(table, columns, settings, problems)
    problems.require_none()
    labels, names = None, None
    notes = Notes(tuple(table.dropped), ()) + about_masks + features.notes
    if "label" in columns:
        texts = texts_of(table.columns[columns["label"]])
        labels, names = numbered_labels(texts, str(nodes_path), settings.classes, settings.unlabelled)
        notes += Notes(warnings=label_warnings(texts, labels, names, nodes_path.name, settings.unlabelled))
    edges = _read_edges(edges_path, ids, nodes_path.name, named, format, settings.edge_weights != "ignore")
    return RawGraph(
        features=features.matrix,
        edge_index=edges.pairs,
        labels=labels,
        num_classes=None if names is None else len(names),
        class_names=names,
        node_names=ids,
        edge_weight=edges.weight,
        given_roles=roles,
        encoding=features.encoding,
        notes=notes + edges.notes,
    )


_IGNORE = "dataset.edge_weights=ignore leaves weights out"


@dataclass(frozen=True, eq=False)
class _Edges:
    pairs: np.ndarray
    weight: np.ndarray | None
    notes: Notes


def _read_edges(
    path: Path, ids: np.ndarray, of: str, named: Mapping[str, str | None], format: TableFormat, weighted: bool
) -> _Edges:
    table, columns = read_table(path, _EDGE_COLUMNS, ["source", "target"], named, format)
    problems = Problems(path)
    pairs = _pairs(table, columns, ids, f"an id of {of}", problems)
    weight = None
    unused = [name for name in table.columns if name not in columns.values()]
    if "weight" in columns and weighted:
        weight = read_numbers(table, columns["weight"], "weight", problems)
        _, words = numbers_of(table.columns[columns["weight"]])
        problems.add_rows(np.isnan(weight) & ~words, "empty weight", f"every edge needs one; {_IGNORE}")
        with np.errstate(over="ignore"):
            unusable = ~np.isnan(weight) & ~((weight > 0) & np.isfinite(weight.astype(np.float32)))
        between = pairs[0] != pairs[1]
        problems.add_rows(unusable & between, "weight that is not positive and finite", _IGNORE, weight)
    elif "weight" in columns:
        unused.append(columns["weight"])
    problems.require_none()
    dropped = [*table.dropped, *([f"{path.name}: columns {', '.join(unused)}"] if unused else [])]
    warnings = () if len(table) else (f"{path.name} has no rows: the graph has no edges",)
    return _Edges(pairs, weight, Notes(tuple(dropped), warnings))


def read_pairs(path: Path, ids: np.ndarray, allowed: str) -> np.ndarray:
    """The pairs of nodes in the columns `source` and `target` of a table, as positions in `ids`: int64 `[2, pairs]`.

    Args:
        path: of the table.
        ids: the nodes' ids, as text, all different.
        allowed: description of the allowed values of a source or target, for the error.

    Raises:
        SubflError: the file cannot be read, a column is missing, an id is missing or unknown.
    """
    table, columns = read_table(path, _EDGE_COLUMNS, ["source", "target"])
    problems = Problems(path)
    pairs = _pairs(table, columns, ids, allowed, problems)
    problems.require_none()
    return pairs


def _pairs(table: Table, columns: Mapping[str, str], ids: np.ndarray, allowed: str, problems: Problems) -> np.ndarray:
    known = {name: position for position, name in enumerate(ids.tolist())}
    ends = []
    for end in ("source", "target"):
        named = read_ids(table, columns[end], end, problems)
        positions = matched(named, known)
        unknown = (positions < 0) & (named != "")
        problems.add_rows(unknown, f"unknown {end}", f"every {end} must be {allowed}", named)
        ends.append(positions)
    return np.stack(ends)


def _repeated(ids: np.ndarray) -> np.ndarray:
    """Mask of rows whose id stands in an earlier row, bool `[rows]`."""
    seen: set[str] = set()
    repeated = np.zeros(len(ids), dtype=bool)
    for row, name in enumerate(ids.tolist()):
        repeated[row] = name != "" and name in seen
        seen.add(name)
    return repeated


def _given_roles(
    table: Table, columns: Mapping[str, str], settings: CustomDataset, problems: Problems
) -> tuple[np.ndarray | None, Notes]:
    masks = {}
    for name in MASKS:
        if name in columns:
            values, _ = numbers_of(table.columns[columns[name]])
            wrong = ~np.isin(values, (0, 1))
            problems.add_rows(wrong, f"{name} that is neither 0 nor 1", "allowed are 0 and 1, or true and false")
            masks[name] = values == 1
    return roles_of_masks(masks, settings.split, str(table.path))
