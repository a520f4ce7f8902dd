"""The work of `subfl report`: print and write what the options ask for."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.charts.chart import Chart
from subfl_flower.evaluation.charts.drawing import save_charts
from subfl_flower.evaluation.charts.looks import looks_of
from subfl_flower.evaluation.charts.row_charts import convergence_chart, curves_chart, row_charts
from subfl_flower.evaluation.charts.run_charts import run_charts
from subfl_flower.evaluation.curves import Curve, build_curves, curve_means, curve_table
from subfl_flower.evaluation.differences import difference_columns, interval_notes
from subfl_flower.evaluation.main_table import by_seed, main_means, main_table
from subfl_flower.evaluation.page.page import Report, render_page
from subfl_flower.evaluation.round_time import round_time
from subfl_flower.evaluation.rows import PRIVACY_LOSS, Row, build_rows
from subfl_flower.evaluation.runs import Run, common_folder, load_runs
from subfl_flower.evaluation.table import Table, latex, markdown, rich_table, write_csv
from subfl_flower.evaluation.target import check_share, target_means, target_table
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.storage.durable_files import PUBLIC_FILE, write_durably


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
    text = latex if options.latex else markdown if options.markdown else None
    tables = _tables(rows, curves, options, collapse=not options.markdown)
    notes = interval_notes(difference_columns(rows, options.baseline)) if options.baseline else []
    if text:
        print("\n\n".join(map(text, tables.values())))
        for note in notes:
            print(f"\n{'% ' if options.latex else ''}{note}")
    else:
        _print(list(tables.values()), runs)
        for note in notes:
            print(note)
    folder = options.out or common_folder(options.run, runs)
    written = _write_csv_files(rows, curves, options) if options.csv else []
    if not options.no_plots:
        written += _plots(rows, runs, curves, options.curve, folder)
    if options.figures:
        charts = run_charts(runs[0]) if len(runs) == 1 else _charts(rows, runs, curves, options.curve)
        written += save_charts(charts, folder / "figures", options.figures, options.width)
    if options.html:
        page = RunDirectory(folder).report_page
        write_text(page, render_page(_page(rows, runs, curves, options)))
        written.append(page)
    for path in written:
        print(path, file=sys.stderr if text else sys.stdout)


def _tables(
    rows: Sequence[Row], curves: Sequence[Curve], options: argparse.Namespace, collapse: bool, on_page: bool = False
) -> dict[str, Table]:
    """Tables by heading."""
    differences = difference_columns(rows, options.baseline) if on_page or options.baseline else []
    tables = {"Results": main_table(rows, collapse, differences)}
    if curves:
        tables[options.curve] = curve_table(curves, options.curve, collapse)
    if options.reach is not None:
        tables[f"{100 * options.reach:g} % of the final test metric"] = target_table(rows, options.reach, collapse)
    return tables


def _charts(rows: Sequence[Row], runs: Sequence[Run], curves: Sequence[Curve], key: str | None) -> list[Chart]:
    """Figures over several runs, and of methods with a privacy loss that over this loss."""
    looks = looks_of((row.method, row.label) for row in rows)
    charts = row_charts(rows, looks)
    along = {key: curves} if key else {}
    if key != PRIVACY_LOSS and any(row.mean("user_level_epsilon") not in (None, float("inf")) for row in rows):
        along[PRIVACY_LOSS] = build_curves(runs, PRIVACY_LOSS)
    for name, found in along.items():
        looks_along = looks_of((curve.row.method, curve.row.label) for curve in found)
        charts += [chart] if (chart := curves_chart(found, name, looks_along)) else []
    return charts


def _plots(
    rows: Sequence[Row], runs: Sequence[Run], curves: Sequence[Curve], key: str | None, folder: Path
) -> list[Path]:
    """Write the PNG plots of each run, and two over several runs; return files, or folders of several runs' files."""
    drawn = {run.path: save_charts(run_charts(run), run.directory.plots_folder) for run in runs}
    if len(runs) == 1:
        written = [*drawn[runs[0].path], *runs[0].directory.analysis_plots()]
    else:  # a line a run: a sweep's many files would push the table off the screen
        written = [run.directory.plots_folder for run in runs if drawn[run.path]]
    charts: list[Chart | None] = []
    if len(runs) > 1:
        charts.append(convergence_chart(rows, looks_of((row.method, row.label) for row in rows)))
    if key:
        charts.append(curves_chart(curves, key, looks_of((curve.row.method, curve.row.label) for curve in curves)))
    return written + save_charts(filter(None, charts), folder)


def _page(rows: Sequence[Row], runs: Sequence[Run], curves: Sequence[Curve], options: argparse.Namespace) -> Report:
    charts = _charts(rows, runs, curves, options.curve) if len(runs) > 1 or curves else []
    tables = _tables(rows, curves, options, collapse=True, on_page=True)
    return Report(f"subfl {shlex.join(sys.argv[1:])}", rows, runs, tables, charts)


def _write_csv_files(rows: Sequence[Row], curves: Sequence[Curve], options: argparse.Namespace) -> list[Path]:
    tables: dict[str, pd.DataFrame] = {"": by_seed(rows), "-means": main_means(rows)}
    if curves:
        tables[f"-curve-{options.curve}"] = curve_means(curves, options.curve)
    if options.reach is not None:
        tables[f"-reach-{options.reach:g}"] = target_means(rows, options.reach)
    path: Path = options.csv
    beside = {end: path.with_name(f"{path.stem}{end}.csv") if end else path for end in tables}
    return [write_csv(table, beside[end]) for end, table in tables.items()]


def _print(tables: Sequence[Table], runs: Sequence[Run]) -> None:
    for table in map(rich_table, tables):
        needed = Console(width=1000).measure(table).maximum
        # where the table does not fit, let the terminal break its lines: rich would cut numbers away
        Console(width=max(needed, Console().width)).print(table)
    for run in runs:
        if sentence := round_time(run):
            print(sentence if len(runs) == 1 else f"{run.path}: {sentence}")
    sys.stdout.flush()


def write_text(path: Path, text: str) -> None:
    """Write a page; SubflError where it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.encode(), PUBLIC_FILE)
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}; --out names another folder") from None
