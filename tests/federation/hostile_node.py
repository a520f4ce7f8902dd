"""A registered node that speaks to the SuperLink's fleet API by itself, and is up to no good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.app import Message
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.task_identity import TaskIdentity
from flwr.supernode.fleet_http_connection import http_request_response
from local_federation import wait_for

from subfl_flower.flower.inline_grid import task_identity_given_back


class HostileNode:
    """Connection of a node whose key is registered.

    Attributes:
        node_id: of the node.
    """

    def __init__(self, connection: Any) -> None:
        self.node_id, self._receive, self._send, *_, self._pull, self._push, self._confirm = connection

    @classmethod
    @contextmanager
    def connected(cls, address: str, ca: Path, key: Path) -> Iterator[HostileNode]:
        private: Any = load_ssh_private_key(key.read_bytes(), None)
        keys = (private, private.public_key())
        with (
            task_identity_given_back(),
            http_request_response(address, False, ca.read_bytes(), keys) as connection,
        ):
            yield cls(connection)

    def message(self) -> Message:
        """A message of the server to this node, once there is one."""
        found, tree = wait_for(self._receive, "the server sends the hostile node a message")
        run_id = found.metadata.run_id
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, run_id, self.node_id
        whole = pull_and_inflate_object_from_tree(
            tree,
            lambda name: self._pull(run_id, name),
            lambda name: self._confirm(run_id, name),
            return_type=Message,
        )
        whole.metadata.__dict__["_message_id"] = tree.object_id
        return whole

    def push(self, message: Message) -> None:
        """Send a message through the fleet API, in the server's name, to whichever node it names."""
        message.metadata.__dict__["_src_node_id"] = 1
        message.metadata.__dict__["_message_id"] = message.object_id
        pieces = get_all_nested_objects(message)
        wanted, upload = self._send(message, get_object_tree(message), 0.0)
        for name in wanted:
            self._push(message.metadata.run_id, upload, name, pieces[name].deflate())
