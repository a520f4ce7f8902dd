"""Flower's grid in one process: the ClientApp handles messages as they are sent.

The apps, their messages and their errors are those of any other runtime. There are no ports, no polling and no other
processes.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging import ERROR

from flwr.app import Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from subfl_flower.errors import SubflError
from subfl_flower.flower.log import log


@contextmanager
def task_identity_given_back() -> Iterator[None]:
    """Give this process back the task identity that it had: Flower's messages need one, and there is one a process."""
    before = (TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id)
    try:
        yield
    finally:
        TaskIdentity._task_id, TaskIdentity._run_id, TaskIdentity._node_id = before


class InlineGrid(Grid):
    """A grid of `num_nodes` virtual nodes that run `client_app` in this process, one after another."""

    _RUN_ID = 1

    def __init__(self, client_app: ClientApp, num_nodes: int) -> None:
        self._client_app = client_app
        self._contexts = {
            node: Context(
                run_id=self._RUN_ID,
                node_id=node,
                node_config={"partition-id": node - 1, "num-partitions": num_nodes},
                state=RecordDict(),
                run_config={},
            )
            for node in range(1, num_nodes + 1)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0
        self._run = Run.create_empty(self._RUN_ID)

    @contextmanager
    def active(self) -> Iterator[InlineGrid]:
        """Give this process the task identity that Flower's messages need."""
        with task_identity_given_back():
            TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, self._RUN_ID, 1
            yield self

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """A message to a node; Flower prefers ``Message(...)``."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """The virtual nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Handle messages at once and keep the replies."""
        ids = []
        for message in messages:
            self._sent += 1
            message.metadata.__dict__["_message_id"] = str(self._sent)
            self._replies[str(self._sent)] = self._handle(message)
            ids.append(str(self._sent))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Replies to the given messages, each once."""
        return [self._replies.pop(message_id) for message_id in message_ids if message_id in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Handle messages and return the replies, without waiting."""
        return self.pull_messages(self.push_messages(messages))

    def _handle(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        TaskIdentity.node_id = node
        try:
            reply = self._client_app(message=message, context=self._contexts[node])
        except Exception as error:
            if not isinstance(error, SubflError):
                log(ERROR, "%s", traceback.format_exc())
            reason = str(error) if isinstance(error, SubflError) else f"{type(error).__name__}: {error}"
            reply = Message(Error(code=ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason=reason), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node
        return reply
