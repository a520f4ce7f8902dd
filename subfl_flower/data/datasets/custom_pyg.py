"""Reading a PyG `Data` object from a file without running what the file may contain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from subfl_flower.data.cleaning import RawGraph
from subfl_flower.data.datasets.labels import ClassName, label_warnings, numbered_labels
from subfl_flower.data.datasets.masks import MASKS, roles_of_masks
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.graph import Notes
from subfl_flower.data.in_memory import is_in_memory, object_at
from subfl_flower.errors import SubflError

if TYPE_CHECKING:
    from subfl_flower.data.datasets.custom import CustomDataset

_UNLABELLED: tuple[ClassName, ...] = (-1, -100)
_READ = {"x", "edge_index", "adj_t", "y", "num_nodes", *MASKS}
_ADVICE = {
    "numpy": "make tensors of NumPy arrays with torch.from_numpy, or delete them from the Data",
    "torch_sparse": "a SparseTensor is not read: keep edge_index, without T.ToSparseTensor()",
    "NodeStorage": "a graph of several types is not read: data.to_homogeneous() makes one of one type",
    "Batch": "a batch of graphs is not read: save one graph, batch[0]",
    "": "save one graph, torch.save(dataset[0], path), without other Python objects in it",
}


def read_pyg_data(path: Path, settings: CustomDataset, transform: FeatureTransform | None = None) -> RawGraph:
    """The graph of a file that `torch.save(data, path)` wrote of a `torch_geometric.data.Data`, or of one in memory.

    It reads `x` (`[nodes, features]`, dense or sparse), `edge_index` (`[2, edges]`) or `adj_t` (sparse, `[nodes,
    nodes]`), `y` (whole numbers, `[nodes]` or `[nodes, 1]`), `edge_weight` (`[edges]`) and the masks (bool `[nodes]`,
    or `[nodes, splits]`). Nodes whose y is -1, -100 or NaN are unlabelled. A file that PyG's data sets keep under
    `processed` is read where it holds one graph. The file is loaded with `weights_only=True`, so that nothing but
    tensors and PyG's own containers is ever built.

    Args:
        path: of the file.
        settings: classes, labels that mean no label, the column of the masks, and the use of weights.
        transform: feature transform of a trained model; None treats features as `settings` say.

    Raises:
        SubflError: the file is not such a `Data`, its tensors have the wrong shape or type, or a label is none of
            the classes.
    """
    _refuse_settings_of_tables(settings, path)
    data = object_at(path) if is_in_memory(path) else _load(path)
    _require_tensors(data, settings.columns.weight or "edge_weight", path)
    try:
        return _graph(data, settings, path, transform)
    except (RuntimeError, TypeError, NotImplementedError) as error:  # of tensors on other devices, nested, quantised
        reason = str(error).strip().splitlines()[0]
        raise SubflError(f"{path} holds a tensor that cannot be read ({reason}); save plain tensors") from error


def _graph(data: Any, settings: CustomDataset, path: Path, transform: FeatureTransform | None) -> RawGraph:
    edges, weight, used = _edges(data, settings, path)
    features = _features(data.x, path)
    num_nodes = features.shape[0] if features is not None else _number_of_nodes(data, edges)
    stated = data._store.get("num_nodes")
    if stated is not None and int(stated) != num_nodes:
        raise SubflError(f"{path}: num_nodes is {int(stated)}, and x has {num_nodes} rows; one for each node is needed")
    texts, labels, names = _labels(data.y, num_nodes, settings, path)
    roles, about_masks = roles_of_masks(_masks(data, num_nodes, settings, path), settings.split, str(path))
    warnings: tuple[str, ...] = ()
    if texts is not None and labels is not None:
        warnings = label_warnings(texts, labels, names or (), path.name, settings.unlabelled)
    filled = settings.features.impute is not None if transform is None else transform.fill is not None
    return RawGraph(
        encoding=FeatureTransform() if filled and features is not None else None,
        features=features,
        edge_index=edges,
        labels=labels,
        num_classes=None if names is None else len(names),
        class_names=names,
        edge_weight=weight,
        given_roles=roles,
        num_nodes=num_nodes,
        notes=Notes(_not_read(data, used, path), warnings) + about_masks,
    )


def _refuse_settings_of_tables(settings: CustomDataset, path: Path) -> None:
    columns, features = settings.columns.model_dump(), settings.features
    stated = [f"dataset.columns.{name}" for name in ("id", "label", "source", "target") if columns[name] is not None]
    stated += [f"dataset.features.{name}" for name in ("one_hot", "missing", "ignore") if getattr(features, name)]
    if stated:
        raise SubflError(f"{path}: {stated[0]} is for tables, and this is a PyG file; leave it out")


def _require_tensors(data: Any, weight: str, path: Path) -> None:
    import torch

    for name in sorted((_READ | {weight}) - {"num_nodes"}):
        if name in data and not isinstance(data[name], torch.Tensor):
            raise SubflError(f"{path}: {name} is a {type(data[name]).__name__}; make a tensor of it, torch.tensor(...)")


def _load(path: Path) -> Any:
    import torch
    from torch_geometric.data import Data
    from torch_geometric.data.data import DataEdgeAttr, DataTensorAttr
    from torch_geometric.data.storage import AttrType, GlobalStorage

    safe: list[Any] = [Data, DataEdgeAttr, DataTensorAttr, GlobalStorage, AttrType]
    try:
        with torch.serialization.safe_globals(safe):
            data = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle, zip, key, runtime and end-of-file errors here
        raise SubflError(
            f"{path} cannot be loaded as a PyG Data of plain tensors ({_reason(path, error, safe)}"
        ) from error
    if isinstance(data, tuple) and len(data) == 3 and isinstance(data[0], dict):
        data = _only_graph(data, path)
    if not isinstance(data, Data):
        raise SubflError(f"{path} holds a {type(data).__name__}; expected a torch_geometric.data.Data")
    return data


def _reason(path: Path, error: Exception, safe: list[Any]) -> str:
    """The unsupported types in a file, or the kind of its damage, with advice and a closing bracket."""
    import torch

    known = {f"{kind.__module__}.{kind.__name__}" for kind in safe}
    try:
        strange = sorted(set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - known)
    except Exception:  # not a file of torch
        return f"{type(error).__name__}); save it with torch.save(data, path)"
    if "defaultdict" in str(error):
        return (
            "it remembers the kinds of its attributes, as after T.ToSparseTensor(), which has adj_t instead of "
            "edge_index); save it with edge_index, or Data.from_dict(data.to_dict())"
        )
    if not strange:
        return f"{type(error).__name__}); {_ADVICE['']}"
    advice = next(said for part, said in _ADVICE.items() if any(part in name for name in strange))
    return f"it holds {', '.join(strange)}); {advice}"


def _only_graph(saved: Any, path: Path) -> Any:
    """The only graph of a PyG data set's file, which holds the graphs' joined tensors and the start of each graph."""
    from torch_geometric.data import Data

    tensors, slices = saved[0], saved[1]
    count = 1 if not slices else max(len(starts) - 1 for starts in slices.values())
    if count != 1:
        raise SubflError(f"{path} holds {count} graphs of a PyG data set; save one, torch.save(dataset[0], path)")
    return Data.from_dict(tensors)


def _edges(data: Any, settings: CustomDataset, path: Path) -> tuple[np.ndarray, np.ndarray | None, set[str]]:
    """Edges int64 `[2, edges]`, their weights, and the names of the attributes that hold them."""
    name = settings.columns.weight or "edge_weight"
    weight = data[name] if name in data and settings.edge_weights != "ignore" else None
    if settings.columns.weight is not None and name not in data:
        raise SubflError(f"{path} has no {name} (dataset.columns.weight); it holds {sorted(data.keys())}")
    used = {name} if weight is not None else set()
    if data.edge_index is None and "adj_t" in data:
        edges, weight = _edges_of(data.adj_t, settings, path)
        return edges, weight, used
    if data.edge_index is None:
        raise SubflError(f"{path}: the Data object needs edge_index; it holds {sorted(data.keys())}")
    index = data.edge_index
    if index.dim() != 2 or index.is_floating_point() or index.is_complex() or index.dtype == _bool():
        raise SubflError(
            f"{path}: edge_index is {index.dtype} of the shape {list(index.shape)}; expected integers [2, edges]"
        )
    edges = _dense(index).numpy().astype(np.int64)
    if weight is None:
        return edges, None, used
    if weight.is_complex():
        raise SubflError(f"{path}: {name} is {weight.dtype}; weights must be real numbers")
    values = _dense(weight).double().numpy()
    if values.shape not in ((edges.shape[1],), (edges.shape[1], 1)):
        raise SubflError(
            f"{path}: {name} has the shape {list(values.shape)}; expected one weight an edge, [{edges.shape[1]}]. "
            "dataset.edge_weights=ignore leaves weights out"
        )
    return edges, values.reshape(-1), used


def _edges_of(adjacency: Any, settings: CustomDataset, path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Edges of PyG's transposed adjacency matrix, and its values where they are not all 1."""
    import torch

    if adjacency.layout is torch.strided or adjacency.dim() != 2:
        raise SubflError(f"{path}: adj_t is no sparse matrix; save the graph with edge_index")
    entries = adjacency.detach().to_sparse_coo().coalesce()
    target, source = entries.indices().numpy()
    values = entries.values().double().numpy()
    weighted = settings.edge_weights != "ignore" and bool(np.any(values != 1))
    return np.stack([source, target]), values if weighted else None


