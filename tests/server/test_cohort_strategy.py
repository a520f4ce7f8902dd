from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server.round_messages import RUN
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.tasks.metric import COUNT, Metric
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, RunContext
from subfl_flower.wire.payload import ArraySpec, pack, unpack
from subfl_flower.wire.replies import METRICS, OUTCOME
from subfl_flower.wire.roster import Roster

NODES = (2, 1, 2, 3, 1)
"""The node of each of the clients 10, 11, ..."""
ROSTER = Roster((10, 11, 12, 13, 14), NODES, np.array([1.0, 2, 3, 4, 5]), np.ones(5), np.ones(5), 1, 2, False)

UPLOADS = {"w": ArraySpec((2,), "float32")}
METRICS_SENT = {"test": Metric(0.0, 2.0), "num_examples": COUNT}


class Doubling(CohortStrategy):
    """Sends every client its position and sums what comes back."""

    away: Sequence[int] = ()

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        return {"w": np.array([[float(p), 100.0 * server_round] for p in positions], dtype=np.float32)}

    def aggregate(self, updates: Updates) -> None:
        self.total = updates.arrays["w"].sum()

    def participants(self, server_round: int) -> Sequence[int]:
        return [p for p in range(len(self.roster)) if p not in self.away]


def client_app(failing: Sequence[int] = (), raising: Sequence[int] = (), silent: Sequence[int] = ()) -> ClientApp:
    """Clients that send their numbers times two, and half of them only one of two values' worth of metrics."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if any(client in raising for client in message.content.config_records[RUN]["clients"]):  # type: ignore[union-attr]
            raise RuntimeError("out of memory")
        received, clients = unpack(message.content)[0], list(message.content.config_records[RUN]["clients"])  # type: ignore
        good = [row for row, client in enumerate(clients) if client not in failing]
        packed = pack({"w": 2 * received["w"][good]} if good else {})
        metrics: dict[str, Any] = {"test": [0.1 * clients[row] for row in good]} if good else {}
        metrics["num_examples"] = [clients[row] - 9 for row in good]
        content = RecordDict({METRICS: MetricRecord(metrics)})
        packed.into(content)
        content[OUTCOME] = ConfigRecord(
            {
                "clients": [clients[row] for row in good],
                "failures": json.dumps({str(c): "it was tired" for c in clients if c in failing}),
                "round": message.content.config_records[RUN]["round"],
                "seconds": 0.5 * len(clients),
                "startup": 0.25,
            }
        )
        return Message(content, reply_to=message)

    return app


def one_round(
    app: ClientApp,
    away: Sequence[int] = (),
    lose: Sequence[int] = (),
    reverse: bool = False,
    uploads: Mapping[str, ArraySpec] = UPLOADS,
) -> Doubling:
    contract = Contract(uploads=uploads, metrics=METRICS_SENT)
    strategy = Doubling(RunContext(settings=Doubling.Settings()), ROSTER, contract)
    strategy.away = away
    with InlineGrid(app, 3).active() as grid:
        messages = list(strategy.configure_train(4, ArrayRecord(), ConfigRecord({"directory": "x"}), grid))
        assert len({message.metadata.dst_node_id for message in messages}) == len(messages)
        assert all(message.content.config_records[RUN]["round"] == 4 for message in messages)
        assert all(message.content.config_records[RUN]["directory"] == "x" for message in messages)
        replies: Iterable[Message] = grid.send_and_receive(messages)
        replies = [reply for reply in replies if reply.metadata.src_node_id not in lose]
        strategy.aggregate_train(4, replies[::-1] if reverse else replies)
    return strategy


@pytest.mark.parametrize("reverse", [False, True])
def test_a_round_is_stacked_by_client_whatever_the_order_of_replies(reverse: bool) -> None:
    strategy = one_round(client_app(), reverse=reverse)
    updates = strategy.updates
    assert updates is not None and updates.failures == {}
    assert updates.positions.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(updates.arrays["w"], [[2.0 * p, 800.0] for p in range(5)])
    np.testing.assert_allclose(updates.metrics["test"], [1.0, 1.1, 1.2, 1.3, 1.4])
    assert updates.bytes_up.tolist() == updates.bytes_down.tolist() == [8] * 5
    assert updates.metrics["num_examples"].tolist() == [1, 2, 3, 4, 5]
    assert updates.client_seconds == 1.0  # the longest, not the sum: nodes work at the same time
    assert updates.startup_seconds == 0.25
    assert strategy.total == 2 * (0 + 1 + 2 + 3 + 4) + 5 * 800


def test_clients_that_are_not_asked_cost_nothing_and_are_no_failures() -> None:
    updates = one_round(client_app(), away=[3, 1]).updates
    assert updates is not None and updates.failures == {}
    assert updates.positions.tolist() == [0, 2, 4]
    assert updates.bytes_down.tolist() == updates.bytes_up.tolist() == [8, 0, 8, 0, 8]


def test_a_failure_is_its_clients_and_the_rest_of_the_node_counts() -> None:
    updates = one_round(client_app(failing=[12])).updates
    assert updates is not None and updates.failures == {12: "it was tired"}
    assert updates.positions.tolist() == [0, 1, 3, 4]
    assert updates.bytes_up.tolist() == [8, 8, 0, 8, 8] and updates.bytes_down.tolist() == [8] * 5


def test_a_node_that_fails_or_is_silent_fails_for_all_its_clients() -> None:
    failed = one_round(client_app(raising=[12])).updates
    assert failed is not None
    assert failed.failures == {10: "RuntimeError: out of memory", 12: "RuntimeError: out of memory"}
    silent = one_round(client_app(), lose=[1]).updates
    assert silent is not None and silent.failures == {11: "no reply", 14: "no reply"}
    assert silent.positions.tolist() == [0, 2, 3]


def test_nobody_succeeding_is_no_crash_and_aggregates_nothing() -> None:
    strategy = one_round(client_app(failing=[10, 11, 12, 13, 14]))
    assert strategy.updates is not None and len(strategy.updates.positions) == 0
    assert set(strategy.updates.failures) == {10, 11, 12, 13, 14}
    assert not hasattr(strategy, "total")


def spoilt(spoil: Callable[[Message], None]) -> Updates:
    """A round in which `spoil` has its way with the reply of the node of clients 11 and 14."""
    sound, app = client_app(), ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = sound(message, context)
        if context.node_config["partition-id"] == 0:
            spoil(reply)
        return reply

    updates = one_round(app).updates
    assert updates is not None
    return updates


def unknown_shape(reply: Message) -> None:
    reply.content.config_records["layout"]["w.shape"] = [2, 77]


def reasons_without_clients(reply: Message) -> None:
    reply.content.config_records[OUTCOME]["failures"] = json.dumps(["tired"])


@pytest.mark.parametrize("spoil", [unknown_shape, reasons_without_clients])
def test_a_reply_that_cannot_be_read_is_the_failure_of_its_clients(spoil: Callable[[Message], None]) -> None:
    """Nodes are other people's machines: what one sends must not end the run of all."""
    updates = spoilt(spoil)
    assert set(updates.failures) == {11, 14}
    assert updates.positions.tolist() == [0, 2, 3]


