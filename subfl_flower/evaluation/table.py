"""Tables of rows: for the terminal, Markdown and CSV."""

import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.formats import MISSING, Format, in_own_unit, unit_suffix
from subfl_flower.evaluation.rows import PANEL, Row
from subfl_flower.evaluation.summary import lower_is_better
from subfl_flower.storage.durable_files import PUBLIC_FILE, write_durably

_HEAD_WIDTH = 7
_MARKDOWN = re.compile(r"[|<\[`\\]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_WORDS = ("dataset", "partition", "metric", "method", "note")


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        head: the column's head.
        figure: the figure of each row, see `Row.spread`.
        text: how it is shown.
        optional: leave the column out where it is empty in all rows.
        rated: mark the best row on the same data, see `Table.best`.
    """

    head: str
    figure: str
    text: Format = in_own_unit
    optional: bool = False
    rated: bool = False

    def cell(self, row: Row) -> str:
        """The text for a row."""
        found = row.spread(self.figure)
        return MISSING if found is None else self.text(found, row)

    def key(self, row: Row) -> float | None:
        """The number by which rows are sorted; None where unknown."""
        return row.mean(self.figure)

    def stands_out(self, row: Row) -> bool:
        """True for a cell that is bold whatever other rows have; by default none is."""
        return False


@dataclass(frozen=True)
class Table:
    """Cells as text: a line a row, heads as columns.

    Attributes:
        title: the table's title, or "".
        cells: the cells.
        whole: for each line, true if its runs were completed; the others are marked by colour.
        keys: numbers by which lines are sorted, for the columns that show numbers; NaN where unknown.
        best: line and head of the best results on the same data.
    """

    title: str
    cells: pd.DataFrame
    whole: tuple[bool, ...]
    keys: pd.DataFrame = field(default_factory=pd.DataFrame)
    best: frozenset[tuple[int, str]] = frozenset()

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
    cells["seeds"] = list(words.get("seeds") or [row.seeds_text for row in rows])
    for column in columns:
        cells[column.head] = [column.cell(row) for row in rows]
    cells["note"] = list(words.get("note") or [row.note for row in rows])
    optional = ["settings", "note", *(column.head for column in columns if column.optional)]
    cells = cells.drop(columns=[head for head in optional if cells[head].isin(("", MISSING)).all()])
    shared = [head for head in PANEL if collapse and cells[head].nunique() == 1]
    said = [cells[head].iloc[0] + (" clients" if head == "clients" else "") for head in shared]
    title = ": ".join(filter(None, (about, ", ".join(said))))
    keys = pd.DataFrame({column.head: [column.key(row) for row in rows] for column in columns}, dtype="float64")
    best = frozenset(place for column in columns if column.rated for place in _best(rows, column, keys[column.head]))
    best |= {(line, column.head) for column in columns for line, row in enumerate(rows) if column.stands_out(row)}
    whole = tuple(row.completed for row in rows)
    return Table(title, cells.drop(columns=shared), whole, keys.filter(list(cells)), best)


def _best(rows: Sequence[Row], column: Column, keys: pd.Series) -> list[tuple[int, str]]:
    """Line and head of the best of several completed rows on the same data; bounds do not compete."""
    competing = pd.Series([row.completed and not row.is_bound for row in rows]) & keys.notna()
    panels = pd.Series([row.panel for row in rows])[competing]
    found = []
    for (*_, metric), lines in panels.groupby(panels).groups.items():
        errors = lower_is_better(metric) and column.text is in_own_unit
        best = keys[lines].min() if errors else keys[lines].max()
        found += [(line, column.head) for line in lines if keys[line] == best and len(lines) > 1]
    return found


def identity(rows: Sequence[Row]) -> pd.DataFrame:
    """The columns that identify rows: data, metric, method, settings."""
    lines = [(*row.panel, row.method, row.settings) for row in rows]
    return pd.DataFrame(lines, columns=[*PANEL, "method", "settings"], dtype=object)


def rich_table(table: Table) -> RichTable:
    """The table for a terminal, as narrow as possible: settings stand under the method, and heads are broken."""
    shown = RichTable(
        title=Text(table.title, style="bold") if table.title else None,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    for head in table.heads:
        if head in _WORDS:
            shown.add_column(Text(head))
        elif head != "settings":
            words = textwrap.wrap(head, _HEAD_WIDTH, break_long_words=False, break_on_hyphens=False)
            shown.add_column(Text("\n".join(words)), justify="right", no_wrap=True)
    for completed, line in zip(table.whole, table.lines, strict=True):
        text = dict(zip(table.heads, line, strict=True))
        if settings := text.pop("settings", ""):
            text["method"] += "\n  " + settings.replace(", ", "\n  ")
        cells = (cell if head in _WORDS else cell.replace(" (", "\n(") for head, cell in text.items())
        shown.add_row(*map(Text, cells), style=None if completed else "yellow")
    return shown


def markdown(table: Table, bold: bool = False) -> str:
    """The table in Markdown, without its title; with `bold` the cells of `Table.best` are."""
    escaped = [[_MARKDOWN.sub(r"\\\g<0>", cell) for cell in line] for line in (table.heads, *table.lines)]
    for line, head in table.best if bold else ():
        column = table.heads.index(head)
        escaped[line + 1][column] = f"**{escaped[line + 1][column]}**"
    rule = ["---"] * len(table.heads)
    return "\n".join("| " + " | ".join(line) + " |" for line in (escaped[0], rule, *escaped[1:]))


def latex(table: Table) -> str:
    """The table as a LaTeX tabular with the rules of booktabs, the best results in bold, and its title as a comment."""
    lines = []
    for place, line in enumerate(table.lines):
        cells = [_in_latex(cell) for cell in line]
        for column, head in enumerate(table.heads):
            if (place, head) in table.best:
                cells[column] = f"\\textbf{{{cells[column]}}}"
        lines.append(" & ".join(cells) + r" \\")
    shape = "".join("r" if head in table.keys else "l" for head in table.heads)
    head = " & ".join(map(_in_latex, table.heads)) + r" \\"
    rules = [rf"\begin{{tabular}}{{{shape}}}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule"]
    return "\n".join([f"% {table.title}", *rules, r"\end{tabular}"])


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


def _in_latex(cell: str) -> str:
    signs = {"\\": r"\textbackslash{}", "±": r"$\pm$", "–": "--", "Δ": r"$\Delta$", "ρ": r"$\rho$"}
    signs |= {sign: f"\\{sign}" for sign in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(signs.get(sign, sign) for sign in cell)


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def write_csv(table: pd.DataFrame, path: Path) -> Path:
    """Write a table of plain numbers as CSV, empty where unknown; return its path.

    A text that a spreadsheet would take for a formula has an apostrophe before it.

    Raises:
        SubflError: `path` cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = table.select_dtypes(exclude="number")
        text = table.assign(**{name: texts[name].map(_no_formula) for name in texts}).to_csv(index=False)
        write_durably(path, text.encode(), PUBLIC_FILE)
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}") from None
    return path
