"""The table at the end of a sweep: a line a method and data set, mean and deviation over seeds, counts of statuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from subfl_flower.evaluation.main_table import result_columns
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import VALIDATION, load_runs
from subfl_flower.evaluation.table import Column, make_table, rich_table
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.sweeps.fingerprint import with_effect

_VALIDATION = Column("validation", VALIDATION)


def print_sweep_table(folders: Sequence[Path]) -> None:
    """Print the table of runs, each in its folder; those without a file of a run are left out."""
    held = [folder for folder in dict.fromkeys(folders) if RunDirectory.is_run(folder)]
    if not held:
        return
    # Settings without effect on results, such as the size of a chunk, may differ between calls.
    runs = [replace(run, config=with_effect(run.config)) for run in load_runs(held)]
    table = sweep_table(build_rows(runs))
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(needed, Console().width)).print(table)


def sweep_table(rows: Sequence[Row]) -> Table:
    """The table of some rows; its notes count the statuses of their runs."""
    statuses = [Counter(run.status for run in row.runs) for row in rows]
    jobs = [", ".join(f"{count} {status}" for status, count in counts.items()) for counts in statuses]
    columns = [replace(column, rated=False) for column in result_columns(rows)]
    further = [] if any(column.figure == VALIDATION for column in columns) else [_VALIDATION]
    return rich_table(make_table(rows, [*columns, *further], collapse=False, note=jobs))
