"""Tables that commands show or write, and their progress."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeVar

from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably

T = TypeVar("T")


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], most: int | None = None, numbers: bool = False
) -> None:
    """Print a table.

    Args:
        header: names of the columns; none shows no header.
        rows: values of the cells; they are shown literally.
        most: number of rows to show; a last row says how many there are more. None shows all.
        numbers: align the columns of the header on the right.
    """
    justify: Literal["right", "left"] = "right" if numbers else "left"
    table = Table(show_header=bool(header))
    for name in header:
        table.add_column(Text(name), justify=justify)
    for row in rows[:most]:
        table.add_row(*(Text(str(value)) for value in row))
    if most is not None and len(rows) > most:
        table.add_row("...", f"{len(rows) - most} more", *("" for _ in header[2:]))
    Console().print(table)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file in one step; its folder is created where it does not exist.

    Raises:
        SubflError: it cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([header, *rows])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, text.getvalue().encode())
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}; name another file") from None


def with_progress(items: Iterable[T], counted: str, total: int | None = None) -> Iterator[T]:
    """Yield items, and show on a terminal how many are done.

    Args:
        items: the items.
        counted: name of the items, in the plural.
        total: number of the items; None where they have a length.
    """
    console = Console(stderr=True)
    yield from track(items, counted, total, console=console, disable=not console.is_terminal, transient=True)
