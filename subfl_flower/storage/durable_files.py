"""Files that are whole or absent whatever happens: written beside their place, forced to the disk, then renamed."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Replace `path` by `content` in one step; a failure leaves what was there.

    Args:
        path: of the file, in a folder that exists.
        content: all of it.
        mode: permissions, before the umask takes its share.

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
