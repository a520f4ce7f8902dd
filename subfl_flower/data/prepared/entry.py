"""Directories of prepared data, with checksums, written once and whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from filelock import FileLock

from subfl_flower.doors import DoorSettings
from subfl_flower.errors import SubflError
from subfl_flower.storage.checksums import sha256_of
from subfl_flower.storage.durable_files import make_private_folder, write_durably

_METADATA = "metadata.json"

Entry = TypeVar("Entry", bound="PreparedEntry")


class PreparedEntry:
    """A prepared directory. A file is checked against the size and sha256 in the metadata when it is read.

    Attributes:
        directory: the directory of the files.
        metadata: content of `metadata.json`.
    """

    schema: ClassVar[int]

    def __init__(self, directory: Path, metadata: dict[str, Any]) -> None:
        self.directory = directory
        self.metadata = metadata
        self._verified_files: set[str] = set()

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
            sizes = {name: entry["bytes"] for name, entry in metadata["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SubflError(f"{path} is missing or damaged; prepare the partition again") from error
        if schema != cls.schema:
            raise SubflError(f"{path} has the schema {schema}, this version reads {cls.schema}; prepare it again")
        for name, size in sizes.items():
            file = directory / name
            if not file.is_file() or file.stat().st_size != size:
                raise SubflError(f"{file} is missing or not whole; prepare the partition again")
        return cls(directory, metadata)

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

    def verified(self, name: str) -> Path:
        """The path of a file whose content has been checked, once for this object.

        Raises:
            SubflError: the file is damaged.
        """
        path = self.directory / name
        if name not in self._verified_files:
            if sha256_of(path) != self.metadata["files"][name]["sha256"]:
                raise SubflError(f"{path} is damaged (its checksum differs); prepare the partition again")
            self._verified_files.add(name)
        return path


def described_settings(dataset: DoorSettings, partition: DoorSettings) -> dict[str, Any]:
    """Settings that determine a prepared directory, with the versions of code outside this project.

    The training length of a data set (`protocol`) is left out, since it does not affect the data.

    Raises:
        SubflError: a class outside this project states no version and has no source file.
    """
    described: dict[str, Any] = {
        "dataset": dataset.model_dump(mode="json", exclude={"protocol"}),
        "partition": partition.model_dump(mode="json"),
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
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in sorted(directory.iterdir())
    }
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
                _make(directory, write)
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


def _make(directory: Path, write: Callable[[Path], None]) -> None:
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a killed process: this process holds the lock
    try:
        make_private_folder(unfinished)
        write(unfinished)
        if directory.exists():
            shutil.rmtree(directory)
        unfinished.replace(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
