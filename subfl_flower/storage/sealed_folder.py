"""A client's folder of any kind: described and checksummed, and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import pydantic
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.errors import SubflError
from subfl_flower.storage.checksums import sha256_of
from subfl_flower.storage.durable_files import force_to_disk, make_private_folder

CLIENT_SCHEMA = 4
"""Raised whenever one version could not read another's folder; since 4 each file of arrays has a card."""

DESCRIPTION, KEY = "client.json", "clients.key"
AGAIN = "make the folder again with subfl partition"


class FileEntry(BaseModel):
    """Size and checksum of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Description(BaseModel):
    """Content of `client.json` for any kind of client.

    Attributes:
        holds: `graph` or `ratings`, fixed by the class; in the file `kind`, where a file without one is of a graph.
        needed: the files that the folder must have, the largest first.
        optional: the files that it may have.
        schema_version: in the file `schema`.
        client_id: in the file `client`.
        dataset: name of the data set.
        partition: key of the prepared partition that the folder was cut from; empty where a site made its own.
        num_clients: in the file `clients`; None where a site made its own folder and does not know.
        train, validation, test: number of nodes, or ratings, with that role.
        files: size and checksum of each file but the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    holds: ClassVar[str]
    needed: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()

    schema_version: int = Field(default=CLIENT_SCHEMA, alias="schema")
    client_id: int = Field(alias="client", ge=0)
    dataset: str = Field(min_length=1)
    partition: str = Field(pattern="^([0-9a-f]{16})?$")
    num_clients: int | None = Field(alias="clients", ge=1)
    train: int = Field(ge=0)
    validation: int = Field(ge=0)
    test: int = Field(ge=0)
    files: dict[str, FileEntry]

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not set(self.needed) <= set(self.files) <= {*self.needed, *self.optional}:
            allowed = " and perhaps ".join([*self.needed, *self.optional])
            raise ValueError(f"files must speak of {allowed} and of nothing else")
        if self.num_clients is not None and self.client_id >= self.num_clients:
            raise ValueError(f"client {self.client_id} is none of the clients 0..{self.num_clients - 1}")
        return self

    @property
    def of_partition(self) -> tuple[object, ...]:
        """Facts that all clients of a partition share."""
        return (self.dataset, self.partition, self.num_clients)

    def as_bytes(self) -> bytes:
        """The content of `client.json`."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"

    def require_facts(self, facts: dict[str, int], file: Path) -> None:
        """Refuse a file whose content does not agree with the description.

        Args:
            facts: the facts of a description that follow from the content.
            file: name of the file.

        Raises:
            SubflError: names the first fact that differs.
        """
        for name, found in facts.items():
            if getattr(self, name) != found:
                raise SubflError(f"{file}: {name} is {found}, where {DESCRIPTION} says {getattr(self, name)}; {AGAIN}")


SomeDescription = TypeVar("SomeDescription", bound=Description)


@dataclass(frozen=True)
class SealedFolder(Generic[SomeDescription]):
    """A client's folder: `client.json`, the files that it lists, and `clients.key`, the clients' shared key.

    Attributes:
        path: path of the folder.
        description: content of `client.json`.
    """

    path: Path
    description: SomeDescription

    described_by: ClassVar[type[Any]]

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a client's folder without reading its data.

        Raises:
            SubflError: there is no such folder, `client.json` is missing, malformed, of another version or of another
                kind of client, or a file that it lists is missing or has another size.
        """
        path = Path(path)
        if not path.is_dir():
            raise SubflError(f"{path} is not a client's folder: there is no such folder")
        folder = cls(path, _read_description(path / DESCRIPTION, cls.described_by))
        for name, entry in folder.description.files.items():
            file = path / name
            try:
                size = file.stat().st_size
            except OSError as error:
                raise SubflError(f"{file} cannot be read: {error.strerror or error}; {AGAIN}") from None
            if size != entry.bytes:
                raise SubflError(f"{file} has {size} bytes, where {DESCRIPTION} says {entry.bytes}; {AGAIN}")
        return folder

    @property
    def fingerprint(self) -> str:
        """A sha256 over the checksums of all files but the key, 64 hexadecimal digits."""
        files = sorted((name, entry.sha256) for name, entry in self.description.files.items())
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()

    @property
    def key_path(self) -> Path:
        """The file of the clients' shared key."""
        return self.path / KEY

    def verified(self, name: str) -> Path:
        """The path of a file, its content checked.

        Raises:
            SubflError: the file is damaged.
        """
        file = self.path / name
        if sha256_of(file) != self.description.files[name].sha256:
            raise SubflError(f"{file} is damaged (its checksum differs); {AGAIN}")
        return file


