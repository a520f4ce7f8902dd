"""`subfl report RUN...`: the table of finished runs, their plots, and one page with both."""

from __future__ import annotations

import argparse
from pathlib import Path

from subfl_flower.errors import SubflError

SUMMARY = "Table (mean ± sample standard deviation over seeds) and plots of finished runs."
EXAMPLE = """
subfl report multirun/2026-01-01/12-00-00 --html
subfl report multirun/2026-01-01/12-00-00 --latex --figures pdf --width 3.3
subfl report outputs/2026-01-01/12-00-00 outputs/2026-01-01/12-30-00 --csv table.csv --reach 0.95
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the runs and the forms of the report."""
    parser.add_argument(
        "run", nargs="+", type=Path, metavar="RUN", help="a run directory, or a folder searched for runs"
    )
    parser.add_argument(
        "--baseline",
        metavar="METHOD",
        help="add differences to this method and to the best other one, paired over splits and seeds, with 95 %% "
        "intervals; the page has those to fedavg in any case",
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
        "--csv",
        type=Path,
        metavar="FILE",
        help="write every figure of every seed as CSV, a line each; beside it FILE-means.csv with the table",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="print the table in Markdown; paths go to stderr")
    form.add_argument("--latex", action="store_true", help="print the table for LaTeX; paths go to stderr")
    parser.add_argument("--html", action="store_true", help="write report.html, one page with tables and figures")
    parser.add_argument(
        "--figures", choices=("svg", "pdf", "png"), help="write the figures of the page, one file each, into figures/"
    )
    parser.add_argument(
        "--width", type=float, metavar="INCHES", help="width of --figures, such as 3.3 for a column of a paper"
    )
    parser.add_argument("--no-plots", action="store_true", help="draw no PNG plots")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder of the plots over several runs and of the page (default: the runs' own)",
    )


def run(options: argparse.Namespace) -> int:
    """Report on the runs.

    The table and the paths of written files, one a line, go to standard output. With `--markdown` the paths go to
    standard error, so that the table can be redirected into a document.

    Raises:
        SubflError: a run cannot be read, a file not be written, or an argument has no meaning for these runs.
    """
    if options.width is not None and not (options.figures and 1 <= options.width <= 40):
        raise SubflError(f"--width {options.width:g}: takes from 1 to 40 inches, and goes with --figures")
    from subfl_flower.evaluation.reporting import report  # loads pandas and matplotlib

    report(options)
    return 0
