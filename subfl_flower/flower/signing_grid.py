"""A grid that signs every message to a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.run import Run


class SigningGrid(Grid):
    """Another grid, whose messages to nodes are signed first.

    Args:
        grid: the connection to the nodes.
        sign: signs a message, given its number among all, from 1.
    """

    def __init__(self, grid: Grid, sign: Callable[[Message, int], None]) -> None:
        self._grid, self._sign = grid, sign
        self._signed = 0

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        """A message to a node; Flower prefers ``Message(...)``."""
        return self._grid.create_message(*arguments, **named)

    def get_node_ids(self) -> Iterable[int]:
        """The connected nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Sign messages and send them; their identifiers."""
        return self._grid.push_messages(self._all_signed(messages))

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to the given messages that have arrived."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Sign messages, send them and wait for the replies."""
        return self._grid.send_and_receive(self._all_signed(messages), timeout=timeout)

    def _all_signed(self, messages: Iterable[Message]) -> list[Message]:
        signed = list(messages)
        for message in signed:
            self._signed += 1
            self._sign(message, self._signed)
        return signed
