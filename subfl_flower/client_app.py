"""Flower's client side: turns messages into calls of the node's ``NumPyClient`` and results into replies."""

from __future__ import annotations

import time
from typing import Any

import psutil
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.config import Deploy
from subfl_flower.errors import SubflError
from subfl_flower.runtime.exchange import answer_record
from subfl_flower.runtime.messages import Stack, pack, unpack
from subfl_flower.runtime.node import Node
from subfl_flower.runtime.open_nodes import open_node
from subfl_flower.runtime.roster import ROSTER
from subfl_flower.runtime.strategy import ANNOUNCED, METRICS, OUTCOME, RUN

app = ClientApp()


@app.query(ROSTER)
def roster(message: Message, context: Context) -> Message:
    """Which clients this node hosts, and the sizes that the server needs."""
    node = open_node(message.content.config_records[RUN], context)
    graphs = node.cohort.graphs
    answer: dict[str, Any] = {
        "clients": node.client_ids,
        "num_examples": [float(count) for count in node.cohort.num_examples],
        "num_nodes": [float(graph.num_nodes) for graph in graphs],
        "num_edges": [float(graph.edge_index.shape[1]) for graph in graphs],
        **node.about,
    }
    return Message(RecordDict({ROSTER: ConfigRecord(answer)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of local training of the clients that the message names."""
    start, started_at = time.perf_counter(), time.time()
    run: ConfigRecord = message.content.config_records[RUN]
    node = open_node(run, context)
    client = node.client(run, context)
    received = unpack(message.content)
    instructions: dict[str, Any] = {
        "clients": run["clients"],
        "round": run["round"],
        "local_epochs": node.config.federation.local_epochs,
        **{key.removeprefix(ANNOUNCED): value for key, value in run.items() if key.startswith(ANNOUNCED)},
    }
    arrays, _, metrics = client.fit([received[name] for name in client.parameter_names], instructions)
    trained, failures = metrics.pop("clients"), metrics.pop("failures")
    names = (*client.parameter_names, *client.extra_uploads) if trained else ()
    packed = pack(dict(zip(names, arrays, strict=True)), len(trained))
    content = RecordDict({METRICS: MetricRecord(metrics)})
    packed.into(content)
    content[OUTCOME] = ConfigRecord(
        {
            "clients": trained,
            "failures": failures,
            "round": run["round"],
            "seconds": time.perf_counter() - start,
            "startup": _startup(node, started_at),
        }
    )
    return Message(content, reply_to=message)


@app.query("structure")
def structure(message: Message, context: Context) -> Message:
    """What clients tell of the nodes that they may share with others, before training."""
    return _answer("structure", message, context)


def _answer(action: str, message: Message, context: Context) -> Message:
    """One phase outside of rounds; a client that cannot answer does not keep the others from it."""
    run = message.content.config_records[RUN]
    client = open_node(run, context).client(run, context)
    answers: dict[int, Stack] = {}
    failures: dict[int, str] = {}
    for client_id in [int(value) for value in run["clients"]]:  # type: ignore[union-attr]
        try:
            answers[client_id] = client.answer(action, client_id)
        except Exception as error:
            failures[client_id] = str(error) if isinstance(error, SubflError) else f"{type(error).__name__}: {error}"
    return Message(answer_record(answers, failures), reply_to=message)


@app.query("export")
def export(message: Message, context: Context) -> Message:
    """Write each client's best model where it belongs."""
    run = message.content.config_records[RUN]
    open_node(run, context).export(run, context)
    return Message(RecordDict(), reply_to=message)


def _startup(node: Node, handled_at: float) -> float:
    """Seconds that this process took to come up for a message; 0 where processes are there before it.

    Args:
        node: whom the message is for.
        handled_at: the time of day when the message was handed to the app.
    """
    if not isinstance(node.config.runtime, Deploy):
        return 0.0
    return max(0.0, handled_at - psutil.Process().create_time())
