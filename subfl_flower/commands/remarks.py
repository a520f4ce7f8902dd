"""Remarks on data that commands print beside their results."""

from __future__ import annotations

import sys
from collections.abc import Iterable


def print_remarks(dropped: Iterable[str] = (), warnings: Iterable[str] = ()) -> None:
    """Print the parts of a source that are not used, and warnings, to the standard error stream, a line each."""
    for called, lines in (("not used", dropped), ("warning", warnings)):
        for line in lines:
            print(f"{called}: {line}", file=sys.stderr)
