"""Columns of row numbers that pandas or another program left in a table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from subfl_flower.errors import SubflError

_LEFTOVER = re.compile(r"(Unnamed: [0-9]+([._].*)?|__index_level_[0-9]+__)?")
_WHOLE = re.compile("[0-9]+")

Column = tuple[str, np.ndarray]
"""The name of a column, and its entries `[rows]`."""


def without_index(columns: Sequence[Column], path: str, name: str) -> tuple[list[Column], list[str]]:
    """Leave out columns without a real name that are empty, or hold the row numbers of a program that wrote the file.

    Args:
        columns: all columns, in the file's order.
        path: path of the file, for the error.
        name: name of the file, for the remarks.

    Returns:
        The remaining columns, and a remark on each column that was left out.

    Raises:
        SubflError: a column without any name holds something else.
    """
    kept, dropped = [], []
    for position, (called, values) in enumerate(columns, start=1):
        if not _LEFTOVER.fullmatch(called):
            kept.append((called, values))
            continue
        which = f"column {position} ({called})" if called else f"column {position}, which has no name"
        texts = [str(value) for value in values.tolist()]
        whole = all(map(_WHOLE.fullmatch, texts))
        if not any(texts):
            dropped.append(f"{name}: {which}" + ("" if called else " and is empty"))
        elif whole and len(set(texts)) == len(texts):
            dropped.append(f"{name}: {which}: row numbers")
        elif whole and (called or _counts_again(texts)):
            dropped.append(f"{name}: {which}: row numbers, some of them more than once")
        elif called:
            kept.append((called, values))
        else:
            raise SubflError(f"{path}: column {position} has values and no name; give it one in the header")
    return kept, dropped


def _counts_again(texts: Sequence[str]) -> bool:
    """True for numbers that count up by one and start over, as in tables that were joined."""
    numbers = [int(text) for text in texts]
    return all(after in (before + 1, numbers[0]) for before, after in pairwise(numbers)) and (
        numbers[0] in (0, 1) and max(numbers) > numbers[0]
    )
