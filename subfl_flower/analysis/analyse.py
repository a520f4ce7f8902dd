"""`subfl analyse RUN...`: analyses of the partition and of the clients' models of finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from subfl_flower.errors import SubflError

SUMMARY = "Analyse the partition and the clients' models of finished runs."
EXAMPLE = """
subfl analyse outputs/2026-01-01/12-00-00
subfl analyse --data dataset=cora partition.clients=5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs, or the data to describe without any."""
    parser.description = """\
Statistics of the partition, similarity of the clients' models, their performance on neighbouring clients,
and the weights that they have in common: tables, plots and analysis.json of finished runs."""
    parser.add_argument(
        "run", nargs="*", type=Path, metavar="RUN", help="a run directory, or a folder searched for runs"
    )
    parser.add_argument(
        "--data",
        nargs="+",
        metavar="OVERRIDE",
        help="describe a partition without a run, such as dataset=cora partition.clients=5; writes nothing",
    )
    parser.add_argument("--no-plots", action="store_true", help="draw no PNG plots")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of what concerns several runs (default: the one that holds them)",
    )


def run(options: argparse.Namespace) -> int:
    """Analyse the runs, or describe the partition of `--data`.

    Tables and the paths of written files, one a line, go to standard output. Analyses that are left out, and the
    reasons, go to standard error.

    Raises:
        SubflError: neither runs nor data are given, or both; or they cannot be read.
    """
    if bool(options.run) == bool(options.data):
        raise SubflError("give either run directories or --data with overrides")
    from subfl_flower.analysis.analysing import analyse, describe_data  # loads torch, pandas and matplotlib

    if options.data:
        describe_data(options.data)
    else:
        analyse(options.run, options.out, not options.no_plots)
    return 0
