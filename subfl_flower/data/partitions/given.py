"""A partition and split that a file gives."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import NO_ROLE, TEST, Graph
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.raw_files import sha256_of
from subfl_flower.errors import SubflError


class GivenPartition(PartitionSettings):
    """Node ids and roles from a NumPy `.npz` file.

    The file holds `split` (integers `[nodes]`: 0 train, 1 validation, 2 test, -1 none) over the nodes of the
    cleaned graph, and `client_0`, `client_1`, ... (node ids, in any order). Clients may overlap and need not
    cover the graph. `seed` has no effect.

    Attributes:
        file: the `.npz` file, relative to the working directory.
        clients: number of clients; if set, the file must hold as many.
    """

    name: Literal["given"] = "given"
    file: Path
    clients: int | None = Field(default=None, ge=1)

    @property
    def overlapping(self) -> bool:
        """Whether two clients of the file share a node.

        Raises:
            SubflError: the file cannot be read.
        """
        assigned = np.concatenate(self._read()[1])
        return np.unique(assigned).size < assigned.size

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """The file's clients.

        Raises:
            SubflError: the file cannot be read, or its ids do not fit the graph.
        """
        _, clients = self._read()
        for client_id, nodes in enumerate(clients):
            if nodes.size and (nodes.min() < 0 or nodes.max() >= graph.num_nodes):
                raise SubflError(
                    f"{self.file}: client_{client_id} names the nodes {nodes.min()}..{nodes.max()}; "
                    f"the graph has the nodes 0..{graph.num_nodes - 1}"
                )
            if np.unique(nodes).size < nodes.size:
                raise SubflError(f"{self.file}: client_{client_id} names a node more than once")
        return [np.sort(nodes) for nodes in clients]

    def roles(self, graph: Graph, train_fraction: float) -> np.ndarray:
        """The file's split; a node without a label has no role. `train_fraction` has no effect.

        Raises:
            SubflError: the file cannot be read, or its split does not fit the graph.
        """
        split, _ = self._read()
        if split.shape != (graph.num_nodes,):
            raise SubflError(
                f"{self.file}: split covers {split.shape[0] if split.ndim else 0} nodes; "
                f"the graph has {graph.num_nodes}"
            )
        if split.size and (split.min() < NO_ROLE or split.max() > TEST):
            raise SubflError(
                f"{self.file}: split holds {split.min()}..{split.max()}; "
                "allowed are 0 train, 1 validation, 2 test, -1 none"
            )
        unlabelled = np.ones(graph.num_nodes, dtype=bool) if graph.labels is None else graph.labels < 0
        return np.where(unlabelled, NO_ROLE, split).astype(np.int8)

    def raw_fingerprint(self) -> str:
        """The sha256 of the file.

        Raises:
            SubflError: the file cannot be read.
        """
        return sha256_of(self.file.expanduser())

    def _read(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The split and, in the order of their numbers, the clients' node ids (int64)."""
        try:
            archive = np.load(self.file.expanduser(), allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise SubflError(f"{self.file} cannot be read as a .npz partition: {error}") from error
        names = [f"client_{client_id}" for client_id in range(len(arrays) - 1)]
        if set(arrays) != {"split", *names} or not names:
            raise SubflError(
                f"{self.file} holds {', '.join(sorted(arrays)) or 'nothing'}; expected split, client_0, client_1, ..."
            )
        if any(array.dtype.kind not in "iu" or array.ndim != 1 for array in arrays.values()):
            raise SubflError(f"{self.file}: split and every client must be one-dimensional arrays of integers")
        if self.clients is not None and self.clients != len(names):
            raise SubflError(f"{self.file} holds {len(names)} clients, but partition.clients={self.clients}")
        return arrays["split"], [arrays[name].astype(np.int64) for name in names]
