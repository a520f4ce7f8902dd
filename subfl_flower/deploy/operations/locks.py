"""Locks by which a folder of states has one SuperNode, and a database one SuperLink."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.storage.folder_lock import lock_for_good


def lock_node(clients: Sequence[Path], state: Path | None) -> None:
    """Lock the folders that a SuperNode writes to, until it ends.

    Args:
        clients: the clients' folders.
        state: the folder for states; None where they lie with the data.

    Raises:
        SubflError: another SuperNode of this machine has one of them.
    """
    option, folders = ("--client", clients) if state is None else ("--state", [state])
    for folder in folders:
        if not lock_for_good(folder.resolve()):
            raise SubflError(f"{option} {folder}: another SuperNode of this machine writes to it; end that one first")


def lock_database(database: Path | None) -> None:
    """Lock a SuperLink's database, by a file beside it, until the SuperLink ends.

    Raises:
        SubflError: another SuperLink of this machine has it.
    """
    if database is None:
        return
    path = database.resolve()
    if not lock_for_good(path.with_name(f"{path.name}.lock")):
        raise SubflError(f"--database {database}: another SuperLink of this machine uses it; end that one first")
