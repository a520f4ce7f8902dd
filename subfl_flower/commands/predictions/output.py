"""Tables and figures of predictions, as `subfl predict` shows and writes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from subfl_flower.commands.predictions.graph import GraphToPredict, open_graph
from subfl_flower.commands.predictions.nodes import model_outputs, node_predictions
from subfl_flower.commands.predictions.run import PredictedClient, RunToPredict
from subfl_flower.commands.tables import print_table, write_csv
from subfl_flower.data.datasets.custom_tables import read_pairs
from subfl_flower.data.graph import NO_ROLE, TEST, TRAIN, VALIDATION
from subfl_flower.errors import SubflError
from subfl_flower.runs.remarks import print_remarks
from subfl_flower.subgraphs.models.exported import ModelCard, read_model
from subfl_flower.subgraphs.tasks.link_prediction import pair_scores

_HEAD = 10
_ROLES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_ROLE_NAMES = {number: name for name, number in _ROLES.items()} | {NO_ROLE: ""}
_MENDED = "graph was mended by nodes of other clients in training; without these its figures are not those of the run."

Columns = Mapping[str, Iterable[object]]


def predict_graph(model: Path, source: Path, pairs: Path | None, row_normalize: bool, out: Path | None) -> None:
    """Show or write a client's model's predictions for the nodes, or for pairs of nodes, of a graph.

    Args:
        model: a folder with a model, or a file of a run.
        source: the graph; see `open_graph`.
        pairs: table of pairs of nodes, for link prediction.
        row_normalize: see `open_graph`.
        out: a CSV file; None shows the first rows.

    Raises:
        SubflError: one of these cannot be read, or they do not fit together.
    """
    parameters, card = read_model(model)
    links = card.task.scores_pairs
    if links and pairs is None:
        raise SubflError("--pairs: the model predicts links; name a table with the columns source and target")
    if not links and pairs is not None:
        raise SubflError("--pairs: the model classifies nodes; pairs are for models of link prediction")
    data = open_graph(source, card, row_normalize)
    # The model sees the same part of a client's graph as in training, so that held-out links stay held out.
    visible = card.task.visible(data.graph) if data.of_client else data.graph
    outputs = model_outputs(parameters, card, visible)
    columns: Columns
    if pairs is not None:
        columns, num_rows = _scored_pairs(outputs, data, pairs)
        figures = _link_figures(outputs, data, card)
    else:
        predictions = node_predictions(outputs, card, data.names, data.labels)
        columns, num_rows = predictions.columns(out is not None), len(data.names)
        figures = _class_figures(predictions.right, data)
    print(f"{card.method}'s model of client {card.client} ({card.dataset}) on {data.about}")
    if card.mended:
        print(f"Its {_MENDED}")
    _show([columns], num_rows, out)
    if figures:
        print(f"{card.task.metric}: {figures}")
    print_remarks(data.notes.dropped, data.notes.warnings)


def predict_run(path: Path, out: Path | None) -> None:
    """Show or write the predictions of all clients of a simulation for their own nodes, and their accuracy.

    Raises:
        SubflError: see `RunToPredict.open`.
    """
    run = RunToPredict.open(path)
    counts: dict[str, list[int]] = {name: [0, 0] for name in _ROLES}
    mended: set[int] = set()

    def tables() -> Iterator[Columns]:
        for client in run.clients():
            _count(client, counts)
            if client.card.mended:
                mended.add(client.card.client)
            yield _client_columns(client, out is not None)

    _show(tables(), run.num_nodes, out)
    if mended:
        print(f"{len(mended)} of {len(run.models)} clients: the {_MENDED}")
    parts = [f"{name} {right / total:.4f} ({total})" for name, (right, total) in counts.items() if total]
    print(f"accuracy over the nodes of all clients: {', '.join(parts)}")
    print_remarks(warnings=run.warnings)


def _client_columns(client: PredictedClient, of_each_class: bool) -> Columns:
    columns = client.predictions.columns(of_each_class)
    del columns["probability"]
    node = columns.pop("node")
    roles = [_ROLE_NAMES[role] for role in client.graph.roles.tolist()]
    return {"node": node, "client": [client.graph.client_id] * len(roles), "role": roles, **columns}


def _count(client: PredictedClient, counts: dict[str, list[int]]) -> None:
    """Add a client's correct predictions and its nodes, by role."""
    right = client.predictions.right
    assert right is not None  # without labels there is no run
    for name, role in _ROLES.items():
        members = client.graph.roles == role
        counts[name][0] += int(right[members].sum())
        counts[name][1] += int(members.sum())


def _scored_pairs(outputs: Tensor, data: GraphToPredict, path: Path) -> tuple[Columns, int]:
    pairs = read_pairs(path, data.names.astype(str), "a node of the graph")
    scores = pair_scores(outputs, torch.from_numpy(pairs)).tolist()
    source, target = (data.names[ends].tolist() for ends in pairs)
    return {"source": source, "target": target, "score": [f"{value:.6g}" for value in scores]}, len(scores)


def _show(tables: Iterable[Columns], num_rows: int, out: Path | None) -> None:
    """Write the rows of all tables, which have the same columns, to `out`, or show the first ones."""
    remaining = iter(tables)
    first = next(remaining)
    header = list(first)
    rows = chain.from_iterable(zip(*columns.values(), strict=True) for columns in chain([first], remaining))
    if out is not None:
        write_csv(out, header, rows)
        print(f"{num_rows} predictions in {out}")
        return
    print_table(header, list(islice(rows, _HEAD)))
    deque(rows, maxlen=0)  # the figures are of all rows
    if num_rows > _HEAD:
        print(f"and {num_rows - _HEAD} more; --out FILE writes them all")


def _link_figures(outputs: Tensor, data: GraphToPredict, card: ModelCard) -> str:
    """The metric over held-out links of a client's graph, measured as in training; empty for other graphs."""
    if not data.of_client:
        return ""
    validation, test = card.task.examples([data.graph], torch.device("cpu")).evaluate(outputs.unsqueeze(0))
    return f"validation {float(validation):.4f}, test {float(test):.4f}"


def _class_figures(right: np.ndarray | None, data: GraphToPredict) -> str:
    """Accuracy over the nodes of each role, or over all nodes with a label; empty without labels."""
    if right is None or data.labels is None:
        return ""
    groups: dict[str, np.ndarray] = {"labelled nodes": data.labels >= 0}
    if data.of_client:
        groups = {name: data.graph.roles == role for name, role in _ROLES.items()}
    return ", ".join(
        f"{name} {right[members].mean():.4f} ({members.sum()})" for name, members in groups.items() if members.any()
    )
