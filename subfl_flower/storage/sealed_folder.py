"""Folders whose files are described, with checksums, and which are whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.errors import SubflError
from subfl_flower.storage.checksums import sha256_of
from subfl_flower.storage.durable_files import force_to_disk, make_private_folder

UNFINISHED = "unfinished"
"""End of the name of a folder that is being written; its name begins with a dot and the name that it will have."""


class FileEntry(BaseModel):
    """Size and checksum of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


@dataclass(frozen=True, eq=False)
class SealedFolder:
    """A folder, and the sizes and checksums of its files.

    Attributes:
        path: of the folder.
        files: entry of each file, by name.
        described_in: name of the file that states the entries, for errors.
        advice: how to mend the folder, for errors.
    """

    path: Path
    files: Mapping[str, FileEntry]
    described_in: str
    advice: str
    _verified: set[str] = field(default_factory=set)

    def require_sizes(self) -> None:
        """Refuse a folder that lacks a file, or where one has another size; contents are not read.

        Raises:
            SubflError: names the file.
        """
        for name, entry in self.files.items():
            file = self.path / name
            try:
                size = file.stat().st_size
            except OSError as error:
                raise SubflError(f"{file} cannot be read: {error.strerror or error}; {self.advice}") from None
            if size != entry.bytes:
                said = f"where {self.described_in} says {entry.bytes}"
                raise SubflError(f"{file} has {size} bytes, {said}; {self.advice}")

    def verified(self, name: str) -> Path:
        """The path of a file whose content has been checked, once for this object.

        Raises:
            SubflError: the file is damaged.
        """
        file = self.path / name
        if name not in self._verified:
            if sha256_of(file) != self.files[name].sha256:
                raise SubflError(f"{file} is damaged (its checksum differs); {self.advice}")
            self._verified.add(name)
        return file

    @property
    def fingerprint(self) -> str:
        """A sha256 over the checksums of all files, 64 hexadecimal digits."""
        files = sorted((name, entry.sha256) for name, entry in self.files.items())
        return hashlib.sha256(json.dumps(files).encode()).hexdigest()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A temporary folder to write into; it becomes `path` when the block ends, and is removed if the block fails.

    Raises:
        SubflError: `path` exists, or the folder cannot be written.
    """
    if path.exists():
        raise SubflError(f"{path} exists already; choose another folder, or remove it")
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.{UNFINISHED}")
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
