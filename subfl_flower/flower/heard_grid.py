"""A grid that remembers when each node was heard last."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class HeardGrid(Grid):
    """Another grid, all of whose messages pass through here.

    Args:
        grid: the connection to the nodes.
        clock: the time of day, in seconds.

    Attributes:
        heard: time of day of each node's last reply, by node. A reply that the SuperLink makes for a node that does not
            answer is none.
        connected: the nodes that were connected when the run looked last.
        on_reply: is called after replies.
    """

    def __init__(self, grid: Grid, clock: Callable[[], float] = time.time) -> None:
        self._grid, self._clock = grid, clock
        self.heard: dict[int, float] = {}
        self.connected: frozenset[int] = frozenset()
        self.on_reply: Callable[[], None] = lambda: None
        self._asked: set[int] = set()

    def set_run(self, run: Run) -> None:
        """See `Grid`."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """See `Grid`."""
        return self._grid.run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """See `Grid`."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """See `Grid`; they are noted."""
        self.connected = frozenset(self._grid.get_node_ids())
        return list(self.connected)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See `Grid`; the nodes are noted."""
        messages = list(messages)
        self._asked.update(message.metadata.dst_node_id for message in messages)
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See `Grid`; the time of each reply is noted."""
        replies = list(self._grid.pull_messages(message_ids))
        for reply in replies:
            if reply.metadata.src_node_id in self._asked:  # the SuperLink replies under its number
                self.heard[reply.metadata.src_node_id] = self._clock()
        if replies:
            self.on_reply()
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See `Grid`."""
        return self._grid.send_and_receive(messages, timeout=timeout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)
