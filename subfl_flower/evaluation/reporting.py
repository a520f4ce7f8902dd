"""The work of `subfl report`: print and write what the options ask for."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.comparison import plot_comparison
from subfl_flower.evaluation.curve_plot import plot_curves
from subfl_flower.evaluation.curves import Curve, build_curves, curve_means, curve_table
from subfl_flower.evaluation.html import render_page
from subfl_flower.evaluation.main_table import main_means, main_table
from subfl_flower.evaluation.plots import plot_run
from subfl_flower.evaluation.round_time import round_time
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import Run, common_folder, load_runs
from subfl_flower.evaluation.table import Table, markdown, rich_table, write_csv
from subfl_flower.evaluation.target import check_share, target_means, target_table
from subfl_flower.runs.directory import RunDirectory


def report(options: argparse.Namespace) -> None:
    """Print tables and write files; see `subfl_flower.evaluation.report` for the options.

    Raises:
        SubflError: a run cannot be read, a file not be written, or an argument has no meaning for these runs.
    """
    if options.reach is not None:
        check_share(options.reach)
    runs = load_runs(options.run)
    rows = build_rows(runs)
    curves = build_curves(runs, options.curve) if options.curve else []
    _print_tables(_tables(rows, curves, options), runs, options.markdown)
    folder = options.out or common_folder(options.run, runs)
    written = _write_csv_files(rows, curves, options) if options.csv else []
    plots = {} if options.no_plots else {run.path: [*plot_run(run), *run.directory.analysis_plots()] for run in runs}
    if len(runs) == 1:
        written += plots.get(runs[0].path, [])
    else:  # a line a run: a sweep's many files would push the table off the screen
        written += [run.directory.plots_folder for run in runs if plots.get(run.path)]
    comparison = None
    if len(runs) > 1 and not options.no_plots:
        comparison = plot_comparison(rows, folder / "convergence.png")
        written += [comparison] if comparison else []
    curve_plot = None
    if curves and not options.no_plots:
        curve_plot = plot_curves(curves, options.curve, folder / f"curve-{options.curve}.png")
        written += [curve_plot] if curve_plot else []
    if options.html:
        page = RunDirectory(folder).report_page
        _write(page, render_page(rows, runs, plots, comparison, curves, options.curve, curve_plot, options.reach))
        written.append(page)
    for path in written:
        print(path, file=sys.stderr if options.markdown else sys.stdout)


def _tables(rows: Sequence[Row], curves: Sequence[Curve], options: argparse.Namespace) -> list[Table]:
    collapse = not options.markdown
    tables = [main_table(rows, collapse)]
    tables += [curve_table(curves, options.curve, collapse)] if curves else []
    return tables + ([] if options.reach is None else [target_table(rows, options.reach, collapse)])


def _write_csv_files(rows: Sequence[Row], curves: Sequence[Curve], options: argparse.Namespace) -> list[Path]:
    tables: dict[str, pd.DataFrame] = {"": main_means(rows)}
    if curves:
        tables[f"-curve-{options.curve}"] = curve_means(curves, options.curve)
    if options.reach is not None:
        tables[f"-reach-{options.reach:g}"] = target_means(rows, options.reach)
    path: Path = options.csv
    beside = {end: path.with_name(f"{path.stem}{end}.csv") if end else path for end in tables}
    return [write_csv(table, beside[end]) for end, table in tables.items()]


def _print_tables(tables: Sequence[Table], runs: Sequence[Run], as_markdown: bool) -> None:
    if as_markdown:
        print("\n\n".join(map(markdown, tables)))
        return
    for table in map(rich_table, tables):
        needed = Console(width=1000).measure(table).maximum
        # where the table does not fit, let the terminal break its lines: rich would cut numbers away
        Console(width=max(needed, Console().width)).print(table)
    for run in runs:
        if sentence := round_time(run):
            print(sentence if len(runs) == 1 else f"{run.path}: {sentence}")
    sys.stdout.flush()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}; --out names another folder") from None
