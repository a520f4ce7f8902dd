"""Remarks on data that commands and runs print together with their results."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def print_remarks(dropped: Iterable[str] = (), warnings: Iterable[str] = (), said: set[str] | None = None) -> None:
    """Print the unused parts of a source, and warnings, to standard error, a line each.

    Args:
        dropped: parts that are not used.
        warnings: things to look at.
        said: lines that were printed before and are left out; the new lines are added to it. None prints all.
    """
    for called, lines in (("not used", dropped), ("warning", warnings)):
        for line in (f"{called}: {remark}" for remark in lines):
            if said is None or line not in said:
                print(line, file=sys.stderr, flush=True)
            if said is not None:
                said.add(line)
