"""`subfl predict MODEL GRAPH`: what a client's model says of the nodes, or of pairs of nodes, of a graph."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from subfl_flower.commands.csv_file import write_csv
from subfl_flower.commands.graph_to_predict import GraphToPredict, open_graph
from subfl_flower.data.datasets.custom_tables import read_pairs
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION
from subfl_flower.errors import SubflError
from subfl_flower.models.exported import ModelCard, read_model
from subfl_flower.tasks import LinkPrediction
from subfl_flower.tasks.link_prediction import pair_scores

_HEAD = 10
Rows = list[tuple[object, ...]]


def main(argv: Sequence[str]) -> int:
    """Runs `subfl predict ARGV`; the exit code, 2 for what the user can mend."""
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    try:
        _predict(options)
    except SubflError as error:
        print(f"subfl predict: {error}", file=sys.stderr)
        return 2
    return 0


def _predict(options: argparse.Namespace) -> None:
    parameters, card = read_model(options.model)
    links = isinstance(card.task, LinkPrediction)
    if links and options.pairs is None:
        raise SubflError("--pairs: the model predicts links; name a table with the columns source and target")
    if not links and options.pairs is not None:
        raise SubflError("--pairs: the model classifies nodes; pairs are for models of link prediction")
    data = open_graph(options.graph, options.row_normalize or bool(card.row_normalize), options.classes)
    if data.graph.num_features != card.num_features:
        raise SubflError(
            f"{options.model} reads {card.num_features} features a node, and {options.graph} has "
            f"{data.graph.num_features}"
        )
    outputs = _outputs(parameters, card, data)
    header, rows = _scored_pairs(outputs, data, options.pairs) if links else _classified(outputs, data, card)
    print(f"{card.method}'s model of client {card.client} ({card.dataset}) on {data.about}")
    if card.mended:
        print("Its graph was mended by other nodes in training; without these its figures are not those of the run.")
    _show(header, rows, options.out)
    _print_figures(outputs, data, card)


@torch.no_grad()
def _outputs(parameters: dict[str, np.ndarray], card: ModelCard, data: GraphToPredict) -> Tensor:
    """What the model makes of every node, [nodes, outputs], without dropout.

    Of a client's own graph it sees what it saw in training, so that links that were held out stay so.
    """
    visible = card.task.visible(data.graph) if data.of_client else data.graph
    stacked = {name: torch.from_numpy(values).unsqueeze(0) for name, values in parameters.items()}
    return card.gnn(stacked, card.gnn.chunk([visible]))[0]


def _classified(outputs: Tensor, data: GraphToPredict, card: ModelCard) -> tuple[list[str], Rows]:
    probability, predicted = torch.softmax(outputs, dim=1).max(dim=1)
    header = ["node", "prediction", "probability"]
    columns: list[Sequence[object]] = [
        data.names.tolist(),
        predicted.tolist(),
        [f"{value:.6f}" for value in probability.tolist()],
    ]
    labels = data.comparable_labels(card.num_classes)
    if labels is not None:
        header.append("label")
        columns.append(["" if label < 0 else label for label in labels.tolist()])
    return header, list(zip(*columns, strict=True))


def _scored_pairs(outputs: Tensor, data: GraphToPredict, path: Path) -> tuple[list[str], Rows]:
    ids = pd.Index(data.names.astype(str))
    pairs = read_pairs(path, ids, "a node of the graph")
    scores = [f"{value:.6g}" for value in pair_scores(outputs, torch.from_numpy(pairs)).tolist()]
    source, target = (data.names[ends].tolist() for ends in pairs)
    return ["source", "target", "score"], list(zip(source, target, scores, strict=True))


def _show(header: Sequence[str], rows: Rows, out: Path | None) -> None:
    """Write all rows to `out`, or show the first ones."""
    if out is None:
        table = Table(*header)
        for row in rows[:_HEAD]:
            table.add_row(*(str(value) for value in row))
        Console().print(table)
        if len(rows) > _HEAD:
            print(f"and {len(rows) - _HEAD} more; --out FILE writes them all")
        return
    write_csv(out, header, rows)
    print(f"{len(rows)} predictions in {out}")


def _print_figures(outputs: Tensor, data: GraphToPredict, card: ModelCard) -> None:
    """The task's metric, measured as in training, where the graph says what is true."""
    graph = data.graph
    if isinstance(card.task, LinkPrediction):
        if data.of_client:
            validation, test = card.task.examples([graph], torch.device("cpu")).evaluate(outputs.unsqueeze(0))
            print(f"{card.task.metric}: validation {float(validation):.4f}, test {float(test):.4f}")
        return
    labels = data.comparable_labels(card.num_classes)
    if labels is None:
        if graph.labels is not None:
            print(
                f"labels are left out: the graph has {graph.num_classes} classes, the model {card.num_classes}",
                file=sys.stderr,
            )
        return
    correct = outputs.argmax(dim=1).numpy() == labels
    groups = {"labelled nodes": labels >= 0}
    if data.of_client:
        roles = {"train": TRAIN, "validation": VALIDATION, "test": TEST}
        groups = {name: graph.roles == role for name, role in roles.items()}
    parts = [
        f"{name} {correct[members].mean():.4f} ({members.sum()})" for name, members in groups.items() if members.any()
    ]
    if parts:
        print(f"{card.task.metric}: {', '.join(parts)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl predict",
        description="Apply a client's trained model to a graph: the class of every node, or scores of pairs of nodes.",
    )
    parser.add_argument(
        "model", type=Path, metavar="MODEL", help="a folder with model.safetensors, or such a file of a run"
    )
    parser.add_argument(
        "graph",
        type=Path,
        metavar="GRAPH",
        help="a client's folder, or what dataset.path takes: a PyG Data file, or a folder with nodes.csv and edges.csv",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write all predictions as CSV; else the first 10")
    parser.add_argument(
        "--pairs",
        type=Path,
        metavar="FILE",
        help="for link prediction: a CSV or Parquet table whose columns source and target hold node ids",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        type=lambda text: tuple(text.split(",")),
        help="a file's labels in the order of their class numbers, as dataset.classes in training; by default sorted",
    )
    parser.add_argument(
        "--row-normalize",
        action="store_true",
        help="make the feature rows of a file sum to one, as dataset.row_normalize=true does; by default as the "
        "model's card says, and where it says nothing they are taken as they are. A client's folder needs none of it",
    )
    return parser
