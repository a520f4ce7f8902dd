"""Arrays that a client keeps between messages, under a name and a round; their sizes differ by client.

The state that every round changes is in `subfl_flower.node.state`. In addition, some methods send a client arrays once,
or every few rounds, that it must keep: sums over neighbours elsewhere, nodes that its graph is mended by. Their sizes
are not known beforehand.

A later round's arrays replace an earlier one's. Where a federation may go back to a checkpoint, a message finds the
arrays that were kept last in its round or before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Protocol

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict

from subfl_flower.errors import SubflError
from subfl_flower.runs.files import writing
from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file

Arrays = Mapping[str, np.ndarray]

Entry = tuple[int, str, int]
"""A client's id, the name of what it keeps, and the round in which it was kept."""


class KeptArrays(Protocol):
    """Store of clients' arrays between messages."""

    def put(self, client_id: int, name: str, server_round: int, arrays: Arrays) -> None:
        """Keep arrays, and replace those under the same name."""

    def round_of(self, client_id: int, name: str) -> int | None:
        """The round whose arrays are kept; None where there are none. The call costs almost nothing."""

    def get(self, client_id: int, name: str) -> Arrays:
        """The kept arrays.

        Raises:
            SubflError: there are none, or they are damaged.
        """

    def entries(self, client_ids: Sequence[int]) -> list[Entry]:
        """All arrays that these clients keep."""


class KeptInMemory:
    """Store of arrays in this process."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], tuple[int, Arrays]] = {}

    def put(self, client_id: int, name: str, server_round: int, arrays: Arrays) -> None:
        """Keep arrays, and replace those under the same name."""
        self._kept[client_id, name] = server_round, arrays

    def round_of(self, client_id: int, name: str) -> int | None:
        """The round whose arrays are kept."""
        return self._kept[client_id, name][0] if (client_id, name) in self._kept else None

    def get(self, client_id: int, name: str) -> Arrays:
        """The kept arrays."""
        if (client_id, name) not in self._kept:
            raise _nothing(client_id, name)
        return self._kept[client_id, name][1]

    def entries(self, client_ids: Sequence[int]) -> list[Entry]:
        """All arrays that these clients keep."""
        return [(client, name, kept[0]) for (client, name), kept in self._kept.items() if client in set(client_ids)]


class KeptInContext:
    """Store of arrays in the records of a Flower context, which travels with every message."""

    def __init__(self, records: RecordDict) -> None:
        self._records = records

    def put(self, client_id: int, name: str, server_round: int, arrays: Arrays) -> None:
        """Keep arrays, and replace those under the same name."""
        earlier = self._key(client_id, name)
        if earlier is not None:
            del self._records[earlier]
        record = ArrayRecord({key: Array(np.ascontiguousarray(values)) for key, values in arrays.items()})
        self._records[f"{_stem(client_id, name)}-{server_round}"] = record

    def round_of(self, client_id: int, name: str) -> int | None:
        """The round whose arrays are kept."""
        key = self._key(client_id, name)
        return None if key is None else int(key.rpartition("-")[2])

    def get(self, client_id: int, name: str) -> Arrays:
        """The kept arrays."""
        key = self._key(client_id, name)
        if key is None:
            raise _nothing(client_id, name)
        return {name: array.numpy() for name, array in self._records.array_records[key].items()}

    def entries(self, client_ids: Sequence[int]) -> list[Entry]:
        """All arrays that these clients keep."""
        return _entries(self._records.array_records, client_ids)

    def _key(self, client_id: int, name: str) -> str | None:
        stem = _stem(client_id, name)
        return next((key for key in self._records.array_records if key.rpartition("-")[0] == stem), None)


class KeptCard(Card):
    """The origin of kept arrays.

    Attributes:
        client: id of the client.
        name: of what is kept.
        round: in which it was kept.
    """

    holds: ClassVar[str] = "arrays that a client kept"

    kind: Literal["kept_arrays"] = "kept_arrays"
    client: int
    name: str
    round: int


class KeptInFiles:
    """Store of arrays in files, each written in one step.

    Args:
        folder_of: the folder of a client's files, by its id.
        now: the round of the message; arrays of later rounds are not seen. None: the newest are.
        checkpoint: the last round that the server can go back to. Older files are removed, except the newest that the
            server would find there.
    """

    def __init__(self, folder_of: Callable[[int], Path], now: int | None = None, checkpoint: int | None = None) -> None:
        self._folder_of = folder_of
        self._now = now
        self._checkpoint = checkpoint

    def put(self, client_id: int, name: str, server_round: int, arrays: Arrays) -> None:
        """Keep arrays, and replace those under the same name.

        Raises:
            SubflError: the file cannot be written.
        """
        path = self._folder_of(client_id) / f"{_stem(client_id, name)}-{server_round:06d}.safetensors"
        write_tensor_file(path, arrays, KeptCard(client=client_id, name=name, round=server_round))
        with writing(path):
            self._remove_unneeded(client_id, name, server_round)

    def round_of(self, client_id: int, name: str) -> int | None:
        """The round whose arrays are kept."""
        return max(self._seen(client_id, name), default=None)

    def get(self, client_id: int, name: str) -> Arrays:
        """The kept arrays."""
        files = self._seen(client_id, name)
        if not files:
            raise _nothing(client_id, name)
        path = files[max(files)]
        return read_tensor_file(path, KeptCard)[0]

    def entries(self, client_ids: Sequence[int]) -> list[Entry]:
        """All arrays that these clients keep."""
        folders = dict.fromkeys(map(self._folder_of, client_ids))
        return _entries((path.stem for folder in folders for path in folder.glob("kept-*.safetensors")), client_ids)

    def _seen(self, client_id: int, name: str) -> dict[int, Path]:
        files = self._files(client_id, name)
        return {number: path for number, path in files.items() if self._now is None or number <= self._now}

    def _files(self, client_id: int, name: str) -> dict[int, Path]:
        stem = _stem(client_id, name)
        found = {}
        for path in self._folder_of(client_id).glob(f"{stem}-*.safetensors"):
            if match := re.fullmatch(re.escape(stem) + r"-(\d+)", path.stem):
                found[int(match[1])] = path
        return found

    def _remove_unneeded(self, client_id: int, name: str, server_round: int) -> None:
        files = self._files(client_id, name)
        oldest = server_round if self._checkpoint is None else min(self._checkpoint, server_round)
        restart = max((number for number in files if number <= oldest), default=-1)
        for number, path in files.items():
            if number < restart or number > server_round:
                path.unlink(missing_ok=True)


def _stem(client_id: int, name: str) -> str:
    return f"kept-{client_id:04d}-{name}"


def _entries(keys: Iterable[str], client_ids: Sequence[int]) -> list[Entry]:
    """The entries among some keys, each a stem and a round."""
    matches = (re.fullmatch(r"kept-(-?\d+)-(.+)-(\d+)", key) for key in keys)
    found = [(int(match[1]), match[2], int(match[3])) for match in matches if match]
    return [entry for entry in found if entry[0] in set(client_ids)]


def _nothing(client_id: int, name: str) -> SubflError:
    return SubflError(f"client {client_id} keeps no {name}")