Folder = TypeVar("Folder", bound=SealedFolder[Any])


def held_in(path: Path) -> str:
    """The kind of client whose folder this is, by `client.json`: ``graph`` where it does not say."""
    try:
        content = pydantic_core.from_json((path / DESCRIPTION).read_bytes())
    except (OSError, ValueError):
        return "graph"  # opening it as such says what is wrong
    held = content.get("kind", "graph") if isinstance(content, dict) else "graph"
    return held if isinstance(held, str) else "graph"


def open_folders(kind: type[Folder], paths: Sequence[Path]) -> list[Folder]:
    """The folders of clients that one node hosts, by ascending client id.

    Raises:
        SubflError: one cannot be opened, two hold the same client, or they are not of one partition.
    """
    folders = sorted((kind.open(path) for path in paths), key=lambda folder: folder.description.client_id)
    for one, other in pairwise(folders):
        if one.description.client_id == other.description.client_id:
            raise SubflError(f"{other.path} holds client {one.description.client_id}, and so does {one.path}")
        if one.description.of_partition != other.description.of_partition:
            raise SubflError(f"{one.path} and {other.path} are not of one partition; a node needs folders of one")
    return folders


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write into; it becomes `path` when the block ends, and is removed if the block fails.

    Raises:
        SubflError: `path` exists, or the folder cannot be written.
    """
    if path.exists():
        raise SubflError(f"{path} exists already; choose another folder, or remove it")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.unfinished")
    try:
        make_private_folder(unfinished)
        yield unfinished
        unfinished.rename(path)
        force_to_disk(path.parent)
    except OSError as error:
        raise SubflError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def sealed_files(folder: Path) -> dict[str, FileEntry]:
    """Force the files that a folder holds so far to the disk; their sizes and checksums by name.

    Raises:
        OSError: the disk refuses.
    """
    files = sorted(folder.iterdir())
    for file in files:
        force_to_disk(file)
    return {file.name: FileEntry(bytes=file.stat().st_size, sha256=sha256_of(file)) for file in files}


def _read_description(path: Path, model: type[SomeDescription]) -> SomeDescription:
    try:
        text = path.read_bytes()
        content = pydantic_core.from_json(text)
    except OSError as error:
        raise SubflError(f"{path} cannot be read: {error.strerror or error}; it belongs to a client's folder") from None
    except ValueError as error:
        raise SubflError(f"{path} is not JSON ({error}); {AGAIN}") from None
    if not isinstance(content, dict) or "schema" not in content:
        raise SubflError(f"{path} does not describe a client: it must be a JSON object with 'schema'; {AGAIN}")
    held = content.get("kind", "graph")
    if held != model.holds:
        raise SubflError(f"{path} describes a client with kind {held!r}, and one with {model.holds!r} is needed here")
    if content["schema"] != CLIENT_SCHEMA:
        raise SubflError(f"{path} has the schema {content['schema']!r}, this version reads {CLIENT_SCHEMA}; {AGAIN}")
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise SubflError(f"{path}: {f'{key}: ' if key else ''}{message}; {AGAIN}") from None
