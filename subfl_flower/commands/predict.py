"""`subfl predict`: apply trained models to the nodes of a graph, or to pairs of nodes."""

from __future__ import annotations

import argparse
from pathlib import Path

from subfl_flower.commands.exit_codes import OK
from subfl_flower.errors import SubflError

SUMMARY = "Apply the trained models of a run, or one client's model, to the nodes of a graph."
EXAMPLE = """
subfl predict outputs/2026-01-01/12-00-00 --out predictions.csv
subfl predict outputs/2026-01-01/12-00-00/clients/0003.safetensors new_patients/ --out predictions.csv
subfl predict client-03/runs/5e8d1a3074c8f5a0 client-03 --out predictions.csv
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model, the graph, and the files to read and write."""
    parser.usage = "subfl predict RUN [--out FILE]\n       subfl predict MODEL GRAPH [--out FILE] [--pairs FILE]"
    parser.description = """\
Apply trained models: all clients' models of a simulation to their own nodes, or one client's
model to a graph. Nodes and classes have the names of the data that the model was trained on."""
    parser.epilog = """\
columns of the CSV file: node; of a run also client and role; prediction; of one graph also probability,
that of the prediction; p_NAME, the probability of the class NAME, for every class; label, where there are labels

A file is read as the training's files were (dataset.encoding, dataset.columns, dataset.unlabelled), and its features
are encoded, filled and scaled as in training. Its labels may be fewer classes than the model's, and no others."""
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


def run(options: argparse.Namespace) -> int:
    """Show or write the predictions.

    Raises:
        SubflError: the model or the graph cannot be used, or an option does not fit them.
    """
    from subfl_flower.commands.predictions.output import predict_graph, predict_run
    from subfl_flower.runs.directory import RunDirectory

    model, graph = options.model, options.graph
    if RunDirectory.is_run(model):
        if graph is not None or options.pairs is not None or options.row_normalize:
            raise SubflError(
                f"{model} is a run, whose clients predict their own nodes: only --out may be given; for another "
                f"graph name a client's model, {model}/clients/0000.safetensors"
            )
        predict_run(model, options.out)
        return OK
    if not model.exists():
        raise SubflError(f"{model} does not exist; name a run directory of a simulation, or a client's model")
    if graph is None:
        raise SubflError(
            f"GRAPH: a model needs a graph, a client's folder or a file ({model} is no run of a simulation)"
        )
    predict_graph(model, graph, options.pairs, options.row_normalize, options.out)
    return OK
