"""`subfl analyse RUN...`: analyses of the partition and of the clients' models of finished runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from subfl_flower.analysis.comparison import MethodAnalysis, compare, plot_comparison, write_comparison
from subfl_flower.analysis.figures import plot_analysis
from subfl_flower.analysis.run_analysis import PartitionAnalysis, RunAnalysis, analyse_run, prepared_partition
from subfl_flower.analysis.tables import clients_table, methods_table, partition_table
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.plots import title
from subfl_flower.evaluation.runs import Run, common_folder, load_runs
from subfl_flower.registry import stored_config


def main(argv: Sequence[str]) -> int:
    """Analyse the runs that `argv` names; return the exit code, 2 for errors that the user can mend.

    Tables and the paths of written files, one a line, go to standard output. Analyses that are left out, and the
    reasons, go to standard error.
    """
    parser = _parser()
    try:
        options = parser.parse_args(argv)
        if bool(options.run) == bool(options.data):
            parser.error("give either run directories or --data with overrides")
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    sys.path.append(str(Path.cwd()))  # a run's method may be the user's class
    try:
        if options.data:
            _describe_data(options.data)
        else:
            _analyse(options)
    except SubflError as error:
        print(f"subfl analyse: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _describe_data(overrides: Sequence[str]) -> None:
    config, _ = composed_config(overrides)
    partition = PartitionAnalysis.of(prepared_partition(config))
    heading = _heading(config.dataset.name, config.partition.name, len(partition.graphs))
    _print(*partition_table(partition.statistics, heading, every_client=True))


def _analyse(options: argparse.Namespace) -> None:
    runs = load_runs(options.run)
    analyses = _analyses(runs)
    alone = len(analyses) == 1
    methods = compare(analyses)
    for heading, partition in _partitions(analyses, methods).items():
        _print(*partition_table(partition.statistics, heading, every_client=alone))
    if not alone:
        _print(*methods_table(methods))
    elif models := analyses[0].models:
        _print(*clients_table(models, title(analyses[0].run)))
    sys.stdout.flush()
    for analysis in analyses:
        for sentence in analysis.left_out:
            print(sentence if alone else f"{analysis.run.path}: {sentence}", file=sys.stderr)
    written: list[Path] = []
    for analysis in analyses:
        written.append(analysis.run.directory.write_analysis(analysis.plain()))
        plots = [] if options.no_plots else plot_analysis(analysis)
        if alone:
            written += plots
        elif plots:  # a line a run: a sweep's many files would push the tables off the screen
            written.append(analysis.run.directory.plots_folder)
    if not alone:
        folder = options.out or common_folder(options.run, runs)
        written.append(write_comparison(methods, folder / "analysis.csv"))
        plot = None if options.no_plots else plot_comparison(methods, folder / "analysis-neighbours.png")
        written += [plot] if plot else []
    for path in written:
        print(path)


def _analyses(runs: Sequence[Run]) -> list[RunAnalysis]:
    """Analyses of every run that can be analysed. For a single run that cannot, the reason is raised."""
    partitions: dict[Path, PartitionAnalysis] = {}
    analyses = []
    for run in runs:
        try:
            config = stored_config(run.directory.path)
            prepared = prepared_partition(config)
            if prepared.directory not in partitions:
                partitions[prepared.directory] = PartitionAnalysis.of(prepared)
            analyses.append(analyse_run(run, config, partitions[prepared.directory]))
        except SubflError as error:
            if len(runs) == 1:
                raise
            print(f"{run.path} is left out: {error}", file=sys.stderr)
    if not analyses:
        raise SubflError("none of the runs can be analysed")
    return analyses


def _partitions(analyses: Sequence[RunAnalysis], methods: Sequence[MethodAnalysis]) -> dict[str, PartitionAnalysis]:
    """Each partition once, by its title."""
    data = {run.path: method.row.data for method in methods for run in method.row.runs}
    named: dict[str, PartitionAnalysis] = {}
    for analysis in analyses:
        if not any(analysis.partition is known for known in named.values()):
            heading = _heading(*data[analysis.run.path])
            # a partition whose seed is the run's own differs within a row
            named[f"{heading}: {analysis.run.path}" if heading in named else heading] = analysis.partition
    return named


def _heading(dataset: str, partition: str, clients: object) -> str:
    return f"{dataset}, {partition}, {clients} clients"


def _print(table: Table, note: str) -> None:
    needed = Console(width=1000).measure(table).maximum
    # where the table does not fit, let the terminal break its lines: rich would cut numbers away
    Console(width=max(needed, Console().width)).print(table)
    print(note)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl analyse",
        description="Statistics of the partition, similarity of the clients' models, their performance on neighbouring "
        "clients, and the weights that they have in common: tables, plots and analysis.json of finished runs.",
    )
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
    return parser