def _bool() -> Any:
    import torch

    return torch.bool


def _dense(tensor: Any) -> Any:
    """A tensor without gradient, layout or subclass; half precision as float32, because NumPy lacks bfloat16."""
    import torch

    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _features(x: Any, path: Path) -> np.ndarray | sp.csr_array | None:
    import torch

    if x is None:
        return None
    if x.dim() != 2:
        raise SubflError(f"{path}: x has the shape {list(x.shape)}; expected [nodes, features]")
    if x.is_complex():
        raise SubflError(f"{path}: x is {x.dtype}; features must be real numbers")
    if x.layout is torch.strided:
        features: np.ndarray = _dense(x).double().numpy()
        return features
    entries = x.detach().to_sparse_coo().coalesce()
    return sp.csr_array((entries.values().double().numpy(), tuple(entries.indices().numpy())), shape=tuple(x.shape))


def _number_of_nodes(data: Any, edges: np.ndarray) -> int:
    stated = data._store.get("num_nodes")
    if stated is not None:
        return int(stated)
    if data.y is not None and data.y.dim() > 0:
        return int(data.y.shape[0])
    return int(edges.max()) + 1 if edges.size else 0


def _labels(
    y: Any, num_nodes: int, settings: CustomDataset, path: Path
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[str, ...] | None]:
    """The labels as text `[nodes]`, their class numbers, and the names of the classes; None each without labels."""
    if y is None:
        return None, None, None
    if tuple(y.shape) not in ((num_nodes,), (num_nodes, 1)):
        raise SubflError(f"{path}: y has the shape {list(y.shape)}; expected one label a node, [{num_nodes}]")
    values = _dense(y).numpy().reshape(-1)
    if values.dtype.kind not in "biuf":
        raise SubflError(f"{path}: y is {y.dtype}; expected whole numbers")
    found, which = np.unique(values, return_inverse=True)
    missing = np.isnan(found) if found.dtype.kind == "f" else np.zeros(len(found), dtype=bool)
    known = found[~missing]
    fractions = known[known != np.floor(known)] if known.dtype.kind == "f" else known[:0]
    if fractions.size:
        first = int(np.flatnonzero(np.isin(values, fractions))[0])
        raise SubflError(f"{path}: y is not a class at node {first} ({values[first]}); expected whole numbers")
    if known.size and np.abs(known.astype(np.float64)).max() >= 2**53:
        raise SubflError(f"{path}: y holds {known.max():.3g}; classes are whole numbers below {2**53}")
    if settings.unlabelled is None and set(known.tolist()) == {-1, 1} and known.dtype.kind != "b":
        raise SubflError(
            f"{path}: the labels are -1 and 1, and -1 usually means unlabelled; state dataset.unlabelled=[] for two "
            "classes, or dataset.unlabelled=[-1] for one class and nodes without a label"
        )
    whole = found if found.dtype.kind == "b" else np.where(missing, 0, found).astype(np.int64)
    names = ["" if gap else str(value) for value, gap in zip(whole.tolist(), missing.tolist(), strict=True)]
    texts = np.array(names, dtype=object)[which]
    unlabelled = _UNLABELLED if settings.unlabelled is None else settings.unlabelled
    return texts, *numbered_labels(texts, str(path), settings.classes, unlabelled)


