"""Flower's client side: turns messages into calls of the node's ``NumPyClient`` and results into replies."""

from __future__ import annotations

import time
from typing import Any

from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from subfl_flower.runtime.messages import pack, unpack
from subfl_flower.runtime.node import open_node
from subfl_flower.runtime.roster import ROSTER
from subfl_flower.runtime.run_directory import RunDirectory
from subfl_flower.runtime.strategy import METRICS, OUTCOME, RUN

app = ClientApp()


@app.query(ROSTER)
def roster(message: Message, context: Context) -> Message:
    """Which clients this node hosts, and the sizes that the server needs."""
    node = open_node(message.content.config_records[RUN], context)
    clients = node.partition.metadata["clients"]
    answer: dict[str, Any] = {
        "clients": node.client_ids,
        "num_examples": [float(clients[client_id]["train"]) for client_id in node.client_ids],
        "num_features": node.partition.num_features,
        "num_classes": node.partition.num_classes,
        "overlapping": node.partition.overlapping,
    }
    return Message(RecordDict({ROSTER: ConfigRecord(answer)}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of local training of the clients that the message names."""
    start = time.perf_counter()
    run: ConfigRecord = message.content.config_records[RUN]
    node = open_node(run, context)
    client = node.client(context)
    received = unpack(message.content)
    instructions: dict[str, Any] = {
        "clients": run["clients"],
        "round": run["round"],
        "local_epochs": node.config.federation.local_epochs,
    }
    arrays, _, metrics = client.fit([received[name] for name in client.parameter_names], instructions)
    trained, failures = metrics.pop("clients"), metrics.pop("failures")
    packed = pack(dict(zip((*client.parameter_names, *client.extra_uploads), arrays, strict=True)) if trained else {})
    content = RecordDict({METRICS: MetricRecord(metrics)})
    packed.into(content)
    content[OUTCOME] = ConfigRecord(
        {
            "clients": trained,
            "failures": failures,
            "bytes": packed.bytes_per_client.tolist(),
            "seconds": time.perf_counter() - start,
        }
    )
    return Message(content, reply_to=message)


@app.query("export")
def export(message: Message, context: Context) -> Message:
    """Write each client's best model into the run directory."""
    run = message.content.config_records[RUN]
    node = open_node(run, context)
    directory = RunDirectory(node.directory)
    model = node.config.model
    about = {"model": model.name, "layers": str(model.layers), "hidden": str(model.hidden)}
    for client_id, tensors in node.client(context).best_models().items():
        directory.write_client_model(client_id, tensors, {**about, "dataset": node.config.dataset.name})
    return Message(RecordDict(), reply_to=message)
