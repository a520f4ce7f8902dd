"""Reading a PyG `Data` object from a file without running what the file may contain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.class_numbers import class_numbers
from subfl_flower.errors import SubflError


def read_pyg_data(path: Path, classes: Sequence[str | int] | None = None) -> RawGraph:
    """The graph of a file that `torch.save(data, path)` wrote of a `torch_geometric.data.Data`.

    Needs `x` (`[nodes, features]`, dense or sparse) and `edge_index` (`[2, edges]`); `y` (integers, `[nodes]`
    or `[nodes, 1]`, -1 for unlabelled) is optional; all else is ignored. Classes are numbered as in `classes`, or else
    in the order of their sorted values. The file is loaded with
    `weights_only=True`, so that nothing but tensors and PyG's own containers is ever built.

    Raises:
        SubflError: the file is not such a `Data`, its tensors have the wrong shape, or a label is none of `classes`.
    """
    data = _load(path)
    if data.x is None or data.edge_index is None:
        raise SubflError(f"{path}: the Data object needs both x and edge_index; it holds {sorted(data.keys())}")
    if data.x.dim() != 2:
        raise SubflError(f"{path}: x has the shape {list(data.x.shape)}; expected [nodes, features]")
    if data.edge_index.dim() != 2 or data.edge_index.is_floating_point():
        raise SubflError(
            f"{path}: edge_index is {data.edge_index.dtype} of the shape {list(data.edge_index.shape)}; "
            "expected integers [2, edges]"
        )
    labels = _labels(data.y, data.x.shape[0], classes, path)
    return RawGraph(_features(data.x), data.edge_index.numpy(), labels, len(classes) if classes else None)


def _load(path: Path) -> Any:
    import torch
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import GlobalStorage

    try:
        with torch.serialization.safe_globals([Data, DataEdgeAttr, DataTensorAttr, GlobalStorage]):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, key, runtime and end-of-file errors here
        reason = str(error).strip().splitlines()[-1] if "Unsupported" in str(error) else type(error).__name__
        raise SubflError(
            f"{path} cannot be loaded as a PyG Data of plain tensors ({reason}); "
            "save it with torch.save(data, path), without other Python objects in it"
        ) from error
    if not isinstance(data, Data):
        raise SubflError(f"{path} holds a {type(data).__name__}; expected a torch_geometric.data.Data")
    return data


def _features(x: Any) -> np.ndarray | sp.csr_array:
    import torch

    if x.layout is torch.strided:
        return x.detach().float().numpy()
    entries = x.detach().to_sparse_coo().coalesce()
    return sp.csr_array((entries.values().float().numpy(), tuple(entries.indices().numpy())), shape=tuple(x.shape))


def _labels(y: Any, num_nodes: int, classes: Sequence[str | int] | None, path: Path) -> np.ndarray | None:
    if y is None:
        return None
    if tuple(y.shape) not in ((num_nodes,), (num_nodes, 1)):
        raise SubflError(f"{path}: y has the shape {list(y.shape)}; expected one label a node, [{num_nodes}]")
    values = y.numpy().reshape(-1)
    unlabelled = np.isnan(values) | (values == -1) if values.dtype.kind == "f" else values == -1
    known = values[~unlabelled]
    if np.any(known != np.floor(known)):
        first = int(np.flatnonzero(~unlabelled)[np.flatnonzero(known != np.floor(known))[0]])
        raise SubflError(f"{path}: y is not a class at node {first} ({values[first]}); expected whole numbers")
    labels = np.full(num_nodes, -1, dtype=np.int64)
    if classes is None:
        labels[~unlabelled] = np.unique(known, return_inverse=True)[1]
    else:
        labels[~unlabelled] = class_numbers(known, classes, str(path))
    return labels
