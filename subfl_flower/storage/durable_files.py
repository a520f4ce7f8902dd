"""Files that are always whole or absent: written under a temporary name, forced to disk, then renamed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

PRIVATE_FILE, PRIVATE_FOLDER = 0o600, 0o700
"""Permissions of what its owner alone may read."""

PUBLIC_FILE = 0o666
"""Permissions of what is made to be shown, before the umask is applied."""


def write_durably(path: Path, content: bytes, mode: int = PRIVATE_FILE) -> None:
    """Replace `path` by `content` in one step; on failure the old file stays.

    Args:
        path: path of the file, in a folder that exists.
        content: the whole content.
        mode: permissions, before the umask is applied.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    force_to_disk(path.parent)


def private_opener(path: str, flags: int) -> int:
    """The opener of `open` for a file that its owner alone may read where it is made."""
    return os.open(path, flags, PRIVATE_FILE)


def make_private_folder(path: Path) -> None:
    """Make a folder, and the parents that it lacks, for its owner alone; folders that exist stay as they are.

    Raises:
        OSError: one of them cannot be made.
    """
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)


def force_to_disk(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, would survive a power cut.

    Raises:
        OSError: it cannot be opened, or the disk refuses.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
