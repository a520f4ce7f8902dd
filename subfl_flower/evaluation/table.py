"""Tables of rows: for the terminal, Markdown and CSV."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table as RichTable

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.formats import MISSING, Format, in_own_unit, unit_suffix
from subfl_flower.evaluation.rows import PANEL, Row

_HEAD_WIDTH = 7
_WORDS = ("dataset", "partition", "metric", "method", "note")


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        head: the column's head.
        figure: the figure of each row, see `Row.spread`.
        text: how it is shown.
        optional: leave the column out where it is empty in all rows.
    """

    head: str
    figure: str
    text: Format = in_own_unit
    optional: bool = False

    def cell(self, row: Row) -> str:
        """The text for a row."""
        found = row.spread(self.figure)
        return MISSING if found is None else self.text(found, row)


@dataclass(frozen=True)
class Table:
    """Cells as text: a line a row, heads as columns.

    Attributes:
        title: the table's title, or "".
        cells: the cells.
        whole: for each line, true if its runs were completed; the others are marked by colour.
    """

    title: str
    cells: pd.DataFrame
    whole: tuple[bool, ...]

    @property
    def heads(self) -> list[str]:
        """The column heads."""
        return list(self.cells)

    @property
    def lines(self) -> list[list[str]]:
        """The cells by line."""
        found: list[list[str]] = self.cells.values.tolist()
        return found


def make_table(
    rows: Sequence[Row], columns: Sequence[Column], collapse: bool, about: str = "", **words: Sequence[str]
) -> Table:
    """Lay out rows as identity, number of seeds, the given columns, and a note.

    Args:
        rows: at least one.
        columns: the columns of figures.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
        about: begin of the title.
        words: cells in place of the rows' own `seeds` or `note`.
    """
    cells = identity(rows)
    cells["metric"] += cells["metric"].map(unit_suffix)
    cells["seeds"] = list(words.get("seeds") or [str(len(row.counted)) for row in rows])
    for column in columns:
        cells[column.head] = [column.cell(row) for row in rows]
    cells["note"] = list(words.get("note") or [row.note for row in rows])
    optional = ["settings", "note", *(column.head for column in columns if column.optional)]
    cells = cells.drop(columns=[head for head in optional if cells[head].isin(("", MISSING)).all()])
    shared = [head for head in PANEL if collapse and cells[head].nunique() == 1]
    said = [cells[head].iloc[0] + (" clients" if head == "clients" else "") for head in shared]
    title = ": ".join(filter(None, (about, ", ".join(said))))
    return Table(title, cells.drop(columns=shared), tuple(row.completed for row in rows))


def identity(rows: Sequence[Row]) -> pd.DataFrame:
    """The columns that identify rows: data, metric, method, settings."""
    lines = [(*row.panel, row.method, row.settings) for row in rows]
    return pd.DataFrame(lines, columns=[*PANEL, "method", "settings"], dtype=object)


def rich_table(table: Table) -> RichTable:
    """The table for a terminal, as narrow as possible: settings stand under the method, and heads are broken."""
    shown = RichTable(
        title=table.title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for head in table.heads:
        if head in _WORDS:
            shown.add_column(head)
        elif head != "settings":
            words = textwrap.wrap(head, _HEAD_WIDTH, break_long_words=False, break_on_hyphens=False)
            shown.add_column("\n".join(words), justify="right", no_wrap=True)
    for completed, line in zip(table.whole, table.lines, strict=True):
        text = dict(zip(table.heads, line, strict=True))
        if settings := text.pop("settings", ""):
            text["method"] += "\n  " + settings.replace(", ", "\n  ")
        cells = (cell if head in _WORDS else cell.replace(" (", "\n(") for head, cell in text.items())
        shown.add_row(*cells, style=None if completed else "yellow")
    return shown


def markdown(table: Table) -> str:
    """The table in Markdown, without its title."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (table.heads, *table.lines)]
    rule = ["---"] * len(table.heads)
    return "\n".join("| " + " | ".join(line) + " |" for line in (escaped[0], rule, *escaped[1:]))


def means(rows: Sequence[Row], figures: Sequence[str], **further: Any) -> pd.DataFrame:
    """Plain numbers, a line a row: mean and deviation of each figure, missing where unknown.

    Args:
        rows: the rows.
        figures: names of figures, see `Row.spread`.
        further: columns, or a single value for all rows, that stand between the rows' identity and their seeds.
    """
    found = identity(rows)[[*PANEL[:3], "method", "settings", "metric"]].assign(**further)
    found["runs"], found["seeds"] = [len(row.counted) for row in rows], [row.seeds for row in rows]
    for figure in figures:
        spreads = [row.spread(figure) or (None, None) for row in rows]
        found[[f"{figure}_mean", f"{figure}_std"]] = pd.DataFrame(spreads, dtype="float64")
    found["note"] = [row.note for row in rows]
    found["directories"] = [" ".join(str(run.path) for run in row.runs) for row in rows]
    return found


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table of plain numbers as CSV, empty where unknown; return its path.

    Raises:
        SubflError: `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(path, index=False)
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}") from None
    return path
