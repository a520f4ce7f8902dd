"""Rosters and replies of two or three toy clients, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from subfl_flower.runtime.roster import Roster
from subfl_flower.runtime.strategy import Updates


def toy_roster(*num_examples: int, overlapping: bool = False) -> Roster:
    clients = tuple(range(len(num_examples)))
    sizes = np.array(num_examples, dtype=float)
    return Roster(clients, clients, sizes, 5 * sizes, 20 * sizes, 2, 2, overlapping)


def replies(positions: Sequence[int], clients: int, **arrays: Any) -> Updates:
    """One round in which the clients at `positions` sent the rows of `arrays`."""
    return Updates(
        server_round=1,
        positions=np.array(positions),
        arrays={name.replace("__", "."): np.array(rows, dtype=np.float32) for name, rows in arrays.items()},
        metrics={"num_examples": np.ones(len(positions))},
        failures={},
        bytes_up=np.zeros(clients, dtype=np.int64),
        bytes_down=np.zeros(clients, dtype=np.int64),
        client_seconds=0.0,
    )
