"""The table at the end of a sweep: a line a method and data set, mean and deviation over seeds, counts of statuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from subfl_flower.evaluation.formats import MISSING, in_own_unit
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.evaluation.table import identity
from subfl_flower.runs.directory import RunDirectory


def print_sweep_table(folders: Sequence[Path]) -> None:
    """Print the table of runs, each in its folder; those without a file of a run are left out."""
    held = [folder for folder in dict.fromkeys(folders) if RunDirectory.is_run(folder)]
    if not held:
        return
    table = sweep_table(build_rows(load_runs(held)))
    needed = Console(width=1000).measure(table).maximum
    Console(width=max(needed, Console().width)).print(table)


def sweep_table(rows: Sequence[Row]) -> Table:
    """The table of some rows."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head in ("dataset", "partition", "clients", "metric", "method"):
        table.add_column(head)
    for head in ("seeds", "test at best validation", "validation", "jobs"):
        table.add_column(head, justify="right" if head != "jobs" else "left")
    for row, (_, about) in zip(rows, identity(rows).iterrows(), strict=True):
        statuses = Counter(run.status for run in row.runs)
        spreads = [row.spread(name) for name in ("test_at_best_validation", "best_validation")]
        figures = [MISSING if found is None else in_own_unit(found, row) for found in spreads]
        table.add_row(
            *(about[head] for head in ("dataset", "partition", "clients", "metric")),
            "\n  ".join([row.method, *row.settings.split(", ")]).rstrip(),
            str(len(row.counted)),
            *figures,
            ", ".join(f"{count} {status}" for status, count in statuses.items()),
            style=None if row.completed else "yellow",
        )
    return table
