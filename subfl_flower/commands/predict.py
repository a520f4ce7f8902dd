"""`subfl predict MODEL GRAPH`: a client's model's predictions for nodes, or for pairs of nodes, of a graph."""

from __future__ import annotations

import argparse
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor

from subfl_flower.commands.csv_file import write_csv
from subfl_flower.commands.graph_to_predict import GraphToPredict, open_graph
from subfl_flower.commands.node_predictions import model_outputs, node_predictions
from subfl_flower.commands.run_to_predict import PredictedClient, RunToPredict
from subfl_flower.data.datasets.custom_tables import read_pairs
from subfl_flower.data.graph import NO_ROLE, TEST, TRAIN, VALIDATION
from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.remarks import print_remarks
from subfl_flower.subgraphs.models.exported import ModelCard, read_model
from subfl_flower.subgraphs.tasks.link_prediction import pair_scores

_HEAD = 10
_ROLES = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
_ROLE_NAMES = {number: name for name, number in _ROLES.items()} | {NO_ROLE: ""}
_MENDED = "graph was mended by other nodes in training; without these its figures are not those of the run."

Columns = Mapping[str, Iterable[object]]


def main(argv: Sequence[str]) -> int:
    """Run `subfl predict ARGV`; return the exit code, 2 for errors that the user can mend."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    sys.path.append(str(Path.cwd()))  # a run's method may be the user's class
    try:
        if RunDirectory.is_run(options.model):
            _predict_run(options)
        else:
            _predict_graph(options)
    except SubflError as error:
        print(f"subfl predict: {error}", file=sys.stderr)
        return 2
    return 0


def _predict_graph(options: argparse.Namespace) -> None:
    if not options.model.exists():
        raise SubflError(f"{options.model} does not exist; name a run directory of a simulation, or a client's model")
    if options.graph is None:
        raise SubflError(
            f"GRAPH: a model needs a graph, a client's folder or a file ({options.model} is no run of a simulation)"
        )
    parameters, card = read_model(options.model)
    links = card.task.scores_pairs
    if links and options.pairs is None:
        raise SubflError("--pairs: the model predicts links; name a table with the columns source and target")
    if not links and options.pairs is not None:
        raise SubflError("--pairs: the model classifies nodes; pairs are for models of link prediction")
    data = open_graph(options.graph, card, options.row_normalize)
    # The model sees the same part of a client's graph as in training, so that held-out links stay held out.
    visible = card.task.visible(data.graph) if data.of_client else data.graph
    outputs = model_outputs(parameters, card, visible)
    if links:
        columns, num_rows = _scored_pairs(outputs, data, options.pairs)
    else:
        predictions = node_predictions(outputs, card, data.names, data.labels)
        columns, num_rows = predictions.columns(options.out is not None), len(data.names)
    print(f"{card.method}'s model of client {card.client} ({card.dataset}) on {data.about}")
    if card.mended:
        print(f"Its {_MENDED}")
    _show([columns], num_rows, options.out)
    figures = _link_figures(outputs, data, card) if links else _class_figures(predictions.right, data)
    if figures:
        print(f"{card.task.metric}: {figures}")
    print_remarks(data.notes.dropped, data.notes.warnings)


def _predict_run(options: argparse.Namespace) -> None:
    if options.graph is not None or options.pairs is not None or options.row_normalize:
        raise SubflError(
            f"{options.model} is a run, whose clients predict their own nodes: only --out may be given; for another "
            f"graph name a client's model, {options.model}/clients/0000.safetensors"
        )
    run = RunToPredict.open(options.model)
    counts: dict[str, list[int]] = {name: [0, 0] for name in _ROLES}
    mended: set[int] = set()

    def tables() -> Iterator[Columns]:
        for client in run.clients():
            _count(client, counts)
            if client.card.mended:
                mended.add(client.card.client)
            yield _client_columns(client, options.out is not None)

    _show(tables(), run.num_nodes, options.out)
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
    table = Table(*header)
    for row in islice(rows, _HEAD):
        table.add_row(*(Text(str(value)) for value in row))  # a name may contain rich's markup
    deque(rows, maxlen=0)  # the figures are of all rows
    Console().print(table)
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl predict",
        usage="subfl predict RUN [--out FILE]\n       subfl predict MODEL GRAPH [--out FILE] [--pairs FILE]",
        description="Apply trained models: all clients' models of a simulation to their own nodes, or one client's\n"
        "model to a graph. Nodes and classes have the names of the data that the model was trained on.",
        epilog="""\
columns of the CSV file: node; of a run also client and role; prediction; of one graph also probability,
that of the prediction; p_NAME, the probability of the class NAME, for every class; label, where there are labels

A file is read as the training's files were (dataset.encoding, dataset.columns, dataset.unlabelled), and its features
are encoded, filled and scaled as in training. Its labels may be fewer classes than the model's, and no others.

examples:
  subfl predict outputs/2026-01-01/12-00-00 --out predictions.csv
  subfl predict outputs/2026-01-01/12-00-00/clients/0003.safetensors new_patients/ --out predictions.csv
  subfl predict client-03/runs/5e8d1a3074c8f5a0 client-03 --out predictions.csv""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a run directory of a simulation; or a folder with model.safetensors, or such a file of a run",
    )
    parser.add_argument(
        "graph",
        type=Path,
        nargs="?",
        metavar="GRAPH",
        help="a client's folder, or what dataset.path takes: a PyG Data file, or a folder with nodes.csv and "
        "edges.csv; none for a run directory",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all predictions as CSV; else the first 10")
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="for link prediction: a CSV or Parquet table whose columns source and target hold node ids",
    )
    parser.add_argument(
        "--row-normalize",
        action="store_true",
        help="make the feature rows of a file sum to one; only for a model whose card does not say how features were "
        "treated in training",
    )
    return parser
