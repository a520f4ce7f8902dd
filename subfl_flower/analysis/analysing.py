"""The work of `subfl analyse`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from subfl_flower.analysis.comparison import compare, write_comparison
from subfl_flower.analysis.run_analysis import PartitionAnalysis, RunAnalysis, analyse_run, prepared_partition
from subfl_flower.analysis.tables import clients_table, methods_table, partition_table
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.evaluation.charts.analysis_charts import analysis_charts, methods_chart
from subfl_flower.evaluation.charts.drawing import save_charts
from subfl_flower.evaluation.charts.run_charts import title
from subfl_flower.evaluation.rows import Row
from subfl_flower.evaluation.runs import Run, common_folder, load_runs
from subfl_flower.registry import stored_config


def describe_data(overrides: Sequence[str]) -> None:
    """Print the statistics of the partition that overrides describe."""
    config, _ = composed_config(overrides)
    partition = PartitionAnalysis.of(prepared_partition(config))
    heading = _heading(config.dataset.name, config.partition.name, len(partition.graphs))
    _print(*partition_table(partition.statistics, heading, every_client=True))


def analyse(paths: Sequence[Path], out: Path | None, plots: bool) -> None:
    """Print and write the analyses of runs.

    Args:
        paths: run directories, or folders searched for runs.
        out: folder of what concerns several runs; None for the one that holds them.
        plots: draw PNG plots.

    Raises:
        SubflError: a run cannot be read, none can be analysed, or a file cannot be written.
    """
    runs = load_runs(paths)
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
        charts = analysis_charts(analysis.plain(), title(analysis.run)) if plots else []
        drawn = save_charts(charts, analysis.run.directory.plots_folder)
        if alone:
            written += drawn
        elif drawn:  # a line a run: a sweep's many files would push the tables off the screen
            written.append(analysis.run.directory.plots_folder)
    if not alone:
        folder = out or common_folder(paths, runs)
        written.append(write_comparison(methods, folder / "analysis.csv"))
        chart = methods_chart(methods) if plots else None
        written += save_charts([chart] if chart else [], folder)
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


def _partitions(analyses: Sequence[RunAnalysis], rows: Sequence[Row]) -> dict[str, PartitionAnalysis]:
    """Each partition once, by its title."""
    data = {run.path: row.data for row in rows for run in row.runs}
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
