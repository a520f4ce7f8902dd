from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.errors import SubflError
from subfl_flower.runtime.inline_grid import InlineGrid
from subfl_flower.runtime.roster import ROSTER, Roster, collect_roster

SCHEMA: dict[str, Any] = {"num_features": 7, "num_classes": 3, "overlapping": False}


def grid_of(*answers: dict[str, Any] | Exception) -> InlineGrid:
    """A node for every answer: what it says to the roster's question."""
    app = ClientApp()

    @app.query(ROSTER)
    def roster(message: Message, context: Context) -> Message:
        answer = answers[int(context.node_config["partition-id"])]
        if isinstance(answer, Exception):
            raise answer
        return Message(RecordDict({ROSTER: ConfigRecord(answer)}), reply_to=message)

    return InlineGrid(app, len(answers))


def hosting(*clients: int, **schema: Any) -> dict[str, Any]:
    sizes = {
        "num_examples": [10.0 + c for c in clients],
        "num_nodes": [50.0 + c for c in clients],
        "num_edges": [400.0 - c for c in clients],
    }
    return {"clients": list(clients), **sizes, **SCHEMA, **schema}


def collected(num_clients: int, *answers: dict[str, Any] | Exception, timeout: float = 0.3) -> Roster:
    with grid_of(*answers).active() as grid:
        return collect_roster(grid, ConfigRecord({"config": "{}"}), num_clients, timeout)


def test_clients_are_sorted_whichever_node_hosts_them() -> None:
    roster = collected(4, hosting(3, 1), hosting(0), hosting(2))
    assert roster.client_ids == (0, 1, 2, 3) and len(roster) == 4
    assert roster.node_ids == (2, 1, 3, 1)
    np.testing.assert_array_equal(roster.num_examples, [10, 11, 12, 13])
    np.testing.assert_array_equal(roster.num_nodes, [50, 51, 52, 53])
    np.testing.assert_array_equal(roster.num_edges, [400, 399, 398, 397])
    assert (roster.num_features, roster.num_classes, roster.overlapping) == (7, 3, False)
    assert roster.by_node([0, 1, 3]) == {2: [0], 1: [1, 3]}


def test_clients_overlap_if_any_node_says_so() -> None:
    assert collected(2, hosting(0), hosting(1, overlapping=True)).overlapping


def test_a_node_may_host_nobody() -> None:
    roster = collected(2, hosting(1), hosting(), hosting(0))
    assert roster.node_ids == (3, 1)


@pytest.mark.parametrize(
    ("num_clients", "answers", "sentence"),
    [
        (3, [hosting(0, 1), hosting(1, 2)], "client 1 is hosted by two nodes"),
        (4, [hosting(0, 3), hosting(1)], "1 of 4 clients are hosted by no node, the first is client 2; 2 nodes"),
        (2, [hosting(0, 1), hosting(5)], "hosts client 5, but the run has the clients 0 .. 1"),
        (2, [hosting(0, 5)], "hosts client 5, but the run has the clients 0 .. 1"),
        (2, [hosting(0), hosting(1, num_features=8)], "disagree on (features, classes)"),
        (2, [hosting(0), hosting(1, num_classes=4)], "disagree on (features, classes)"),
        (2, [hosting(0), SubflError("client-0001 is damaged")], "a node could not open its clients: client-0001 is"),
        (2, [hosting(0), ZeroDivisionError("division by zero")], "a node could not open its clients: ZeroDivision"),
        (2, [hosting(0), {"clients": [1], **SCHEMA}], "node"),
        (2, [hosting(0), {"clients": [1], "num_examples": [1.0, 2.0], **SCHEMA}], "node"),
    ],
    ids=lambda value: value.replace("/", " ")[:40] if isinstance(value, str) else "",
)
def test_errors_are_one_sentence(num_clients: int, answers: list[Any], sentence: str) -> None:
    with pytest.raises(SubflError) as error:
        collected(num_clients, *answers)
    assert sentence in str(error.value) and "\n" not in str(error.value)


def test_nodes_that_come_late_are_waited_for_and_asked_once() -> None:
    asked: list[int] = []

    class Slow(InlineGrid):
        start = time.monotonic()

        def get_node_ids(self) -> Iterable[int]:
            return [1, 2] if time.monotonic() > self.start + 0.3 else [1]

        def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
            listed = list(messages)
            asked.extend(message.metadata.dst_node_id for message in listed)
            return super().send_and_receive(listed, timeout=timeout)

    whole = grid_of(hosting(0), hosting(1))
    with Slow(whole._client_app, 2).active() as grid:
        assert collect_roster(grid, ConfigRecord(), 2, 5.0).node_ids == (1, 2)
    assert asked == [1, 2]
