"""One client's data as a folder of its own: all that a client's machine needs, and nothing of other clients'."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pydantic
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.data.client_graph_check import require_sound
from subfl_flower.data.durable_files import force_to_disk, write_durably
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph
from subfl_flower.data.raw_files import sha256_of
from subfl_flower.data.storage import read_client_graph, write_client_graph
from subfl_flower.errors import SubflError

CLIENT_SCHEMA = 1
"""Raised whenever an older version could not read the folder."""

_DESCRIPTION, _GRAPH, _KEY = "client.json", "graph.safetensors", "clients.key"
_AGAIN = "make the folder again with subfl partition"


class FileEntry(BaseModel):
    """Size and checksum of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ClientDescription(BaseModel):
    """What `client.json` says.

    Attributes:
        schema_version: in the file `schema`.
        client_id: in the file `client`.
        dataset: name of the data set.
        partition: key of the prepared partition that the folder was cut from; empty where a site made its own.
        num_clients: in the file `clients`; None where a site made its own folder and does not know.
        num_nodes, num_edges: of the client's graph; every edge counts in both directions.
        num_features, num_classes: of the whole data set; no classes without labels.
        overlapping: whether clients may share nodes.
        train, validation, test: how many nodes have that role.
        files: size and checksum of the graph's file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    schema_version: int = Field(default=CLIENT_SCHEMA, alias="schema")
    client_id: int = Field(alias="client", ge=0)
    dataset: str = Field(min_length=1)
    partition: str = Field(pattern="^([0-9a-f]{16})?$")
    num_clients: int | None = Field(alias="clients", ge=1)
    num_nodes: int = Field(ge=1)
    num_edges: int = Field(ge=0)
    num_features: int = Field(ge=1)
    num_classes: int = Field(ge=0)
    overlapping: bool
    train: int = Field(ge=0)
    validation: int = Field(ge=0)
    test: int = Field(ge=0)
    files: dict[str, FileEntry]

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> ClientDescription:
        if set(self.files) != {_GRAPH}:
            raise ValueError(f"files must speak of {_GRAPH} and of nothing else")
        if self.num_clients is not None and self.client_id >= self.num_clients:
            raise ValueError(f"client {self.client_id} is none of the clients 0..{self.num_clients - 1}")
        return self

    @property
    def of_partition(self) -> tuple[object, ...]:
        """What all clients of a partition have in common."""
        return (self.dataset, self.partition, self.num_clients, self.num_features, self.num_classes)


@dataclass(frozen=True)
class ClientFolder:
    """A client's folder: `client.json`, `graph.safetensors` and `clients.key`, the key that all clients share.

    Attributes:
        path: of the folder.
        description: what `client.json` says.
    """

    path: Path
    description: ClientDescription

    @classmethod
    def open(cls, path: Path) -> ClientFolder:
        """Open a folder that `write_client_folder` made; the graph is not read yet.

        Raises:
            SubflError: there is no such folder, `client.json` is missing, malformed or of another version, or the
                graph's file is missing or has another size.
        """
        path = Path(path)
        if not path.is_dir():
            raise SubflError(f"{path} is not a client's folder: there is no such folder")
        folder = cls(path, _description(path / _DESCRIPTION))
        graph, expected = path / _GRAPH, folder.description.files[_GRAPH].bytes
        try:
            size = graph.stat().st_size
        except OSError as error:
            raise SubflError(f"{graph} cannot be read: {error.strerror or error}; {_AGAIN}") from None
        if size != expected:
            raise SubflError(f"{graph} has {size} bytes, where {_DESCRIPTION} says {expected}; {_AGAIN}")
        return folder

    @property
    def key_path(self) -> Path:
        """The file of the clients' shared key."""
        return self.path / _KEY

    def graph(self) -> ClientGraph:
        """What the client holds, checked against its checksum and its description.

        Raises:
            SubflError: the file is damaged, is no client's graph, or is not the graph that `client.json` describes.
        """
        file = self.path / _GRAPH
        if sha256_of(file) != self.description.files[_GRAPH].sha256:
            raise SubflError(f"{file} is damaged (its checksum differs); {_AGAIN}")
        try:
            graph = read_client_graph(file)
        except SubflError:
            raise
        except Exception as error:  # NumPy, SciPy and JSON each raise their own for arrays that are none of a graph's
            raise SubflError(f"{file} does not hold a client's graph ({error}); {_AGAIN}") from error
        require_sound(graph, str(file))
        said = self.description
        for name, found in _facts(graph).items():
            if getattr(said, name) != found:
                raise SubflError(
                    f"{file}: {name} is {found}, where {_DESCRIPTION} says {getattr(said, name)}; {_AGAIN}"
                )
        return graph


