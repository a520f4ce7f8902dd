"""Memory of the masks that a client has made: two uploads under the same masks would reveal their difference.

A client derives masks from a shared key and a context that the server states. So the client remembers every context,
in a place that a server cannot turn back by naming an earlier round, and refuses one that it has used.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from subfl_flower.errors import SubflError
from subfl_flower.node.kept_arrays import KeptArrays

_KEPT = "used-contexts"
_ROUND = 0
"""Arrays of round 0 are those of all rounds."""

_DIGEST_BYTES = 16


def claim(kept: KeptArrays, client_ids: Sequence[int], context: bytes, question: bytes | None = None) -> None:
    """Remember that clients make masks for a context; to be called before the masks leave.

    Where one of them may not make them, nothing is remembered of any.

    Args:
        kept: store of the clients' arrays.
        client_ids: ids of the clients.
        context: context that the masks are derived with.
        question: all that the uploads depend on; the same question may then be answered again. None: never again.

    Raises:
        SubflError: a client has made masks for the context before, in answer to another question.
    """
    now = np.stack([_digest(context), _digest(b"" if question is None else question)])
    known = {client_id: _used(kept, client_id) for client_id in client_ids}
    before = {client_id: used[(used[:, 0] == now[0]).all(axis=1)] for client_id, used in known.items()}
    for client_id, entries in before.items():
        if len(entries) and (question is None or not (entries[0, 1] == now[1]).all()):
            raise SubflError(
                f"client {client_id} has made these masks before, for another upload; under masks that are used twice "
                "the server would see the difference"
            )
    for client_id, used in known.items():
        if not len(before[client_id]):
            kept.put(client_id, _KEPT, _ROUND, {"used": np.concatenate([used, now[None]])})


def _used(kept: KeptArrays, client_id: int) -> np.ndarray:
    """Digests of a client's contexts and questions so far, uint8 `[n, 2, 16]`."""
    if kept.round_of(client_id, _KEPT) is None:
        return np.zeros((0, 2, _DIGEST_BYTES), dtype=np.uint8)
    return kept.get(client_id, _KEPT)["used"]


def _digest(values: bytes) -> np.ndarray:
    return np.frombuffer(blake2b(values, digest_size=_DIGEST_BYTES).digest(), dtype=np.uint8)
