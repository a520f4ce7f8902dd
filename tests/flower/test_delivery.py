"""Sending and waiting: what comes in time is handed back, what comes late or never is not waited for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.error import Error
from flwr.clientapp import ClientApp

from subfl_flower.flower.delivery import Stragglers, nobody_there, send_and_wait
from subfl_flower.flower.inline_grid import InlineGrid

NODES = 4


class SlowGrid(InlineGrid):
    """Nodes whose replies can be pulled only at their `looks`-th look, and messages to some that are not taken."""

    def __init__(self, app: ClientApp, looks: dict[int, int], refusing: Iterable[int] = ()) -> None:
        super().__init__(app, NODES)
        self.looks, self.refusing = looks, set(refusing)
        self.node_of: dict[str, int] = {}
        self.pulls: list[list[int]] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:  # type: ignore[override]
        ids: list[str | None] = []
        for message in messages:
            if message.metadata.dst_node_id in self.refusing:
                ids.append(None)
            else:
                ids += super().push_messages([message])
                self.node_of[str(ids[-1])] = message.metadata.dst_node_id
        return ids  # type: ignore[return-value]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = list(message_ids)
        self.pulls.append(sorted(self.node_of[name] for name in asked))
        due = [name for name in asked if self.looks.get(self.node_of[name], 1) <= len(self.pulls)]
        return super().pull_messages(due)


@pytest.fixture
def app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return Message(RecordDict({"out": ConfigRecord({"node": context.node_id})}), reply_to=message)

    return app


@pytest.fixture(autouse=True)
def identity(task_identity: None) -> Iterator[None]:
    yield


def messages(*nodes: int) -> list[Message]:
    return [Message(RecordDict(), node, "train") for node in nodes]


def answered(replies: list[Message]) -> list[int]:
    return [int(reply.content.config_records["out"]["node"]) for reply in replies]  # type: ignore[arg-type]


def test_all_replies_are_waited_for_where_there_is_no_timeout(app: ClientApp) -> None:
    grid = SlowGrid(app, {1: 3, 2: 1, 3: 2, 4: 6})
    assert answered(send_and_wait(grid, messages(1, 2, 3, 4), None, 0.001)) == [2, 3, 1, 4]
    # Who has replied is not asked for again, and nobody looks once all are there.
    assert grid.pulls == [[1, 2, 3, 4], [1, 3, 4], [1, 4], [4], [4], [4]]


def test_late_replies_are_left_out(app: ClientApp) -> None:
    grid = SlowGrid(app, {2: 10**9, 4: 10**9})
    assert answered(send_and_wait(grid, messages(1, 2, 3, 4), 0.05, 0.01)) == [1, 3]
    assert len(grid.pulls) > 1 and all(pull == [2, 4] for pull in grid.pulls[1:])


def test_a_timeout_that_is_shorter_than_the_interval_ends_the_wait_with_a_last_look(app: ClientApp) -> None:
    """An interval of an hour: a wait that did not mind the timeout would never come back."""
    grid = SlowGrid(app, {1: 2, 2: 3})
    assert answered(send_and_wait(grid, messages(1, 2), 0.02, 3600.0)) == [1]
    assert grid.pulls == [[1, 2], [1, 2]]


def test_no_time_at_all_is_one_look(app: ClientApp) -> None:
    grid = SlowGrid(app, {2: 2})
    assert answered(send_and_wait(grid, messages(1, 2), 0.0, 3600.0)) == [1]
    assert grid.pulls == [[1, 2]]


def test_a_message_that_is_not_taken_is_not_waited_for(app: ClientApp) -> None:
    grid = SlowGrid(app, {}, refusing=[1, 3])
    assert answered(send_and_wait(grid, messages(1, 2, 3, 4), None, 0.001)) == [2, 4]
    assert grid.pulls == [[2, 4]]


def test_nothing_taken_or_nothing_sent_is_nothing_to_wait_for(app: ClientApp) -> None:
    grid = SlowGrid(app, {}, refusing=[1, 2])
    assert send_and_wait(grid, messages(1, 2), None, 0.001) == []
    assert send_and_wait(grid, [], None, 0.001) == []
    assert grid.pulls == []


def test_attack_a_node_that_never_answers_costs_a_multiple_of_the_others_time(app: ClientApp) -> None:
    """The timeout is an hour, and without the limit the wait would last as long."""
    grid = SlowGrid(app, {1: 2, 2: 2, 3: 2, 4: 10**9})
    assert answered(send_and_wait(grid, messages(1, 2, 3, 4), 3600.0, 0.01, Stragglers(3.0, 0.05))) == [1, 2, 3]


def test_half_of_the_nodes_do_not_limit_the_wait(app: ClientApp) -> None:
    grid = SlowGrid(app, {3: 30, 4: 10**9})
    found = answered(send_and_wait(grid, messages(1, 2, 3, 4), 3600.0, 0.01, Stragglers(1.0, 0.0)))
    assert found == [1, 2, 3]


def test_the_limit_is_a_multiple_of_the_time_so_far_and_has_a_least_value() -> None:
    assert Stragglers(10.0, 30.0).deadline(100.0, 102.0) == 130.0
    assert Stragglers(10.0, 30.0).deadline(100.0, 107.0) == 170.0


def test_nobody_is_there_where_the_superlink_alone_replies() -> None:
    gone, failed = (Message(Error(code, "why"), reply_to=messages(1)[0]) for code in (5, 2))
    assert nobody_there([]) and nobody_there([gone]) and not nobody_there([gone, failed])


def test_an_error_that_another_speaks_is_the_asked_nodes(app: ClientApp) -> None:
    """The SuperLink answers for a node that is gone, under the SuperLink's id."""

    class SpeaksForItself(SlowGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
            replies = list(super().pull_messages(message_ids))
            for reply in replies:
                if reply.metadata.src_node_id == 3:
                    reply.metadata.__dict__["_src_node_id"] = 1
            return replies

        def _handle(self, message: Message) -> Message:
            if message.metadata.dst_node_id != 3:
                return super()._handle(message)
            reply = Message(Error(code=6, reason="the node is gone"), reply_to=message)
            reply.metadata.__dict__["_src_node_id"] = 3
            return reply

    replies = send_and_wait(SpeaksForItself(app, {}), messages(2, 3, 4), None, 0.001)
    assert [(reply.metadata.src_node_id, reply.has_error()) for reply in replies] == [
        (2, False), (3, True), (4, False),
    ]  # fmt: skip


class PosingGrid(SlowGrid):
    """Node 2 writes another node, or another message, into what Flower takes a reply's sender from."""

    def __init__(self, app: ClientApp, **written: object) -> None:
        super().__init__(app, {})
        self._written = written

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            if not reply.has_error() and answered([reply]) == [2]:
                reply.metadata.__dict__.update({f"_{name}": value for name, value in self._written.items()})
        return replies


def test_attack_a_node_replies_in_another_ones_name(app: ClientApp) -> None:
    replies = send_and_wait(PosingGrid(app, src_node_id=3), messages(1, 2, 3), None, 0.001)
    assert [reply.metadata.src_node_id for reply in replies] == answered(replies) == [1, 2, 3]


def test_attack_a_node_replies_in_another_ones_name_to_a_message_that_there_is_not(app: ClientApp) -> None:
    grid = PosingGrid(app, src_node_id=3, reply_to_message_id="0" * 64)
    replies = send_and_wait(grid, messages(1, 2, 3), 0.0, 0.001)
    assert [reply.metadata.src_node_id for reply in replies] == answered(replies) == [1, 3]
