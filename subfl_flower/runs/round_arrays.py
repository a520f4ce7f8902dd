"""Arrays that a run keeps of some of its rounds."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subfl_flower.errors import SubflError
from subfl_flower.runs.files import read_file, write_whole

_ROUND_ARRAY = "round_"


@dataclass(frozen=True, eq=False)
class Clustering:
    """Clusters of K users as of one round.

    Attributes:
        client_ids: int64 `[K]`, distinct.
        labels: int64 `[K]`, each user's cluster; -1 for users without one.
        points: float32 `[K, 2]`, positions in a plot; not finite for users without a position.
    """

    client_ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    points: NDArray[np.float32]


class RoundArrays:
    """Arrays of some rounds in one NumPy archive, which is replaced in one step.

    Args:
        path: the archive; absent as long as it holds no round.
        what: name of the content, for the sentence of an error.
    """

    def __init__(self, path: Path, what: str) -> None:
        self._path, self._what = path, what
        self._rounds: dict[int, dict[str, NDArray[Any]]] | None = None

    def add(self, round: int, arrays: dict[str, NDArray[Any]]) -> None:
        """Add or replace a round's arrays by name ("" for a single one). The arrays must not be modified afterwards."""
        if self._rounds is None:
            self._rounds = self._read()
        self._rounds[round] = arrays
        self._write()

    def cut(self, server_round: int) -> None:
        """Remove the arrays of later rounds."""
        self._rounds = {number: arrays for number, arrays in self._read().items() if number <= server_round}
        if self._rounds:
            self._write()
        else:
            self._path.unlink(missing_ok=True)

    def read(self, *names: str) -> dict[int, dict[str, NDArray[Any]]]:
        """The arrays of these names on disk, by round, ascending.

        Raises:
            SubflError: the file is damaged, or a round lacks one of them.
        """
        rounds = self._read()
        try:
            return {number: {name: rounds[number][name] for name in names} for number in sorted(rounds)}
        except KeyError as error:
            raise self._damaged(error) from None

    def _read(self) -> dict[int, dict[str, NDArray[Any]]]:
        rounds: dict[int, dict[str, NDArray[Any]]] = {}
        if not self._path.exists():
            return rounds
        try:
            with np.load(io.BytesIO(read_file(self._path)), allow_pickle=False) as file:
                for key in file.files:
                    number, _, name = key.removeprefix(_ROUND_ARRAY).partition(".")
                    rounds.setdefault(int(number), {})[name] = file[key]
        except Exception as error:  # zipfile, zlib and numpy each raise their own for damaged content
            raise self._damaged(error) from None
        return rounds

    def _damaged(self, error: Exception) -> SubflError:
        return SubflError(f"{self._path} is not a NumPy archive of {self._what}: {error}")

    def _write(self) -> None:
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {
            f"{_ROUND_ARRAY}{number:04d}" + (f".{name}" if name else ""): array
            for number, of_round in sorted((self._rounds or {}).items())
            for name, array in of_round.items()
        }
        np.savez(buffer, **arrays)
        write_whole(self._path, buffer.getvalue())


def check_clustering(clustering: Clustering, where: str) -> None:
    """Raise SubflError unless the arrays of a clustering fit each other."""
    ids, labels, points = clustering.client_ids, clustering.labels, clustering.points
    if ids.ndim != 1 or labels.shape != ids.shape or points.shape != (len(ids), 2):
        raise SubflError(
            f"{where}: clusters of users have ids [K], labels [K] and points [K, 2], "
            f"not {ids.shape}, {labels.shape} and {points.shape}"
        )
    if len(np.unique(ids)) < len(ids):
        raise SubflError(f"{where}: a client id comes twice in the clusters of users")
    if (labels < -1).any():
        raise SubflError(f"{where}: a user's cluster is 0 or more, or -1 for none, not {labels.min()}")