def open_client_folders(paths: Sequence[Path]) -> list[ClientFolder]:
    """The folders of clients that one node hosts, by ascending client id.

    Raises:
        SubflError: one cannot be opened, two hold the same client, or they are not of one partition.
    """
    folders = sorted((ClientFolder.open(path) for path in paths), key=lambda folder: folder.description.client_id)
    for one, other in pairwise(folders):
        if one.description.client_id == other.description.client_id:
            raise SubflError(f"{other.path} holds client {one.description.client_id}, and so does {one.path}")
        if one.description.of_partition != other.description.of_partition:
            raise SubflError(f"{one.path} and {other.path} are not of one partition; a node needs folders of one")
    return folders


def write_client_folder(
    path: Path,
    graph: ClientGraph,
    *,
    dataset: str,
    partition: str,
    num_clients: int | None,
    overlapping: bool,
    key: bytes,
) -> None:
    """Write a client's folder. It appears whole or not at all: it is written beside its place and renamed.

    Args:
        path: of the folder; must not exist.
        graph: what the client holds.
        dataset: name of the data set.
        partition: key of the prepared partition, 16 hexadecimal digits; empty where a site makes its own folder.
        num_clients: how many clients there are; None where a site does not know.
        overlapping: whether clients may share nodes.
        key: the clients' shared key; the file is readable by its owner alone.

    Raises:
        SubflError: `path` exists, the graph is not sound, or the folder cannot be written.
    """
    if path.exists():
        raise SubflError(f"{path} exists already; choose another folder, or remove it")
    require_sound(graph, f"the graph of client {graph.client_id}")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.unfinished")
    try:
        unfinished.mkdir(parents=True)
        file = unfinished / _GRAPH
        write_client_graph(file, graph)
        force_to_disk(file)
        description = ClientDescription(
            **_facts(graph),
            dataset=dataset,
            partition=partition,
            clients=num_clients,
            overlapping=overlapping,
            files={_GRAPH: FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file))},
        )
        write_durably(unfinished / _KEY, key, mode=0o600)
        write_durably(unfinished / _DESCRIPTION, description.model_dump_json(by_alias=True, indent=1).encode() + b"\n")
        unfinished.rename(path)
        force_to_disk(path.parent)
    except OSError as error:
        raise SubflError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _facts(graph: ClientGraph) -> dict[str, int]:
    """What of a description follows from the graph."""
    facts = {
        "client_id": graph.client_id,
        "num_nodes": graph.num_nodes,
        "num_edges": int(graph.edge_index.shape[1]),
        "num_features": graph.num_features,
        "num_classes": graph.num_classes,
    }
    roles = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
    return facts | {name: int((graph.roles == role).sum()) for name, role in roles.items()}


def _description(path: Path) -> ClientDescription:
    try:
        content = pydantic_core.from_json(path.read_bytes())
    except OSError as error:
        raise SubflError(f"{path} cannot be read: {error.strerror or error}; it belongs to a client's folder") from None
    except ValueError as error:
        raise SubflError(f"{path} is not JSON ({error}); {_AGAIN}") from None
    if not isinstance(content, dict) or "schema" not in content:
        raise SubflError(f"{path} does not describe a client: it must be a JSON object with 'schema'; {_AGAIN}")
    if content["schema"] != CLIENT_SCHEMA:
        raise SubflError(f"{path} has the schema {content['schema']!r}, this version reads {CLIENT_SCHEMA}; {_AGAIN}")
    try:
        return ClientDescription.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise SubflError(f"{path}: {f'{key}: ' if key else ''}{message}; {_AGAIN}") from None
