"""A partition of a data set, prepared once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

from subfl_flower.data.datasets.settings import DatasetSettings
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.partition_files import SCHEMA_VERSION, PreparedPartition, client_file, write_partition
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.errors import SubflError

__all__ = ["PreparedPartition", "client_file", "prepare"]


def prepare(
    dataset: DatasetSettings,
    partition: PartitionSettings,
    root: Path,
    cache: Path,
    require_labels: bool = True,
) -> PreparedPartition:
    """Load, clean, split and divide a data set; or open what an earlier call made of the same settings.

    The result is kept under `cache/<dataset>-<partition>-<key>`, the key a hash of everything that shapes
    it. It is written beside its place and renamed, under a lock, so concurrent processes are safe and an
    interrupted one leaves nothing that counts. A damaged entry is made anew.

    Args:
        dataset: which data set.
        partition: how to divide it.
        root: the data root, for raw files.
        cache: where prepared partitions are kept.
        require_labels: refuse a data set without labels, and a client without a training node.

    Raises:
        SubflError: the data cannot be loaded or divided so, a client gets no node or no training node, or
            the cache cannot be written.
    """
    described = _described(dataset, partition, root)
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    directory = cache / f"{dataset.name}-{partition.name}-{key}"
    prepared = _opened(directory)
    if prepared is None:
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f".{directory.name}.lock"):
                prepared = _opened(directory)
                if prepared is None:
                    _build(directory, dataset, partition, root, described, require_labels)
                    prepared = PreparedPartition.open(directory)
        except OSError as error:
            raise SubflError(f"the prepared partition cannot be written to {directory}: {error}") from error
    if require_labels:
        _require_labels(dataset, prepared.num_classes, [client["train"] for client in prepared.metadata["clients"]])
    return prepared


def _described(dataset: DatasetSettings, partition: PartitionSettings, root: Path) -> dict[str, Any]:
    """Everything that shapes a prepared partition."""
    return {
        "schema": SCHEMA_VERSION,
        "dataset": dataset.model_dump(mode="json", exclude={"protocol"}),
        "partition": partition.model_dump(mode="json"),
        "fingerprints": [dataset.raw_fingerprint(root), partition.raw_fingerprint()],
        "packages": {package: version(package) for package in ("pymetis", "networkx")},
    }


def _opened(directory: Path) -> PreparedPartition | None:
    """The entry, its content checked; None where it is absent or damaged."""
    try:
        prepared = PreparedPartition.open(directory)
        prepared.verify()
        return prepared
    except SubflError:
        return None


def _build(
    directory: Path,
    dataset: DatasetSettings,
    partition: PartitionSettings,
    root: Path,
    described: dict[str, Any],
    require_labels: bool,
) -> None:
    graph = dataset.load(root)
    if require_labels and graph.labels is None:
        _require_labels(dataset, 0, [])
    roles = partition.roles(graph, dataset.train_fraction)
    assignments = partition.assign(graph)
    for client_id, nodes in enumerate(assignments):
        if nodes.size == 0:
            raise SubflError(f"partition={partition.name}: client {client_id} gets no node; use fewer clients")
    if require_labels:
        _require_labels(dataset, graph.num_classes, [int((roles[nodes] == TRAIN).sum()) for nodes in assignments])

    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a killed process: the lock is ours
    try:
        unfinished.mkdir()
        write_partition(unfinished, graph, roles, assignments, described | {"overlapping": partition.overlapping})
        if directory.exists():
            shutil.rmtree(directory)
        unfinished.replace(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _require_labels(dataset: DatasetSettings, num_classes: int, train_counts: list[int]) -> None:
    if num_classes == 0:
        raise SubflError(f"dataset={dataset.name} has no labels, and this task needs them")
    for client_id, count in enumerate(train_counts):
        if count == 0:
            raise SubflError(
                f"client {client_id} has no training node; raise dataset.train_fraction, use fewer clients, "
                "or another partition"
            )