def with_an_invented_metric(reply: Message) -> None:
    reply.content.metric_records[METRICS]["fame"] = [1.0, 1.0]


def with_an_undeclared_array(reply: Message) -> None:
    pack({**unpack(reply.content)[0], "v": np.ones((2, 1), np.float32)}).into(reply.content)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (with_an_invented_metric, "it holds the metric 'fame', which this method does not have"),
        (with_an_undeclared_array, "it holds v, where only w belongs"),
    ],
)
def test_what_no_contract_declares_makes_a_reply_unusable(spoil: Callable[[Message], None], reason: str) -> None:
    updates = spoilt(spoil)
    assert updates.failures == dict.fromkeys((11, 14), f"its node's reply cannot be read: {reason}")
    assert updates.positions.tolist() == [0, 2, 3] and set(updates.metrics) == set(METRICS_SENT)


def test_a_figure_out_of_its_range_is_one_clients_failure_and_the_others_of_its_node_count() -> None:
    def twice_of_two(reply: Message) -> None:
        reply.content.metric_records[METRICS]["test"] = [1.1, 2.5]

    updates = spoilt(twice_of_two)
    assert updates.failures == {14: "its test is 2.5, and must be from 0 to 2"}
    assert updates.positions.tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(updates.metrics["test"], [1.0, 1.1, 1.2, 1.3])


def test_bytes_up_are_each_clients_own() -> None:
    """Client 10 + p sends p values of 300, and a bit for each and for the line."""
    sound = client_app()
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        reply = sound(message, context)
        clients = reply.content.config_records[OUTCOME]["clients"]
        mostly_zero = np.array([[1.0] * (c - 10) + [0.0] * (310 - c) for c in clients], dtype=np.float32)  # type: ignore
        packed = pack({"w": unpack(reply.content)[0]["w"], "x": mostly_zero})
        packed.into(reply.content)
        return reply

    updates = one_round(app, reverse=True, uploads={**UPLOADS, "x": ArraySpec((300,), "float32")}).updates
    assert updates is not None and updates.failures == {}
    assert updates.bytes_up.tolist() == [8 + 1, *(8 + 1 + 38 + 4 * p for p in (1, 2, 3, 4))]
