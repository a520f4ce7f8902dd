"""Flower's client side: turns messages into batches and questions for the node's clients, and results into replies."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psutil
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.flower.log import event, remember, use_asked_format
from subfl_flower.node.client import CohortClient
from subfl_flower.node.durable_store import EVALUATE, TRAIN
from subfl_flower.node.masking.summing import SummingClients
from subfl_flower.node.node import Node
from subfl_flower.node.open_nodes import open_clients, open_node
from subfl_flower.server.exchange import ASK, answer_record, read_question
from subfl_flower.server.round_messages import KEEP, RUN, announced_in
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.bundle import bundle, unbundle
from subfl_flower.wire.contract import Declared, arrays_of, rows_of
from subfl_flower.wire.payload import pack, unpack_choice
from subfl_flower.wire.ragged import pack_ragged, unpack_ragged
from subfl_flower.wire.replies import METRICS, OUTCOME
from subfl_flower.wire.roster import ROSTER

app = ClientApp()
use_asked_format()


@app.query(ROSTER)
def roster(message: Message, context: Context) -> Message:
    """Report the clients that this node hosts, and the sizes that the server needs."""
    node = open_node(message.content.config_records[RUN], context)
    return Message(RecordDict({ROSTER: node.roster()}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the clients that the message names for one round."""
    return _work(TRAIN, message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the clients that the message names, with the parameters that they receive."""
    return _work(EVALUATE, message, context)


def _work(phase: str, message: Message, context: Context) -> Message:
    """Receive a batch, process it chunk by chunk with the client object, and reply with the result."""
    start, started_at = time.perf_counter(), time.time()
    run: ConfigRecord = message.content.config_records[RUN]
    remember(run=run["id"], round=run["round"], node=context.node_id)
    node = open_clients(run, context)
    client = node.client(run, context, phase)
    batch = _batch(message.content, client, node)
    result = node.accounted(client, client.train(batch)) if phase == TRAIN else client.measure(batch)
    if phase == TRAIN and client.run.secure_sums.sums(batch.server_round):
        result = SummingClients(client, dict(run)).masked(result, batch)
    figures = {name: values.tolist() for name, values in result.metrics.items() if client.run.reports(name)}
    content = RecordDict({METRICS: MetricRecord(figures)})
    pack(result.arrays, len(result.clients), node.config.wire.dtype).into(content)
    pack_ragged(result.rows, content)
    if node.config.bundling is not None:
        bundle(content, node.config.bundling)
    content[OUTCOME] = ConfigRecord(
        {
            "clients": list(result.clients),
            "failures": json.dumps(result.failures),
            "round": batch.server_round,
            "seconds": time.perf_counter() - start,
            "startup": _startup(node, started_at),
        }
    )
    event(phase, f"worked on {len(result.clients)} clients", clients=list(result.clients), **_failed(result.failures))
    return Message(content, reply_to=message)


def _failed(failures: Mapping[int, str]) -> dict[str, Any]:
    return {"failures": {str(client): reason for client, reason in failures.items()}} if failures else {}


def _batch(content: RecordDict, client: CohortClient, node: Node) -> Batch:
    """The orders in a message, checked against the broadcast of the method.

    The arrays take the memory of `models_sent` models for each of the node's clients at most, whatever they claim.

    Raises:
        ValueError: the arrays have other names, shapes or types.
        SubflError: it names a client twice, or one that is not hosted here.
    """
    run: dict[str, Any] = dict(content.config_records[RUN])
    declared, clients = client.downloads(client.run), node.hosted(run["clients"])
    unbundle(content, _most_bytes(declared, len(clients) * client.models_sent))
    return Batch(
        clients=clients,
        server_round=int(run["round"]),
        sent=unpack_choice(content, arrays_of(declared), num_clients=len(clients), each=client.models_sent),
        rows=unpack_ragged(content, rows_of(declared), len(clients)),
        announced=announced_in(run),
        local_epochs=client.run.local_epochs,
    )


def _most_bytes(declared: Declared, models: int) -> int | None:
    """The bytes that some models can take in a message, headers included; None where a length varies."""
    if any(-1 in spec.shape for spec in declared.values()):
        return None
    return int(1.1 * models * sum(spec.nbytes for spec in declared.values())) + (1 << 16)


@app.query(ASK)
def ask(message: Message, context: Context) -> Message:
    """Answer a question of a phase outside of rounds; a client that cannot answer does not stop the others."""
    run = message.content.config_records[RUN]
    question = read_question(message.content)
    answers = open_node(run, context).answerer(run, context, question.phase).answer(question)
    return Message(answer_record(answers), reply_to=message)


@app.query("export")
def export(message: Message, context: Context) -> Message:
    """Write each client's best model to its place."""
    run: dict[str, Any] = dict(message.content.config_records[RUN])
    node = open_clients(message.content.config_records[RUN], context)
    client, clients = node.client(message.content.config_records[RUN], context), node.hosted(run["clients"])
    # The server has all of a model, or nothing of it.
    declared = {name: replace(spec, needed=False) for name, spec in arrays_of(client.downloads(client.run)).items()}
    unbundle(message.content, _most_bytes(declared, len(clients) * client.models_sent))
    received = unpack_choice(message.content, declared, num_clients=len(clients), each=client.models_sent)
    node.export(client, Batch(clients, int(run["round"]) - 1, received, announced=announced_in(run)))
    return Message(RecordDict(), reply_to=message)


@app.query(KEEP)
def keep(message: Message, context: Context) -> Message:
    """Write the states of all clients of this node to their places for a checkpoint."""
    run = message.content.config_records[RUN]
    open_clients(run, context).keep(run, context)
    return Message(RecordDict(), reply_to=message)


def _startup(node: Node, handled_at: float) -> float:
    """Seconds that this process took to start for a message; 0 where the process existed before it.

    Args:
        node: the node that the message is for.
        handled_at: the time of day when the app received the message.
    """
    if not node.config.runtime.deployed:
        return 0.0
    created = psutil.Process().create_time()
    if hasattr(time, "CLOCK_BOOTTIME"):  # psutil adds the second in which the machine booted, without its fraction
        created += time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) - psutil.boot_time()
    return max(0.0, handled_at - created)
