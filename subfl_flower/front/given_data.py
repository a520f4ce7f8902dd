"""Data that a program hands over: a PyG `Data`, or pandas DataFrames."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from subfl_flower.data.in_memory import path_in_memory
from subfl_flower.data.tables.table_file import table_stem, table_suffix
from subfl_flower.errors import SubflError

if TYPE_CHECKING:
    import torch

_GRAPH, _RATINGS = {"nodes", "edges"}, {"train", "validation", "test"}
_ORDER = ("nodes", "edges", "train", "validation", "test")
_ALLOWED = (
    "a PyG Data, a pandas DataFrame of ratings, {'nodes': ..., 'edges': ...} or {'train': ..., 'test': ...} with "
    "DataFrames"
)


@dataclass(frozen=True)
class GivenData:
    """Objects in memory in the place of files.

    Attributes:
        path: path of the data, for a setting that takes a file or a folder.
        dataset: the data set that reads such data, a choice of ``conf/dataset``.
        objects: the objects for readers, by path; see `in_memory.held`.
    """

    path: Path
    dataset: str
    objects: Mapping[Path, Any] = field(default_factory=lambda: MappingProxyType({}))


def given_data(value: object, key: str) -> GivenData | None:
    """Data in memory; None for a value of another kind.

    Args:
        value: a PyG `Data`, a DataFrame, or a mapping from the names of tables to DataFrames.
        key: begins an error.

    Raises:
        SubflError: the object is of a kind that is not read, such as a `HeteroData`; a table is missing or has another
            name; or a tensor or a column cannot be read.
    """
    if _is_frame(value):
        return _tables({"": value}, "custom_ratings", key)
    if isinstance(value, Mapping) and any(map(_is_frame, value.values())):
        return _folder(value, key)
    if _is_of(value, "torch_geometric", "Data"):
        return _graph(value, key)
    for kind, advice in _ADVICE.items():
        if _is_of(value, *kind):
            raise SubflError(f"{key}: {type(value).__name__} is not read; {advice}")
    return None


def dataset_of_files(path: Path) -> str:
    """The data set that reads a user's file or folder, a choice of ``conf/dataset``.

    A table, and a folder with a table of training ratings, are ratings; everything else is a graph.
    """
    files = [path] if not path.is_dir() else [file for file in path.iterdir() if table_stem(file) == "train"]
    return "custom_ratings" if any(table_suffix(file) is not None for file in files) else "custom"


def require_data(value: object, key: str) -> GivenData:
    """Data in memory.

    Raises:
        SubflError: see `given_data`; or the value is nothing of this kind.
    """
    found = given_data(value, key)
    if found is None:
        raise SubflError(f"{key}: must be {_ALLOWED} (found {type(value).__name__})")
    return found


_ADVICE = {
    ("torch_geometric", "HeteroData"): "a graph of one type is needed, data.to_homogeneous() makes one",
    ("torch_geometric", "Dataset"): "give its graph, dataset[0]",
    ("pandas", "Series"): "give a DataFrame with the columns user, item and rating",
    ("networkx", "Graph"): "torch_geometric.utils.from_networkx makes a Data of it",
}
"""Kinds of objects that look like data, by package and name of their class, and how to make data of them."""


def _is_of(value: object, package: str, name: str) -> bool:
    """True for an object of a package's class or of a subclass; imports nothing."""
    kinds = ((kind.__module__.partition(".")[0], kind.__qualname__) for kind in type(value).__mro__)
    return (package, name) in kinds


def _is_frame(value: object) -> bool:
    return _is_of(value, "pandas", "DataFrame")


def _graph(data: Any, key: str) -> GivenData:
    try:
        on_cpu = copy.copy(data).cpu()
        path = path_in_memory(["Data"], _digest_of_graph(on_cpu))
    except (RuntimeError, TypeError, NotImplementedError, AttributeError) as error:  # nested or quantised tensors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise SubflError(f"{key}: Data holds a tensor that cannot be read ({reason}); give plain tensors") from error
    return GivenData(path, "custom", {path: on_cpu})


def _folder(tables: Mapping[Any, Any], key: str) -> GivenData:
    names = set(tables)
    dataset = "custom" if names == _GRAPH else "custom_ratings"
    if names != _GRAPH and not ({"train", "test"} <= names <= _RATINGS):
        raise SubflError(f"{key}: the tables are called {', '.join(map(str, tables))}; must be {_ALLOWED}")
    for name, table in tables.items():
        if not _is_frame(table):
            raise SubflError(f"{key}: {name} is a {type(table).__name__}; a pandas DataFrame is needed")
    return _tables({name: tables[name] for name in _ORDER if name in names}, dataset, key)


def _tables(frames: Mapping[str, Any], dataset: str, key: str) -> GivenData:
    """Tables by name; one of the empty name stands alone."""
    from subfl_flower.data.description import array_digest
    from subfl_flower.data.tables.parquet_file import frame_columns

    tables = {name: frame_columns(frame, Path(f"{key}: {name or 'DataFrame'}")) for name, frame in frames.items()}
    digest = hashlib.sha256()
    for name, table in tables.items():
        digest.update(repr((name, [column for column, _ in table.columns], sorted(table.refused))).encode())
        digest.update(array_digest(entries for _, entries in table.columns).encode())
    names = [name or "DataFrame" for name in tables]
    path = path_in_memory(names, digest.hexdigest())
    return GivenData(path, dataset, {(path / name if name else path): table for name, table in tables.items()})


def _digest_of_graph(data: Any) -> str:
    """Fingerprint of all attributes of a `Data`: the content of tensors, and the type of everything else."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(data.keys()):
        value = data[name]
        if isinstance(value, torch.Tensor):
            for part in _parts(value.detach()):
                digest.update(f"{name}{part.dtype}{tuple(part.shape)};".encode())
                digest.update(part.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:
            said = value if isinstance(value, int | float | str) else ""
            digest.update(f"{name}{type(value).__qualname__}{said};".encode())
    return digest.hexdigest()


def _parts(tensor: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """The dense tensors that make up a tensor."""
    import torch

    if tensor.layout is torch.strided:
        return (tensor,)
    entries = tensor.to_sparse_coo().coalesce()
    return entries.indices(), entries.values()
