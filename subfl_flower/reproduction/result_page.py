"""The page of an experiment in Markdown, made of its cards alone: table, paper's figures, notes, figures, cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from subfl_flower.evaluation.charts.chart import Chart
from subfl_flower.evaluation.charts.drawing import save_charts
from subfl_flower.evaluation.charts.looks import looks_of
from subfl_flower.evaluation.charts.row_charts import bytes_chart, convergence_chart, curves_chart
from subfl_flower.evaluation.curves import build_curves, crossings
from subfl_flower.evaluation.differences import difference_columns, interval_notes
from subfl_flower.evaluation.formats import MISSING, digits, scale
from subfl_flower.evaluation.main_table import main_table
from subfl_flower.evaluation.rows import BYTES_OF_SKIPPING, Row, build_rows
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.summary import number
from subfl_flower.evaluation.table import Column, markdown
from subfl_flower.reproduction.experiment import Experiment
from subfl_flower.reproduction.papers import PrintedTable

PAGE = "README.md"
_ROUNDS, _BYTES = "rounds", "bytes"


@dataclass(frozen=True)
class PrintedColumn(Column):
    """A column of a paper's figures, or of the distance to them.

    Attributes:
        printed: the paper's table.
        distance: show our figure minus the paper's instead of the paper's.
    """

    printed: PrintedTable | None = None
    distance: bool = False

    def cell(self, row: Row) -> str:
        """The paper's figure with its deviation, or the distance to it."""
        found = self.printed.printed_for(row) if self.printed else None
        value = self.key(row)
        if self.printed is None or found is None or value is None:
            return MISSING
        factor, decimals = scale(row.metric), digits(row.metric)
        if self.distance:
            return f"{factor * value:+.{decimals}f}"
        text = f"{factor * value:.{decimals}f}"
        if found.deviation is not None:
            text += f" ± {factor * self.printed.factor * found.deviation:.{decimals}f}"
        return text

    def key(self, row: Row) -> float | None:
        """The figure in the unit of runs' figures."""
        found = self.printed.printed_for(row) if self.printed else None
        if self.printed is None or found is None:
            return None
        value = self.printed.factor * found.value
        if not self.distance:
            return value
        own = row.mean(self.printed.of_rows)
        return None if own is None else own - value


def write_page(
    experiment: Experiment, runs: Sequence[Run], printed: PrintedTable | None, folder: Path, baseline: str | None = None
) -> list[Path]:
    """Write the page and its figures into a folder; return their paths.

    Args:
        experiment: the experiment.
        runs: of its cards.
        printed: the paper's table; None where there is none.
        folder: of the cards.
        baseline: see `difference_columns`.

    Raises:
        SubflError: a figure's key is in no run, or a file cannot be written.
    """
    rows = build_rows(runs)
    drawn = save_charts(charts_of(experiment, rows, runs), folder, "svg", 7.0)
    text = page_text(experiment, rows, runs, printed, [path.name for path in drawn], baseline)
    from subfl_flower.evaluation.reporting import write_text

    write_text(folder / PAGE, text)
    return [folder / PAGE, *drawn]


def page_text(
    experiment: Experiment,
    rows: Sequence[Row],
    runs: Sequence[Run],
    printed: PrintedTable | None,
    figures: Sequence[str],
    baseline: str | None = None,
) -> str:
    """The page in Markdown; `figures` are names of files beside it."""
    differences = difference_columns(rows, baseline)
    columns = [*_printed_columns(printed), *differences]
    table = main_table(rows, collapse=True, differences=columns)
    parts = [f"# {experiment.name}", experiment.description]
    parts.append(f"`subfl reproduce {experiment.name}` makes the runs and this page.")
    if table.title:
        parts.append(f"{table.title}:")
    notes = [*_notes(rows, printed, differences), *_meetings(experiment, runs)]
    parts += [markdown(table, bold=True), _listed(notes)]
    parts += [f"![{Path(name).stem}]({name})" for name in figures]
    parts.append(cost_text(runs))
    return "\n\n".join(part for part in parts if part) + "\n"


def _printed_columns(printed: PrintedTable | None) -> list[Column]:
    if printed is None or not printed.at_hand or not printed.rows:
        return []
    return [
        PrintedColumn("paper", printed.of_rows, optional=True, printed=printed),
        PrintedColumn("ours − paper", printed.of_rows, optional=True, printed=printed, distance=True),
    ]


def _notes(rows: Sequence[Row], printed: PrintedTable | None, differences: Sequence[Column]) -> list[str]:
    notes = []
    if printed is not None:
        at_hand = "" if printed.at_hand else " Its figures are not at hand."
        notes.append(f"Paper: {printed.source}.{at_hand}" + (f" {printed.note}" if printed.note else ""))
    notes.append("± is the sample standard deviation over all runs of a row. Bytes are those of a whole run.")
    if any(row.spread(BYTES_OF_SKIPPING) for row in rows):
        notes.append(
            "A FedAvg that skips leaves out first-layer rows of features that a client does not have. Any method "
            "could; it tells the server which features (of documents: which words) a client has. Savings beyond it are "
            "masks and pruning, which tell the server which weights a client keeps."
        )
    return [*notes, *interval_notes(differences)]


def _meetings(experiment: Experiment, runs: Sequence[Run]) -> list[str]:
    """Where the curves of the figures meet references."""
    keys = [asked for asked in experiment.figures if asked not in (_ROUNDS, _BYTES)]
    return [f"{each.text(key)}." for key in keys for each in crossings(build_curves(runs, key))]


def _listed(notes: Sequence[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


def charts_of(experiment: Experiment, rows: Sequence[Row], runs: Sequence[Run]) -> list[Chart]:
    """The figures that the experiment asks for.

    Raises:
        SubflError: a key is in no run's configuration.
    """
    found: list[Chart | None] = []
    for asked in experiment.figures:
        if asked == _ROUNDS:
            found.append(convergence_chart(rows, looks_of((row.method, row.label) for row in rows)))
        elif asked == _BYTES:
            found.append(bytes_chart(rows, looks_of((row.method, row.label) for row in rows)))
        else:
            curves = build_curves(runs, asked)
            looks = looks_of((curve.row.method, curve.row.label) for curve in curves)
            found.append(curves_chart(curves, asked, looks))
    return [chart for chart in found if chart is not None]


def cost_text(runs: Sequence[Run]) -> str:
    """A sentence on the time that runs took, and the versions that they are of."""
    wall, processor = _seconds(runs, "seconds"), _seconds(runs, "cpu_seconds")
    words = f"Cost: {len(runs)} runs, {_duration(math.fsum(wall))} of wall-clock time"
    if processor:
        known = "" if len(processor) == len(runs) else f" ({len(processor)} of them say it)"
        words += f", {_duration(math.fsum(processor))} of processor time{known}"
    versions = {str((run.figures.get("versions") or {}).get("subfl-flower")) for run in runs}
    commits = {str(run.figures["git_commit"])[:10] for run in runs if run.figures.get("git_commit")}
    made = f"version {', '.join(sorted(versions))}" + (f", commit {', '.join(sorted(commits))}" if commits else "")
    return f"{words}; {made}."


def _seconds(runs: Iterable[Run], name: str) -> list[float]:
    return [value for run in runs if (value := number(run.figures.get(name))) is not None]


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.2g} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"