def _masks(data: Any, num_nodes: int, settings: CustomDataset, path: Path) -> dict[str, np.ndarray]:
    if settings.split == "random":
        return {name: np.zeros(num_nodes, dtype=bool) for name in MASKS if name in data}
    found = {}
    for name in MASKS:
        if name not in data:
            continue
        mask = _dense(data[name]).numpy()
        if mask.ndim == 2 and mask.shape[1] == 1:
            mask = mask[:, 0]
        if mask.ndim == 1 and settings.mask_column is not None:
            raise SubflError(f"{path}: {name} is one split; leave dataset.mask_column out")
        if mask.ndim == 2 and mask.shape[0] != num_nodes:
            raise SubflError(f"{path}: {name} has the shape {list(mask.shape)}; expected [{num_nodes}, splits]")
        if mask.ndim == 2:
            chosen, count = settings.mask_column, mask.shape[1]
            if chosen is None or chosen >= count:
                raise SubflError(
                    f"{path}: {name} has {count} splits; state dataset.mask_column=0 to {count - 1}, or "
                    "dataset.split=random"
                )
            mask = mask[:, chosen]
        if mask.shape != (num_nodes,) or not np.isin(mask, (0, 1)).all():
            raise SubflError(
                f"{path}: {name} is {mask.dtype} of the shape {list(mask.shape)}; expected bool [{num_nodes}]"
            )
        found[name] = mask.astype(bool)
    return found


def _not_read(data: Any, used: set[str], path: Path) -> tuple[str, ...]:
    import torch

    left = [name for name in sorted(data.keys()) if name not in _READ | used]
    shapes = [f"{name} {list(data[name].shape)}" if isinstance(data[name], torch.Tensor) else name for name in left]
    return (f"{path.name}: {', '.join(shapes)}",) if left else ()
