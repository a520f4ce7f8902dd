"""A client's folder of any kind: described and checksummed, and written whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import pydantic
import pydantic_core
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.storage.sealed_folder import FileEntry, SealedFolder, sealed_files

CLIENT_SCHEMA = 5
"""Raised whenever one version could not read another's folder; since 5 each folder and file states its kind."""

DESCRIPTION, KEY = "client.json", "clients.key"
AGAIN = "make the folder again with subfl partition"


class Description(BaseModel):
    """Content of `client.json` for any kind of client.

    Attributes:
        needed: the files that the folder must have, the largest first.
        optional: the files that it may have.
        schema_version: in the file `schema`.
        kind: `graph` or `ratings`, fixed by the subclass, as the default of a `Literal`.
        client_id: in the file `client`.
        dataset: name of the data set.
        partition: key of the prepared partition that the folder was cut from; empty where a site made its own.
        num_clients: in the file `clients`; None where a site made its own folder and does not know.
        train, validation, test: number of nodes, or ratings, with that role.
        files: size and checksum of each file but the key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)

    needed: ClassVar[tuple[str, ...]]
    optional: ClassVar[tuple[str, ...]] = ()

    schema_version: int = Field(default=CLIENT_SCHEMA, alias="schema")
    kind: str
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
Texts = TypeVar("Texts")


@dataclass(frozen=True)
class DescribedFolder(Generic[SomeDescription]):
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
        folder._sealed.require_sizes()
        return folder

    @cached_property
    def _sealed(self) -> SealedFolder:
        return SealedFolder(self.path, self.description.files, DESCRIPTION, AGAIN)

    @property
    def fingerprint(self) -> str:
        """A sha256 over the checksums of all files but the key, 64 hexadecimal digits."""
        return self._sealed.fingerprint

    @property
    def key_path(self) -> Path:
        """The file of the clients' shared key."""
        return self.path / KEY

    def verified(self, name: str) -> Path:
        """The path of a file, its content checked.

        Raises:
            SubflError: the file is damaged.
        """
        return self._sealed.verified(name)

    def texts(self, name: str, kind: type[Texts], what: str) -> Texts | None:
        """The content of a JSON file of texts; None where the folder does not hold it.

        Args:
            name: of the file.
            kind: type of its content.
            what: the content in words, for the error.

        Raises:
            SubflError: the file is damaged, or its content is of another type.
        """
        if name not in self.description.files:
            return None
        file = self.verified(name)
        try:
            return TypeAdapter(kind).validate_json(file.read_bytes(), strict=True)
        except pydantic.ValidationError as error:
            raise SubflError(f"{file} does not hold {what}; {AGAIN}") from error

    @classmethod
    def seal(cls, unfinished: Path, key: bytes, **said: Any) -> None:
        """Write the description of the files that a new folder holds, and the clients' shared key.

        Args:
            unfinished: the folder, with all other files.
            key: the clients' shared key; the file is readable by its owner alone.
            said: the description's fields, but for the files.

        Raises:
            OSError: a file cannot be written.
        """
        description = cls.described_by(**said, files=sealed_files(unfinished))
        write_durably(unfinished / KEY, key)
        write_durably(unfinished / DESCRIPTION, description.as_bytes())


Folder = TypeVar("Folder", bound=DescribedFolder[Any])


def held_in(path: Path) -> str | None:
    """The kind of client whose folder this is, by `client.json`; None where it does not say."""
    try:
        content = pydantic_core.from_json((path / DESCRIPTION).read_bytes())
    except (OSError, ValueError):
        return None  # opening the folder says what is wrong
    held = content.get("kind") if isinstance(content, dict) else None
    return held if isinstance(held, str) else None


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
    if content["schema"] != CLIENT_SCHEMA:
        raise SubflError(f"{path} has the schema {content['schema']!r}, this version reads {CLIENT_SCHEMA}; {AGAIN}")
    if (held := content.get("kind")) != (needed := model.model_fields["kind"].default):
        raise SubflError(f"{path} describes a client with kind {held!r}, and one with {needed!r} is needed here")
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        raise SubflError(f"{path}: {f'{key}: ' if key else ''}{message}; {AGAIN}") from None
