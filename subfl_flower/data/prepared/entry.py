"""Directories of prepared data, with checksums, written once and whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from filelock import FileLock

from subfl_flower.data.description import file_digests
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.source import SourceSettings
from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder, write_durably
from subfl_flower.storage.sealed_folder import UNFINISHED, FileEntry, SealedFolder, new_folder, sealed_files

_METADATA = "metadata.json"
_AGAIN = "prepare the partition again"

Entry = TypeVar("Entry", bound="PreparedEntry")


class PreparedEntry:
    """A prepared directory. Its files are checked against the sizes and checksums in the metadata (`SealedFolder`).

    Attributes:
        directory: the directory of the files.
        metadata: content of `metadata.json`.
        verified: gives the path of a file whose content has been checked; SubflError where it is damaged.
    """

    schema: ClassVar[int]

    def __init__(self, sealed: SealedFolder, metadata: dict[str, Any]) -> None:
        self.directory = sealed.path
        self.metadata = metadata
        self.verified = sealed.verified

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Open a prepared directory.

        Raises:
            SubflError: its metadata is missing or damaged, or a file of it is missing or has another size.
        """
        path = directory / _METADATA
        try:
            metadata = json.loads(path.read_bytes())
            schema = metadata["schema"]
            files = {name: FileEntry(**entry) for name, entry in metadata["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SubflError(f"{path} is missing or damaged; {_AGAIN}") from error
        if schema != cls.schema:
            raise SubflError(f"{path} has the schema {schema}, this version reads {cls.schema}; {_AGAIN}")
        sealed = SealedFolder(directory, files, _METADATA, _AGAIN)
        sealed.require_sizes()
        return cls(sealed, metadata)

    @property
    def key(self) -> str:
        """Key of the entry: 16 hexadecimal digits, the hash of everything that determines it."""
        return self.directory.name.rpartition("-")[2]

    def verify(self) -> None:
        """Check the content of every file.

        Raises:
            SubflError: a file is damaged.
        """
        for name in self.metadata["files"]:
            self.verified(name)


def described_data(schema: int, dataset: SourceSettings, partition: PartitionSettings, root: Path) -> dict[str, Any]:
    """Everything that determines a prepared directory: settings, source files, versions of code outside this project.

    The training length of a data set (`protocol`) is left out, since it does not affect the data.

    Args:
        schema: version of the directory's format.
        dataset: the data set.
        partition: the partitioner.
        root: the data root, for raw files.

    Raises:
        SubflError: a source file cannot be had, or a class outside this project states no version and has no source
            file.
    """
    described: dict[str, Any] = {
        "schema": schema,
        "dataset": dataset.model_dump(mode="json", exclude={"protocol"}),
        "partition": partition.model_dump(mode="json"),
        "source_files": file_digests(dataset.files(root)),
        "partition_file": partition.raw_fingerprint(),
    }
    if code := dataset.code_version() | partition.code_version():
        described["code"] = code
    return described


def write_metadata(directory: Path, metadata: dict[str, Any]) -> None:
    """Write `metadata.json` into a prepared directory, with the size and sha256 of each other file.

    Args:
        directory: holds all the other files already.
        metadata: its content, including the `schema`.
    """
    files = {name: entry.model_dump() for name, entry in sealed_files(directory).items()}
    write_durably(directory / _METADATA, json.dumps(metadata | {"files": files}, indent=1).encode())


def opened_or_made(
    entry: type[Entry], cache: Path, name: str, described: dict[str, Any], write: Callable[[Path], None]
) -> Entry:
    """The entry `cache/<name>-<key>`, the key a hash of everything that determines it; made where absent or damaged.

    It is written under a temporary name and renamed, under a lock. So concurrent processes are safe, and an interrupted
    one leaves no entry.

    Args:
        entry: the class of the entry.
        cache: the folder of entries.
        name: readable name of the prepared data.
        described: everything that determines the entry.
        write: writes all files of the entry into an empty directory, the metadata last.

    Raises:
        SubflError: the cache cannot be written, or what `write` raises.
    """
    key = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]
    directory = cache / f"{name}-{key}"
    prepared = _opened(entry, directory)
    if prepared is not None:
        return prepared
    try:
        make_private_folder(cache)
        with FileLock(cache / f".{directory.name}.lock"):
            prepared = _opened(entry, directory)
            if prepared is None:
                _remove(directory)
                with new_folder(directory) as unfinished:
                    write(unfinished)
                prepared = entry.open(directory)
        return prepared
    except OSError as error:
        raise SubflError(f"the prepared partition cannot be written to {directory}: {error}") from error


def _opened(entry: type[Entry], directory: Path) -> Entry | None:
    """The entry, its content checked; None where it is absent or damaged."""
    try:
        prepared = entry.open(directory)
        prepared.verify()
        return prepared
    except SubflError:
        return None


def _remove(directory: Path) -> None:
    """Remove a damaged entry, and what killed processes have left of it; the caller holds its lock."""
    for path in (directory, *directory.parent.glob(f".{directory.name}.*.{UNFINISHED}")):
        shutil.rmtree(path, ignore_errors=True)
