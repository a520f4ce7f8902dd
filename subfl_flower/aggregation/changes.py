"""Updates: what clients send, less what they were sent; their norms, and updates scaled back to a bound."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from subfl_flower.models.row_stack import RowStack, as_array

_FEWEST = 3
"""Clients among whom one can be told to be unusual."""

Stacks = Mapping[str, np.ndarray]


def norms(sent: Stacks, received: Stacks, kept_alone: bool = False) -> np.ndarray:
    """L2 norms of the updates of A clients over all arrays together, float64 [A].

    Args:
        sent: what clients sent [A, ...], by name.
        received: what each of them was sent, of the same shapes.
        kept_alone: True where an entry of zero was not sent, and is no part of the update.
    """
    num_clients = len(next(iter(sent.values()), ()))
    squares = np.zeros(num_clients)
    for name, values in sent.items():
        for client in range(num_clients):
            squares[client] += _square(_change(values, received[name], client, kept_alone))
    found: np.ndarray = np.sqrt(squares)
    return found


def scaled_back(sent: Stacks, received: Stacks, factors: np.ndarray, kept_alone: bool = False) -> dict[str, np.ndarray]:
    """Uploads with updates of `factors` [A] times their size; those with a factor of one as they are.

    Args:
        sent, received, kept_alone: as in `norms`.
        factors: at most 1.
    """
    shortened = np.flatnonzero(factors < 1).tolist()
    found = {}
    for name, values in sent.items():
        held = values if isinstance(values, RowStack) else None
        changed = np.array(values if held is None else held.values)
        for client in shortened:
            place = client if held is None else slice(held.ends[client] - held.counts[client], held.ends[client])
            before = received[name][client] if held is None else _rows_of(received[name], client, held.part(client)[0])
            change = _change(values, received[name], client, kept_alone)
            back = before + factors[client] * change.astype(np.float64)
            if kept_alone:
                back[changed[place] == 0] = 0
            changed[place] = back
        found[name] = changed if held is None else as_array(replace(held, values=changed))
    return found


def lower_median(values: np.ndarray) -> float:
    """The lower median of the values that are not zero; 0 where all are.

    Half of the clients and one more must be hostile to raise it above what an honest client sends.
    """
    known = np.sort(values[values > 0])
    return float(known[(len(known) - 1) // 2]) if len(known) else 0.0


def bound_factors(norms_of_updates: np.ndarray, multiple: float, usual: float) -> np.ndarray:
    """Factors [A] at most 1 that bring updates of more than `multiple` times the usual norm back to that norm.

    An update that is scaled back to the bound itself still outweighs several honest ones.

    Args:
        norms_of_updates: of the round.
        multiple: at least 1.
        usual: such as their lower median; 0 where there is none, and nothing is scaled.
    """
    factors: np.ndarray = np.ones(len(norms_of_updates))
    too_long = norms_of_updates > multiple * usual
    if usual:
        factors[too_long] = usual / norms_of_updates[too_long]
    return factors


def largest_size(stated: np.ndarray, multiple: float) -> float:
    """The size that clients may state, as a multiple of the lower median; infinite where fewer than three state one."""
    known = stated[stated > 0]  # of an unknown client it is not a number
    return multiple * lower_median(known) if len(known) >= _FEWEST else np.inf


def flat_changes(sent: Stacks, received: Stacks, kept_alone: bool = False) -> np.ndarray:
    """Updates of A clients, all arrays one after the other: float32 [A, P]."""
    parts = []
    for name, values in sent.items():
        change = np.asarray(values) - np.asarray(received[name])
        if kept_alone:
            change[np.asarray(values) == 0] = 0
        parts.append(change.reshape(len(values), -1))
    return np.concatenate(parts, axis=1)


def _change(sent: np.ndarray | RowStack, received: np.ndarray, client: int, kept_alone: bool) -> np.ndarray:
    """One client's update of one array; of a `RowStack`, of the rows that it holds."""
    if isinstance(sent, RowStack):
        index, own = sent.part(client)
        before = _rows_of(received, client, index)
    else:
        own, before = sent[client], received[client]
    change: np.ndarray = own - before
    if kept_alone:
        change = np.where(own != 0, change, np.float32(0))
    return change


def _rows_of(received: np.ndarray, client: int, index: np.ndarray) -> np.ndarray:
    """Some rows of what a client was sent; rows that a `RowStack` does not hold are zero."""
    if not isinstance(received, RowStack):
        rows: np.ndarray = received[client][index]
        return rows
    held, values = received.part(client)
    found = np.zeros((len(index), values.shape[1]), dtype=values.dtype)
    if len(held):
        place = np.minimum(np.searchsorted(held, index), len(held) - 1)
        same = held[place] == index
        found[same] = values[place[same]]
    return found


def _square(change: np.ndarray) -> float:
    flat = change.reshape(-1)
    with np.errstate(over="ignore"):
        square = float(flat @ flat)
    if np.isfinite(square):
        return square
    exact = flat.astype(np.float64)
    return float(exact @ exact)
