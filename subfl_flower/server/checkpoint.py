"""Checkpoints, from which the server goes on after a crash: one file, replaced in one step.

`checkpoint/server.safetensors` of a run directory holds the strategy's state, and in its metadata the number of the
last finished round and the clients. The rounds themselves are in `metrics.jsonl`. Clients' personal state stays with
them; see `state.DurableStore`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably
from subfl_flower.wire.payload import Stack
from subfl_flower.wire.roster import SIZES, Roster

_SCHEMA = 2
_FILE = "server.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """A run after one of its rounds.

    Attributes:
        run_id: of the run; clients keep their states under it.
        server_round: the last finished round; 0 before the first.
        roster: the clients. Their nodes are not kept.
        strategy: the strategy's state; see `CohortStrategy.state`.
        exchanges: the log of the phases before the first round.
        seconds: wall-clock time spent so far.
    """

    run_id: str
    server_round: int
    roster: Roster
    strategy: Stack
    exchanges: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def write(self, folder: Path) -> None:
        """Replace the checkpoint in `folder`.

        Raises:
            SubflError: it cannot be written; the earlier one is then still there.
        """
        # What is one row in memory, as FedAvg's parameters are, is one row on disk.
        repeated = {name: len(value) for name, value in self.strategy.items() if _is_repeated(value)}
        arrays = {
            name: np.array(value[:1] if name in repeated else value, order="C") for name, value in self.strategy.items()
        }
        about = {
            "schema": _SCHEMA,
            "run_id": self.run_id,
            "round": self.server_round,
            "roster": _plain_roster(self.roster),
            "exchanges": self.exchanges,
            "seconds": self.seconds,
            "repeated": repeated,
        }
        path = folder / _FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_durably(path, save(arrays, {"checkpoint": json.dumps(about)}))
            for unfinished in folder.glob(f".{_FILE}.*"):  # of a process that was killed
                unfinished.unlink(missing_ok=True)
        except OSError as error:
            raise SubflError(f"cannot write {path}: {error.strerror or error}") from error

    @classmethod
    def read(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`.

        Raises:
            SubflError: there is none, or it is damaged or of another version.
        """
        path = folder / _FILE
        if not path.is_file():
            raise SubflError(
                f"{path} does not exist: the run left no checkpoint (record.checkpoint_every), so it can only be "
                "started anew"
            )
        try:
            with safe_open(path, framework="numpy") as file:
                about = json.loads((file.metadata() or {})["checkpoint"])
                if about["schema"] != _SCHEMA:
                    raise SubflError(f"{path} has the schema {about['schema']}; this version reads {_SCHEMA}")
                strategy = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            for name, count in about["repeated"].items():
                strategy[name] = np.broadcast_to(strategy[name], (count, *strategy[name].shape[1:]))
            return cls(
                run_id=str(about["run_id"]),
                server_round=int(about["round"]),
                roster=_roster(about["roster"]),
                strategy=strategy,
                exchanges=list(about["exchanges"]),
                seconds=float(about["seconds"]),
            )
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise SubflError(f"{path} is not a checkpoint ({type(error).__name__}: {error})") from None


def _is_repeated(value: np.ndarray) -> bool:
    return value.ndim > 0 and len(value) > 1 and value.strides[0] == 0


def _plain_roster(roster: Roster) -> dict[str, Any]:
    sizes = {key: [None if np.isnan(value) else value for value in getattr(roster, key).tolist()] for key in SIZES}
    return {
        "client_ids": list(roster.client_ids),
        **sizes,
        "num_features": roster.num_features,
        "num_classes": roster.num_classes,
        "overlapping": roster.overlapping,
        "user_values": list(roster.user_values),
        "item_values": list(roster.item_values),
    }


def _roster(plain: Mapping[str, Any]) -> Roster:
    ids = tuple(int(client) for client in plain["client_ids"])
    sizes = {key: np.array([np.nan if value is None else value for value in plain[key]], dtype=float) for key in SIZES}
    if any(len(values) != len(ids) for values in sizes.values()):
        raise ValueError("its roster has not one size for each client")
    return Roster(
        client_ids=ids,
        node_ids=(None,) * len(ids),
        **sizes,  # type: ignore[arg-type]
        num_features=int(plain["num_features"]),
        num_classes=int(plain["num_classes"]),
        overlapping=bool(plain["overlapping"]),
        user_values=tuple(int(size) for size in plain.get("user_values", ())),
        item_values=tuple(int(size) for size in plain.get("item_values", ())),
    )
