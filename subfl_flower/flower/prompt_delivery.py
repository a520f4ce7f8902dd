"""Faster delivery in Flower's simulation engine, which otherwise sleeps between two polls for messages."""

from __future__ import annotations

import threading
import time
from typing import Any

# Longest time of one poll for messages; the engine notices its end between polls.
_LONGEST_LOOK = 0.25
# Messages of a round are stored one right after another; this lets the last ones in before the engine polls.
_BURST = 0.002


def deliver_promptly(grid: Any) -> None:
    """Let the engine wait for messages instead of polling every tenth of a second.

    The engine polls the state behind the grid for each node's messages in turn, and then always sleeps for 0.1 s. A
    round of a federation is one burst of messages, which waits 50 ms on average. Here the first poll of a turn returns
    as soon as a message is stored, and the engine sleeps while the nodes train. Only the two methods that store and
    hand out messages are wrapped, on this one object. A grid without them is not changed.
    """
    state = getattr(grid, "state", None)
    store, fetch = getattr(state, "store_message_ins", None), getattr(state, "get_message_ins", None)
    if store is None or fetch is None:
        return
    changed = threading.Condition()
    waiting_messages = 0
    first_node: int | None = None

    def store_message_ins(*args: Any, **kwargs: Any) -> Any:
        nonlocal waiting_messages
        stored = store(*args, **kwargs)
        with changed:
            waiting_messages += 1
            changed.notify_all()
        return stored

    def get_message_ins(node_id: int, limit: int | None) -> Any:
        nonlocal waiting_messages, first_node
        if first_node is None:
            first_node = node_id
        if node_id == first_node:
            with changed:
                waited = not waiting_messages and changed.wait_for(lambda: waiting_messages > 0, _LONGEST_LOOK)
            if waited:
                time.sleep(_BURST)
        found = fetch(node_id=node_id, limit=limit)
        with changed:
            waiting_messages = max(0, waiting_messages - len(found))
        return found

    state.store_message_ins = store_message_ins  # type: ignore[union-attr]
    state.get_message_ins = get_message_ins  # type: ignore[union-attr]
