"""A partition of a data set, prepared once and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.disturbances.disturbed import Disturber
from subfl_flower.data.disturbances.settings import DisturbanceSettings
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.prepared.entry import described_data, opened_or_made
from subfl_flower.data.prepared.partition_files import SCHEMA_VERSION, PreparedPartition, client_file, write_partition
from subfl_flower.errors import SubflError

__all__ = ["PreparedPartition", "client_file", "prepare"]


def prepare(
    dataset: DatasetSettings,
    partition: PartitionSettings,
    root: Path,
    cache: Path,
    require_labels: bool = True,
    disturbance: DisturbanceSettings | None = None,
) -> PreparedPartition:
    """Load, clean, split and divide a data set; or open the result of an earlier call with the same settings.

    The result is kept under `cache/<dataset>-<partition>-<key>` (`prepared_entry.opened_or_made`).

    Args:
        dataset: the data set.
        partition: the partitioner.
        root: the data root, for raw files.
        cache: the folder of prepared partitions.
        require_labels: refuse a data set without labels, and a client without a training node.
        disturbance: disturbances of clients' graphs; None: none.

    Raises:
        SubflError: the data cannot be loaded or divided so, a client gets no node or no training node, or
            the cache cannot be written.
    """
    described = described_data(SCHEMA_VERSION, dataset, partition, root)
    disturber = None
    if disturbance is not None and disturbance.active:
        described["disturbance"] = disturbance.model_dump(mode="json")
        disturber = lambda clients: Disturber(disturbance, partition.seed, clients)  # noqa: E731
    described["packages"] = {package: version(package) for package in ("pymetis", "networkx")}

    def write(directory: Path) -> None:
        _write(directory, dataset, partition, root, described, require_labels, disturber)

    prepared = opened_or_made(PreparedPartition, cache, f"{dataset.name}-{partition.name}", described, write)
    if require_labels:
        _require_classes(dataset, prepared.num_classes)
        counts = [client["train"] for client in prepared.metadata["clients"]]
        _require_training_nodes(counts, prepared.metadata["training_advice"])
    return prepared


def _write(
    directory: Path,
    dataset: DatasetSettings,
    partition: PartitionSettings,
    root: Path,
    described: dict[str, Any],
    require_labels: bool,
    disturber: Callable[[int], Disturber] | None,
) -> None:
    graph = dataset.load(root)
    if require_labels:
        _require_classes(dataset, graph.num_classes)
    roles = partition.roles(graph, dataset.train_fraction)
    graph = dataset.treated(graph, roles == TRAIN)
    assignments = partition.assign(graph)
    _require_nodes(assignments, graph.num_nodes, f"partition={partition.name}")
    if partition.clients not in (None, len(assignments)):
        raise SubflError(
            f"partition={partition.name}: gives {len(assignments)} clients, and partition.clients={partition.clients}"
        )
    advice = partition.training_advice(graph)
    if require_labels:
        counts = [int((roles[nodes] == TRAIN).sum()) for nodes in assignments]
        _require_training_nodes(counts, advice)
    about = {"overlapping": partition.overlapping, "training_advice": advice}
    lost = partition.lost_edges_of(graph)
    disturbing = None if disturber is None else disturber(len(assignments))
    write_partition(directory, graph, roles, assignments, described | about, lost, disturbing)


def _require_nodes(assignments: Any, num_nodes: int, source: str) -> None:
    """Raise SubflError unless each client gets some nodes of the graph, each once; a user's class may give anything."""
    if not isinstance(assignments, list | tuple):
        raise SubflError(f"{source}: gives {type(assignments).__name__}; expected a list with an array a client")
    for client_id, nodes in enumerate(assignments):
        if not isinstance(nodes, np.ndarray) or nodes.ndim != 1 or nodes.dtype.kind not in "iu":
            raise SubflError(f"{source}: client {client_id} does not get an array of node ids, int64 [nodes]")
        if nodes.size == 0:
            raise SubflError(f"{source}: client {client_id} gets no node; use fewer clients")
        if (nodes[1:] <= nodes[:-1]).any():
            raise SubflError(f"{source}: the node ids of client {client_id} are not ascending, each once")
        if nodes[0] < 0 or nodes[-1] >= num_nodes:
            raise SubflError(f"{source}: client {client_id} gets a node outside 0..{num_nodes - 1}")


def _require_classes(dataset: DatasetSettings, num_classes: int) -> None:
    if num_classes == 0:
        advice = dataset.labels_advice()
        raise SubflError(f"dataset={dataset.name} has no labels, and this task needs them{advice and '; '}{advice}")
    if num_classes == 1:
        raise SubflError(f"dataset={dataset.name}: all labels are the same; a task of classes needs at least two")


def _require_training_nodes(train_counts: list[int], advice: str) -> None:
    for client_id, count in enumerate(train_counts):
        if count == 0:
            raise SubflError(f"client {client_id} has no training node; {advice}")
