"""Flower's client side: turns messages into calls of the node's ``NumPyClient`` and results into replies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import psutil
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.config import Deploy
from subfl_flower.runtime.cohort_client import CohortClient, Question
from subfl_flower.runtime.exchange import answer_record, read_client_arrays
from subfl_flower.runtime.matcher_node import MatcherNode
from subfl_flower.runtime.messages import Stack, pack, unpack, unpack_choice
from subfl_flower.runtime.node import Node
from subfl_flower.runtime.open_nodes import open_clients, open_node
from subfl_flower.runtime.ragged import Ragged, pack_ragged, unpack_ragged
from subfl_flower.runtime.roster import ROSTER
from subfl_flower.runtime.strategy import METRICS, OUTCOME, RUN

app = ClientApp()


@app.query(ROSTER)
def roster(message: Message, context: Context) -> Message:
    """Which clients this node hosts, and the sizes that the server needs."""
    node = open_node(message.content.config_records[RUN], context)
    if isinstance(node, MatcherNode):
        return Message(RecordDict({ROSTER: node.roster()}), reply_to=message)
    answer: dict[str, Any] = {"clients": node.client_ids, **node.cohort.sizes, **node.about}
    return Message(RecordDict({ROSTER: ConfigRecord(answer)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of local training of the clients that the message names."""
    return _work("train", message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Figures of the clients that the message names, at what they are sent."""
    return _work("evaluate", message, context)


def _work(kind: str, message: Message, context: Context) -> Message:
    start, started_at = time.perf_counter(), time.time()
    run: ConfigRecord = message.content.config_records[RUN]
    node = open_clients(run, context)
    client = node.client(run, context, kind)
    rows = unpack_ragged(message.content, None, len(run["clients"]))  # type: ignore[arg-type]
    received: Stack
    models: dict[str, np.ndarray] = {}
    if client.takes_choices:
        choice = unpack_choice(message.content)
        received, models = choice.values, {"models": choice.rows}
    else:
        received = unpack(message.content)
    instructions: dict[str, Any] = {
        **models,
        "clients": run["clients"],
        "round": run["round"],
        "local_epochs": node.config.federation.local_epochs,
        "rows": rows,
        **client.announced,
    }
    parameters = [received[name] for name in client.parameter_names if name in received]
    arrays: list[np.ndarray] = []
    if kind == "train":
        arrays, _, metrics = client.fit(parameters, instructions)
    else:
        _, _, metrics = client.evaluate(parameters, instructions)
    trained, failures = metrics.pop("clients"), metrics.pop("failures")
    content = RecordDict({METRICS: MetricRecord(metrics)})
    _pack_uploads(client, arrays, len(trained), content)
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


def _pack_uploads(client: CohortClient, arrays: Sequence[np.ndarray], num_trained: int, content: RecordDict) -> None:
    """Name what `fit` returned, and put it into a reply."""
    ragged = client.ragged_uploads if arrays else ()
    stacked = arrays[: len(arrays) - 2 * len(ragged)]
    names = (*client.uploaded_parameters, *client.extra_uploads) if arrays else ()
    pack(dict(zip(names, stacked, strict=True)), num_trained).into(content)
    rest = arrays[len(stacked) :]
    pack_ragged({name: Ragged(*rest[2 * i : 2 * i + 2]) for i, name in enumerate(ragged)}, content)


@app.query("structure")
def structure(message: Message, context: Context) -> Message:
    """What clients tell of the nodes that they may share with others, before training."""
    return _answer("structure", message, context)


@app.query("boundary")
def boundary(message: Message, context: Context) -> Message:
    """Which nodes clients have to do with that others have to do with, too."""
    return _answer("boundary", message, context)


@app.query("mend")
def mend(message: Message, context: Context) -> Message:
    """What clients are told to mend their graphs by."""
    return _answer("mend", message, context)


@app.query("generator")
def generator(message: Message, context: Context) -> Message:
    """A step of clients' generators of missing neighbours, and what others need to judge them by."""
    return _answer("generator", message, context)


@app.query("gradients")
def gradients(message: Message, context: Context) -> Message:
    """How others' generators would come nearer to the nodes that clients hold."""
    return _answer("gradients", message, context)


@app.query("representations")
def representations(message: Message, context: Context) -> Message:
    """What clients show of their nodes, for others to find those that are like their own."""
    return _answer("representations", message, context)


@app.query("rows")
def rows(message: Message, context: Context) -> Message:
    """Which rows of the item table users will send and want to be sent."""
    return _answer("rows", message, context)


@app.query("embedding")
def embedding(message: Message, context: Context) -> Message:
    """What users tell the server of themselves to be clustered by."""
    return _answer("embedding", message, context)


@app.query("expand")
def expand(message: Message, context: Context) -> Message:
    """What users seal for the matcher."""
    return _answer("expand", message, context)


@app.query("neighbours")
def neighbours(message: Message, context: Context) -> Message:
    """What clients are told, or tell, of neighbours elsewhere: what the matcher sealed for users, sums over nodes."""
    return _answer("neighbours", message, context)


@app.query("match")
def match(message: Message, context: Context) -> Message:
    """The matcher's work."""
    return _answer("match", message, context)


def _answer(action: str, message: Message, context: Context) -> Message:
    """One phase outside of rounds; a client that cannot answer does not keep the others from it."""
    run = message.content.config_records[RUN]
    node = open_node(run, context)
    asked = [int(value) for value in run["clients"]]  # type: ignore[union-attr]
    question = Question(action, read_client_arrays(message.content, asked), dict(run))
    answerer = node if isinstance(node, MatcherNode) else node.client(run, context, action)
    return Message(answer_record(*answerer.answers(question)), reply_to=message)


@app.query("export")
def export(message: Message, context: Context) -> Message:
    """Write each client's best model where it belongs."""
    run = message.content.config_records[RUN]
    node = open_node(run, context)
    if not isinstance(node, MatcherNode):
        node.export(run, context, unpack_choice(message.content))
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
