"""Checksums of files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from subfl_flower.errors import SubflError


def sha256_of(path: Path) -> str:
    """The hexadecimal sha256 of a file's content.

    Raises:
        SubflError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise SubflError(f"{path} cannot be read: {error.strerror or error}") from error
