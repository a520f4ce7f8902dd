"""Locks on folders for the time that a process writes to them; they end with the process, however that dies."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_SECONDS_BETWEEN_TRIES = 0.2


def lock_for_good(path: Path) -> bool:
    """Lock a folder or a file for as long as this process lives, or the program that it is replaced by.

    Processes that it starts have no part in the lock. A file system without locks gives none.

    Args:
        path: an existing folder, or a file, which is made where it does not exist.

    Returns:
        False where another process has the lock.
    """
    if fcntl is None:
        return True
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    descriptor = os.open(path, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    except OSError:  # the file system has no locks
        pass
    os.set_inheritable(descriptor, True)
    return True


@contextmanager
def folder_lock(folder: Path, wait: bool) -> Iterator[bool]:
    """Lock a folder, and leave no file in it.

    A file system without locks gives none: the block then runs as if it had the lock.

    Args:
        folder: an existing folder.
        wait: wait for the process that has the lock.

    Yields:
        False where another process has the lock, and `wait` is false.
    """
    if fcntl is None:
        yield True
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    yield False
                    return
                time.sleep(_SECONDS_BETWEEN_TRIES)
                continue
            except OSError:  # the file system has no locks
                pass
            break
        yield True
    finally:
        os.close(descriptor)
