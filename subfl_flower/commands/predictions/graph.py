"""The graph to predict on: a client's folder, or the user's file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from subfl_flower.commands.predictions.nodes import labels_as_trained
from subfl_flower.data.data_facts import ReadingSettings
from subfl_flower.data.datasets import CustomDataset
from subfl_flower.data.datasets.custom_settings import FeatureSettings, GraphColumns
from subfl_flower.data.description import class_names
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.folders.subgraph_folder import ClientFolder
from subfl_flower.data.graph import NO_ROLE, ClientGraph, Graph, Notes
from subfl_flower.data.in_memory import is_in_memory
from subfl_flower.data.tables.columns import read_table
from subfl_flower.data.tables.table_file import TableFormat
from subfl_flower.errors import SubflError
from subfl_flower.subgraphs.models.exported import ModelCard


@dataclass(frozen=True, eq=False)
class GraphToPredict:
    """A graph, and the names of its nodes and classes.

    Attributes:
        graph: cleaned and treated as for training.
        names: the source's ids of nodes, `[nodes]`; without ids a client's global numbers, or positions in a file.
        labels: int64 `[nodes]`, by the model's class numbers, -1 where there is none; None without labels, and for
            models that do not classify nodes.
        of_client: true if it is a client's graph, with roles.
        about: a description in words.
        notes: parts of a file that are not used, and warnings.
    """

    graph: ClientGraph
    names: np.ndarray
    labels: np.ndarray | None
    of_client: bool
    about: str
    notes: Notes = field(default_factory=Notes)


def open_graph(path: Path, card: ModelCard, row_normalize: bool) -> GraphToPredict:
    """Open a client's folder, or a path that `dataset.path` of `dataset=custom` accepts, as a model reads it.

    Args:
        path: path of the folder or file.
        card: card of the model: columns, categories and scales of features, class names, reading settings of files.
        row_normalize: make the feature rows of a file sum to one, where the card has no facts on features.

    Raises:
        SubflError: it is missing, damaged or malformed, lacks a column that the model reads, or has a label that is
            none of the model's classes.
    """
    if not is_in_memory(path) and not path.exists():
        raise SubflError(f"{path} does not exist; a graph is a client's folder, a PyG file or a folder of tables")
    of_client = (path / "client.json").exists()
    if row_normalize and (of_client or card.transform is not None):
        knows = "a client's folder holds features as" if of_client else "the model's card says how"
        raise SubflError(f"--row-normalize: {knows} they were treated in training; leave the option out")
    data = _of_folder(path, card) if of_client else _of_file(path, card, row_normalize)
    if data.graph.num_features != card.num_features:
        raise SubflError(
            f"the model reads {card.num_features} features a node, and {path} has {data.graph.num_features}"
        )
    _require_weights(data.graph, card, path)
    return data


def _scaling(transform: FeatureTransform) -> tuple[object, ...]:
    return transform.mean, transform.scale, transform.structure, transform.row_normalize


def _of_folder(path: Path, card: ModelCard) -> GraphToPredict:
    folder = ClientFolder.open(path)
    said, graph, names = folder.description, folder.graph(), folder.names()
    warnings = []
    if card.transform is not None and said.transform is not None and card.transform != said.transform:
        trained, found = card.transform.feature_names, said.transform.feature_names
        if trained != found and trained is not None and found is not None:
            raise SubflError(
                f"{path} has the features {', '.join(found)}, and the model reads {', '.join(trained)}, in this order"
            )
        if _scaling(card.transform) != _scaling(said.transform):
            raise SubflError(
                f"{path} holds features that were scaled otherwise than those of the model's training, so that its "
                "predictions would mean nothing; give the tables that it was made of instead"
            )
        warnings.append(f"missing features of {path} were filled with other numbers than in the model's training")
    return GraphToPredict(
        graph=graph,
        names=graph.node_ids if names is None else names,
        labels=_labels(graph.labels, graph.num_classes, said.classes, card, path),
        of_client=True,
        about=f"the graph of client {graph.client_id}",
        notes=Notes(warnings=tuple(warnings)),
    )


def _of_file(path: Path, card: ModelCard, row_normalize: bool) -> GraphToPredict:
    transform = card.transform or FeatureTransform(row_normalize=row_normalize)
    dataset = _reader(path, card)
    if transform.columns is None and transform.structure is None and len(dataset.files(Path())) > 1:
        encoding = dataset.load(Path()).transform  # the model has no feature names: the table's columns in their order
        transform = transform.model_copy(update={"columns": None if encoding is None else encoding.columns})
    graph = dataset.load_as_trained(transform)
    treated = "as in training"
    if card.transform is None:
        treated = "with rows that sum to one" if row_normalize else "as they are"
    return GraphToPredict(
        graph=without_roles(graph),
        names=np.arange(graph.num_nodes) if graph.node_names is None else graph.node_names,
        labels=_labels(graph.labels, graph.num_classes, graph.class_names, card, path),
        of_client=False,
        about=f"{path}, features {treated}",
        notes=graph.notes,
    )


def _labels(
    labels: np.ndarray | None, num_classes: int, names: tuple[str, ...] | None, card: ModelCard, path: Path
) -> np.ndarray | None:
    if not card.task.classifies_nodes:
        return None
    return labels_as_trained(labels, class_names(num_classes, names), card, str(path))


def _reader(path: Path, card: ModelCard) -> CustomDataset:
    """A reader of files in the format of the training files."""
    reading = card.reading
    # Labels with fractions are read only where all of them are named.
    fractions = any(re.fullmatch(r"[+-]?[0-9]*\.[0-9]+", name) for name in card.classes or ())
    dataset = CustomDataset(
        path=path,
        encoding=reading.encoding,
        columns=reading.columns,
        classes=card.classes if fractions else None,
        unlabelled=reading.unlabelled,
        split="random",
        edge_weights=reading.edge_weights,
        features=FeatureSettings(standardize=False, missing=reading.missing),
    )
    return dataset.model_copy(update={"columns": _present_columns(dataset.files(Path()), reading)})


def _present_columns(files: list[Path], reading: ReadingSettings) -> GraphColumns:
    """Names of columns; without that of labels where the table of nodes has no such column."""
    label = reading.columns.label
    if label is None or len(files) == 1:
        return reading.columns
    try:
        read_table(files[0], {"label": ()}, (), {"label": label}, TableFormat(reading.encoding))
    except SubflError:  # there is no such column, or the file is bad, which reading it whole then reports
        return reading.columns.model_copy(update={"label": None})
    return reading.columns


def _require_weights(graph: ClientGraph, card: ModelCard, path: Path) -> None:
    weighted = graph.edge_weight is not None
    if graph.edge_index.size and weighted != (card.reading.edge_weights != "ignore"):
        found, trained = ("has edge weights", "none") if weighted else ("has no edge weights", "some")
        raise SubflError(f"{path} {found}, and the graph that the model was trained on has {trained}")


def without_roles(graph: Graph) -> ClientGraph:
    """A whole graph in the form of a client's, without roles."""
    return ClientGraph(
        client_id=0,
        node_ids=np.arange(graph.num_nodes),
        features=graph.features,
        edge_index=graph.edge_index,
        labels=graph.labels,
        num_classes=graph.num_classes,
        roles=np.full(graph.num_nodes, NO_ROLE, dtype=np.int8),
        shareable=np.zeros(graph.num_nodes, dtype=bool),
        edge_weight=graph.edge_weight,
        cross_weight=None if graph.edge_weight is None else np.zeros(0, dtype=np.float32),
    )
