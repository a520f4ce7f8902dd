"""Tables that commands write for users."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from subfl_flower.errors import SubflError
from subfl_flower.storage.durable_files import write_durably


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
