"""Delivery of messages to nodes, and the wait for their replies.

Flower's own loop over the network looks for replies every three seconds; a round is one such wait.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from flwr.app import Message
from flwr.serverapp import Grid


def send_and_wait(grid: Grid, messages: Sequence[Message], timeout: float | None, interval: float) -> list[Message]:
    """The replies to `messages` that arrive within `timeout` seconds (None: all of them).

    Args:
        grid: the connection to the nodes.
        messages: at most one a node.
        timeout: seconds to wait altogether.
        interval: seconds between two polls for replies.
    """
    if not messages:
        return []
    deadline = None if timeout is None else time.monotonic() + timeout
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
            if reply.has_error() and node is not None:
                # The SuperLink replies for a node that does not answer; its reply concerns that node.
                reply.metadata.__dict__["_src_node_id"] = node
            replies.append(reply)
        if not waiting or (deadline is not None and time.monotonic() >= deadline):
            break
        time.sleep(interval if deadline is None else min(interval, max(0.0, deadline - time.monotonic())))
    return replies
