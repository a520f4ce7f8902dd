"""`subfl report RUN...`: the table of finished runs, their plots, and one page with both."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.comparison import plot_comparison
from subfl_flower.evaluation.curve_plot import plot_curves
from subfl_flower.evaluation.curve_table import curve_cells, write_curve_csv
from subfl_flower.evaluation.curves import Curve, build_curves
from subfl_flower.evaluation.html import render_page
from subfl_flower.evaluation.plots import plot_run
from subfl_flower.evaluation.round_time import round_time
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import Run, common_folder, load_runs
from subfl_flower.evaluation.table import markdown_layout, markdown_table, rich_layout, rich_table, write_csv
from subfl_flower.evaluation.target import check_share, target_cells, write_target_csv
from subfl_flower.runs.directory import RunDirectory


def main(argv: Sequence[str]) -> int:
    """Report on the runs that `argv` names; return the exit code, 2 for errors that the user can mend.

    The table and the paths of written files, one a line, go to standard output. With `--markdown` the paths go to
    standard error, so that the table can be redirected into a document.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    try:
        _report(options)
    except SubflError as error:
        print(f"subfl report: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever reads (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _report(options: argparse.Namespace) -> None:
    if options.reach is not None:
        check_share(options.reach)
    runs = load_runs(options.run)
    rows = build_rows(runs)
    curves = build_curves(runs, options.curve) if options.curve else []
    _print_tables(rows, runs, curves, options)
    written: list[Path] = []
    folder = options.out or common_folder(options.run, runs)
    if options.csv:
        write_csv(rows, options.csv)
        written.append(options.csv)
        if curves:
            beside = options.csv.with_name(f"{options.csv.stem}-{_curve_name(options)}.csv")
            write_curve_csv(curves, options.curve, beside)
            written.append(beside)
        if options.reach is not None:
            beside = options.csv.with_name(f"{options.csv.stem}-reach-{options.reach:g}.csv")
            write_target_csv(rows, options.reach, beside)
            written.append(beside)
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
        curve_plot = plot_curves(curves, options.curve, folder / f"{_curve_name(options)}.png")
        written += [curve_plot] if curve_plot else []
    if options.html:
        page = RunDirectory(folder).report_page
        _write(page, render_page(rows, runs, plots, comparison, curves, options.curve, curve_plot, options.reach))
        written.append(page)
    for path in written:
        print(path, file=sys.stderr if options.markdown else sys.stdout)


def _print_tables(
    rows: Sequence[Row], runs: Sequence[Run], curves: Sequence[Curve], options: argparse.Namespace
) -> None:
    if options.markdown:
        print(markdown_table(rows))
        if curves:
            print("\n" + markdown_layout(*curve_cells(curves, options.curve, collapse=False)[1:]))
        if options.reach is not None:
            print("\n" + markdown_layout(*target_cells(rows, options.reach, collapse=False)[1:]))
        return
    tables = [rich_table(rows)]
    if curves:
        whole = [all(row.completed for row in curve.rows) for curve in curves]
        tables.append(rich_layout(*curve_cells(curves, options.curve, collapse=True), whole))
    if options.reach is not None:
        whole = [row.completed for row in rows]
        tables.append(rich_layout(*target_cells(rows, options.reach, collapse=True), whole))
    for table in tables:
        needed = Console(width=1000).measure(table).maximum
        # where the table does not fit, let the terminal break its lines: rich would cut numbers away
        Console(width=max(needed, Console().width)).print(table)
    for run in runs:
        if sentence := round_time(run):
            print(sentence if len(runs) == 1 else f"{run.path}: {sentence}")
    sys.stdout.flush()


def _curve_name(options: argparse.Namespace) -> str:
    return f"curve-{options.curve}"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}; --out names another folder") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl report",
        description="Table (mean ± sample standard deviation over seeds) and plots of finished runs.",
    )
    parser.add_argument(
        "run", nargs="+", type=Path, metavar="RUN", help="a run directory, or a folder searched for runs"
    )
    parser.add_argument(
        "--curve",
        metavar="KEY",
        help="tabulate and plot the test metric against the values of a numeric configuration key, "
        "such as partition.rate",
    )
    parser.add_argument(
        "--reach",
        type=float,
        metavar="SHARE",
        help="tabulate the first round, and the bytes up to it, at which the test metric had reached this share of its "
        "value at the best validation round, such as 0.95",
    )
    parser.add_argument(
        "--csv", type=Path, metavar="FILE", help="write the table as CSV with plain numbers (further ones beside it)"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table in Markdown; paths go to stderr")
    parser.add_argument("--html", action="store_true", help="write report.html, one page with table and plots")
    parser.add_argument("--no-plots", action="store_true", help="draw no PNG plots")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the plots over several runs and of the page (default: the runs' own)",
    )
    return parser
