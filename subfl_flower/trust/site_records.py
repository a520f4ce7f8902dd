"""Records that a site keeps of the orders that it has heard, so that none is carried out twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import make_private_folder, write_durably
from subfl_flower.storage.folder_lock import folder_lock
from subfl_flower.trust.orders import Order


@dataclass(frozen=True)
class Heard:
    """Orders of one run that a site has heard.

    Attributes:
        attempt: the highest.
        number: the highest of that attempt.
        rounds: number of orders to train.
        answers: number of orders whose answers hold something of the site's data.
    """

    attempt: int = 0
    number: int = 0
    rounds: int = 0
    answers: int = 0

    def after(self, order: Order) -> Heard:
        """The record with a further order.

        Raises:
            SubflError: the order is not newer than those before.
        """
        if order.attempt < self.attempt:
            raise SubflError(
                f"an order of attempt {order.attempt} of run {order.run_id} is refused: this site has heard attempt "
                f"{self.attempt}, which the run's last resume opened"
            )
        if order.attempt == self.attempt and order.number <= self.number:
            raise SubflError(
                f"order {order.number} of run {order.run_id} is refused: this site has carried it out, or a later one "
                f"(number {self.number} of attempt {self.attempt})"
            )
        return replace(self, attempt=order.attempt, number=order.number)


class SiteRecords:
    """A file for each run that a site has heard of.

    Args:
        folder: of the files; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other messages' processes from these records during the block.

        Raises:
            SubflError: the folder cannot be made.
        """
        try:
            make_private_folder(self.folder)
        except OSError as error:
            raise SubflError(f"cannot write {self.folder}: {error.strerror or error}") from error
        with folder_lock(self.folder, wait=True):
            yield

    def of(self, run_id: str) -> Heard:
        """The record of a run; an empty one of a run that is new.

        Raises:
            SubflError: its file is damaged.
        """
        path = self._path(run_id)
        if not path.exists():
            return Heard()
        try:
            found = Heard(**json.loads(path.read_bytes()))
            if any(type(value) is not int or value < 0 for value in asdict(found).values()):
                raise ValueError("a value is not a whole number")
        except (OSError, ValueError, TypeError) as error:
            raise SubflError(f"{path} is damaged ({error}): this site cannot tell which orders it has heard") from None
        return found

    def all(self) -> dict[str, Heard]:
        """The records of all runs, by run.

        Raises:
            SubflError: a file is damaged.
        """
        return {path.stem: self.of(path.stem) for path in sorted(self.folder.glob("*.json"))}

    def keep(self, run_id: str, heard: Heard) -> None:
        """Replace the record of a run; it is on the disk when this returns.

        Raises:
            SubflError: it cannot be written.
        """
        path = self._path(run_id)
        try:
            write_durably(path, json.dumps(asdict(heard)).encode() + b"\n")
        except OSError as error:
            raise SubflError(f"cannot write {path}: {error.strerror or error}") from error

    def _path(self, run_id: str) -> Path:
        return self.folder / f"{run_id}.json"
