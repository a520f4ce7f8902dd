"""Delivery of messages to nodes, and the wait for their replies.

Flower's own loop over the network looks for replies every three seconds; a round is one such wait.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from logging import WARNING

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from subfl_flower.flower.log import log

_OF_NO_NODE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE, ErrorCode.NODE_UNAVAILABLE)


@dataclass(frozen=True)
class Stragglers:
    """Limit of the wait for nodes that are much slower than the others.

    Attributes:
        factor: once more than half of the nodes have answered, the others have `factor` times as long as these took.
        least: seconds that nodes have in any case.
    """

    factor: float
    least: float

    def deadline(self, start: float, now: float) -> float:
        """The time at which the wait ends, where half of the nodes have answered by now."""
        return start + max(self.least, self.factor * (now - start))


def send_and_wait(
    grid: Grid,
    messages: Sequence[Message],
    timeout: float | None,
    interval: float,
    stragglers: Stragglers | None = None,
) -> list[Message]:
    """The replies to `messages` that arrive within `timeout` seconds (None: all of them).

    Args:
        grid: the connection to the nodes.
        messages: at most one a node.
        timeout: seconds to wait altogether.
        interval: seconds between two polls for replies.
        stragglers: limit of the wait for slow nodes; None: only `timeout` limits it.
    """
    if not messages:
        return []
    start, answered = time.monotonic(), 0
    deadline = None if timeout is None else start + timeout
    nodes = [message.metadata.dst_node_id for message in messages]
    waiting = {
        message_id: node
        for message_id, node in zip(grid.push_messages(messages), nodes, strict=False)
        if message_id is not None
    }
    replies: list[Message] = []
    while waiting:
        for reply in grid.pull_messages(list(waiting)):
            node = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                said = "a reply in the name of node %d is ignored: it answers no message that waits for an answer"
                log(WARNING, said, reply.metadata.src_node_id)
                continue
            # A node writes itself who sent its reply, and the SuperLink replies for a node that does not answer.
            reply.metadata.__dict__["_src_node_id"] = node
            replies.append(reply)
            answered += not reply.has_error()
        if stragglers is not None and 2 * answered > len(messages):
            limit = stragglers.deadline(start, time.monotonic())
            deadline, stragglers = limit if deadline is None else min(deadline, limit), None
        if not waiting or (deadline is not None and time.monotonic() >= deadline):
            break
        time.sleep(interval if deadline is None else min(interval, max(0.0, deadline - time.monotonic())))
    return replies


def nobody_there(replies: Sequence[Message]) -> bool:
    """True where the SuperLink alone replied, if anybody did: no node has taken a message, or lived to answer it."""
    return all(reply.has_error() and reply.error.code in _OF_NO_NODE for reply in replies)
