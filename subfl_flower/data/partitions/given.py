"""A partition and split from a file."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import NO_ROLE, TEST, Graph
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.tables.columns import matched
from subfl_flower.data.user_path import UserPath
from subfl_flower.errors import SubflError
from subfl_flower.storage.checksums import sha256_of


class GivenPartition(PartitionSettings):
    """Nodes of each client and a split, from a NumPy `.npz` file.

    The file holds `client_0`, `client_1`, ... (nodes in any order; clients may overlap and need not cover the graph)
    and `split` (integers: 0 train, 1 validation, 2 test, -1 none). Nodes are named by their ids where the data set has
    ids, text or whole numbers. The file then also holds `ids`, the node of each entry of `split`. Else nodes are rows
    of the cleaned graph, and `split` has an entry for each of them, in order. `seed` has no effect.

    Attributes:
        file: the `.npz` file, relative to the working directory.
        clients: number of clients; if set, the file must hold as many.
        by: naming of nodes: `id`, `row`, or `auto`, ids where the data set has some.
    """

    name: Literal["given"] = "given"
    file: UserPath
    clients: int | None = Field(default=None, ge=1)
    by: Literal["auto", "id", "row"] = "auto"

    @property
    def overlapping(self) -> bool:
        """True if two clients of the file share a node.

        Raises:
            SubflError: the file cannot be read.
        """
        assigned = np.concatenate([_as_text(nodes) for nodes in self._read()[1]])
        return np.unique(assigned).size < assigned.size

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """The file's clients.

        Raises:
            SubflError: the file cannot be read, or its nodes are not those of the graph.
        """
        clients = self._read()[1]
        found = [self._rows(graph, nodes, f"client_{client_id}") for client_id, nodes in enumerate(clients)]
        for client_id, nodes in enumerate(found):
            if np.unique(nodes).size < nodes.size:
                raise SubflError(f"{self.file}: client_{client_id} names a node more than once")
        return [np.sort(nodes) for nodes in found]

    def roles(self, graph: Graph, train_fraction: float) -> np.ndarray:
        """The file's split; a node without a label has no role. `train_fraction` has no effect.

        Raises:
            SubflError: the file cannot be read, or its split does not fit the graph.
        """
        arrays, _ = self._read()
        split = arrays["split"]
        if split.size and (split.min() < NO_ROLE or split.max() > TEST):
            raise SubflError(
                f"{self.file}: split holds {split.min()}..{split.max()}; "
                "allowed are 0 train, 1 validation, 2 test, -1 none"
            )
        roles = self._roles_by_id(graph, arrays) if self._by_id(graph) else self._roles_by_row(graph, arrays)
        unlabelled = np.ones(graph.num_nodes, dtype=bool) if graph.labels is None else graph.labels < 0
        return np.where(unlabelled, NO_ROLE, roles).astype(np.int8)

    def training_advice(self, graph: Graph) -> str:
        """The split comes from the file."""
        return f"the split in {self.file} gives none of its nodes the role 0 (train); change the split there"

    def raw_fingerprint(self) -> str:
        """The sha256 of the file.

        Raises:
            SubflError: the file cannot be read.
        """
        return sha256_of(self.file.expanduser())

    def _by_id(self, graph: Graph) -> bool:
        if self.by == "id" and graph.node_names is None:
            raise SubflError(
                "partition.by=id: the data set has no ids, its nodes are rows of the cleaned graph; use "
                "partition.by=row"
            )
        return self.by == "id" or (self.by == "auto" and graph.node_names is not None)

    def _rows(self, graph: Graph, nodes: np.ndarray, what: str) -> np.ndarray:
        """Rows in the graph, int64, of the nodes in one of the file's arrays."""
        if self._by_id(graph):
            assert graph.node_names is not None
            known = {name: row for row, name in enumerate(graph.node_names.tolist())}
            named = _as_text(nodes)
            rows = matched(named, known)
            if (rows < 0).any():
                raise SubflError(
                    f"{self.file}: {np.count_nonzero(rows < 0)} entries of {what} are no ids of the data set, the "
                    f"first is {named[int((rows < 0).argmax())]!r}; ids are compared as text (rows: partition.by=row)"
                )
            return rows
        if nodes.dtype.kind not in "iu":
            raise SubflError(f"{self.file}: {what} must hold whole numbers: rows of the cleaned graph")
        if nodes.size and (nodes.min() < 0 or nodes.max() >= graph.num_nodes):
            raise SubflError(
                f"{self.file}: {what} names the nodes {nodes.min()}..{nodes.max()}; "
                f"the graph has the nodes 0..{graph.num_nodes - 1}"
            )
        return nodes.astype(np.int64)

    def _roles_by_id(self, graph: Graph, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The role of each node; nodes missing in `ids` have none."""
        split, ids = arrays["split"], arrays.get("ids")
        if ids is None:
            raise SubflError(
                f"{self.file}: nodes are called by their ids here, and it has no array ids, of the same length as "
                "split, that says whose role each entry of split is; add it, or call all nodes by their rows in the "
                "cleaned graph with partition.by=row"
            )
        if ids.shape != split.shape:
            raise SubflError(f"{self.file}: ids has {ids.size} entries and split {split.size}; they go together")
        rows = self._rows(graph, ids, "ids")
        if np.unique(rows).size < rows.size:
            raise SubflError(f"{self.file}: ids names a node more than once")
        roles = np.full(graph.num_nodes, NO_ROLE, dtype=np.int64)
        roles[rows] = split
        return roles

    def _roles_by_row(self, graph: Graph, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        split = arrays["split"]
        if split.shape != (graph.num_nodes,):
            raise SubflError(
                f"{self.file}: split covers {split.shape[0] if split.ndim else 0} nodes; the graph has "
                f"{graph.num_nodes}"
            )
        return split

    def _read(self) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        """`split`, perhaps `ids`, and the clients' nodes in the order of their numbers."""
        try:
            archive = np.load(self.file.expanduser(), allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            with archive:
                arrays = {name: archive[name] for name in archive.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise SubflError(f"{self.file} cannot be read as a .npz partition: {_reason(error)}") from error
        about: dict[str, np.ndarray] = {name: arrays.pop(name) for name in ("split", "ids") if name in arrays}
        names = [f"client_{client_id}" for client_id in range(len(arrays))]
        if set(arrays) != set(names) or not names or "split" not in about:
            found = ", ".join(sorted({**arrays, **about})) or "nothing"
            raise SubflError(f"{self.file} holds {found}; expected split, client_0, client_1, ... (and perhaps ids)")
        for name, array in {**about, **arrays}.items():
            kinds, what = (
                ("iu", "integers") if name == "split" else ("iuUS", "integers, or of text where nodes have ids")
            )
            if array.ndim != 1 or array.dtype.kind not in kinds:
                raise SubflError(
                    f"{self.file}: {name} is {array.dtype} of the shape {list(array.shape)}; split and every client "
                    f"must be one-dimensional arrays of integers, and {name} of {what}"
                )
        if self.clients is not None and self.clients != len(names):
            raise SubflError(f"{self.file} holds {len(names)} clients, but partition.clients={self.clients}")
        return about, [arrays[name] for name in names]


def _reason(error: Exception) -> str:
    """The reason why a file cannot be read, in words for its owner."""
    if "Object arrays" in str(error):
        return "it holds Python objects; save ids as text, with ids.astype(str)"
    if "pickled" in str(error):
        return "it is no file of numpy.savez"
    return str(error)


def _as_text(nodes: np.ndarray) -> np.ndarray:
    """Ids as text without blanks around them, an object array; bytes are UTF-8."""
    texts = [node.decode("utf-8", "replace") if isinstance(node, bytes) else str(node) for node in nodes.tolist()]
    return np.array([text.strip() for text in texts], dtype=object)
