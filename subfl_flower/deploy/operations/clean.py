"""Remove what runs have left: states and models on nodes, checkpoints and folders of runs on the server's machine.

Only files that are known to be a run's are removed. Keys, the matcher's record of opened boxes, and all that protects
later runs stay whatever their age.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.storage.folder_lock import folder_lock
from subfl_flower.storage.tensor_file import MODEL_FILE

_SECONDS_A_DAY = 86_400.0
_STATE = "state"
_OF_A_NODE = (MODEL_FILE, "model.json", "data.json")
"""Files of a run on a node, besides its folder of states."""


@dataclass(frozen=True)
class Leftover:
    """Something that a run left and does not need.

    Attributes:
        run: the run's folder.
        paths: files and folders to remove.
        days: age of the newest file of the run.
        size: bytes of `paths`.
    """

    run: Path
    paths: tuple[Path, ...]
    days: float
    size: int

    def remove(self) -> None:
        """Remove it; the run's folder, too, where nothing is left in it.

        Raises:
            SubflError: something cannot be removed.
        """
        try:
            for path in self.paths:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            if not any(self.run.iterdir()):
                self.run.rmdir()
        except OSError as error:
            raise SubflError(f"{self.run} cannot be removed: {error.strerror or error}") from error


def leftovers(
    states: Sequence[Path], outputs: Sequence[Path], days: int, everything: bool, now: float | None = None
) -> list[Leftover]:
    """Find what runs have left that were last written to so many days ago.

    Args:
        states: folders of nodes: clients' folders, or those of `subfl deploy supernode --state`.
        outputs: folders of the server's machine with runs' folders below them.
        days: least age.
        everything: also clients' models, and whole folders of runs.
        now: the time of day, in seconds; None takes the present one.

    Raises:
        SubflError: a folder does not exist.
    """
    found: list[Leftover] = []
    now = time.time() if now is None else now
    for folder in (*states, *outputs):
        if not folder.is_dir():
            raise SubflError(f"{folder}: there is no such folder")
    for folder in states:
        for run in _runs_of_a_node(folder):
            paths = [run / _STATE, *((run / name for name in _OF_A_NODE) if everything else ())]
            found += _old(run, paths, days, now)
    for folder in outputs:
        for run in _runs_of_the_server(folder):
            records = RunDirectory(run)
            found += _old(run, records.files() if everything else [records.checkpoint_folder], days, now)
    return found


def _runs_of_a_node(folder: Path) -> Iterator[Path]:
    """The folders of runs in a client's folder, or in those of all clients of a node."""
    for pattern in ("runs/*", "client-*/runs/*"):
        yield from (run for run in sorted(folder.glob(pattern)) if run.is_dir() and not run.is_symlink())


def _runs_of_the_server(folder: Path) -> Iterator[Path]:
    """Folders of runs that no process trains."""
    for run in sorted({file.parent for name in ("metrics.jsonl", "summary.json") for file in folder.rglob(name)}):
        with folder_lock(run, wait=False) as ours:
            if ours:
                yield run


def _old(run: Path, paths: Sequence[Path], days: int, now: float) -> list[Leftover]:
    there = tuple(path for path in paths if path.exists())
    newest = max((file.stat().st_mtime for file in run.rglob("*") if file.is_file()), default=now)
    age = (now - newest) / _SECONDS_A_DAY
    if not there or age < days:
        return []
    files = [file for path in there for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return [Leftover(run, there, age, sum(file.stat().st_size for file in files))]
