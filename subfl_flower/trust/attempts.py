"""Attempts of a run: its start, and each time that it is resumed."""

from __future__ import annotations

import json
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder, write_durably

_FILE = "attempt.json"


def open_attempt(folder: Path) -> int:
    """The number of a new attempt, higher than all before; it is on the disk when this returns.

    Args:
        folder: the run's folder for checkpoints, made if need be.

    Raises:
        SubflError: the file is damaged, or cannot be written.
    """
    path = folder / _FILE
    try:
        before = json.loads(path.read_bytes())["attempt"] if path.exists() else 0
        if type(before) is not int or before < 0:
            raise ValueError("no whole number")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SubflError(
            f"{path} is damaged ({error}): sites refuse a run whose attempts begin again; write "
            '{"attempt": N} into it, where N is the highest that a site has heard'
        ) from None
    try:
        make_private_folder(folder)
        write_durably(path, json.dumps({"attempt": before + 1}).encode() + b"\n")
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}") from error
    return before + 1
