"""Lists of items by user, the files of LightGCN's data sets: no ratings, a line a user."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from subfl_flower.data.ratings.datasets.custom_tables import RatingRows
from subfl_flower.data.tables.table_file import open_text, readable, table_suffix
from subfl_flower.errors import SubflError

_LINE = re.compile(r"[0-9]+([ \t]+[0-9]+)*")
_TABBED = re.compile(r"[0-9]+(\t[0-9]+)+")


def holds_item_lists(path: Path, encoding: str, tabs: bool = False) -> bool:
    """True for a file of lists: its name ends in .txt, and its first line is whole numbers separated by blanks.

    Args:
        path: path of the file.
        encoding: encoding of its text.
        tabs: true to accept a first line with tabs alone; else it is accepted only before a longer or shorter line.
            Some of the blanks may be tabs anyway.

    Raises:
        SubflError: the file cannot be read.
    """
    if table_suffix(path) != ".txt":
        return False
    with readable(path, encoding), open_text(path, encoding) as text:
        lines = (line.strip() for line in text if line.strip())
        first, second = next(lines, ""), next(lines, "")
    if _TABBED.fullmatch(first) and not tabs:
        return _LINE.fullmatch(second) is not None and len(second.split()) != len(first.split())
    return _LINE.fullmatch(first) is not None


def require_lists(parts: Sequence[RatingRows]) -> None:
    """Refuse files of lists in which every line could be one rating: a user, an item, a rating and perhaps a time.

    Args:
        parts: the files of a data set; files without lists are ignored.

    Raises:
        SubflError: all lines have 3 numbers, or all have 4.
    """
    lists = [part for part in parts if part.all_users is not None]
    lengths: set[int] = set()
    for part in lists:
        items_of = Counter(part.users.tolist())
        lengths |= {1 + items_of[user] for user in (part.all_users if part.all_users is not None else ())}
    if lengths in ({3}, {4}):
        (length,) = lengths
        rating = "a user, an item and a rating" if length == 3 else "a user, an item, a rating and a time"
        raise SubflError(
            f"{' and '.join(str(part.path) for part in lists)}: every line has {length} whole numbers, which may be "
            f"{rating}, or a user and {length - 1} items; write a table with names of columns in its first row and "
            "commas between the fields: user,item,rating, or user,item with a row for each item"
        )


def read_item_lists(path: Path, encoding: str) -> RatingRows:
    """One row for each user and item in a file of lines `user item item ...`, LightGCN's format (He et al., 2020).

    A line may hold a user alone.

    Raises:
        SubflError: the file cannot be read, a line holds other than whole numbers, or two lines begin with one user.
    """
    users: list[str] = []
    items: list[list[str]] = []
    with readable(path, encoding), open_text(path, encoding) as text:
        for number, line in enumerate(text, start=1):
            stripped = line.strip()
            if not stripped:
                continue
            if not _LINE.fullmatch(stripped):
                raise SubflError(
                    f"{path}: line {number} is not a user and items, whole numbers with blanks between them, as the "
                    "first line is; part the fields of a table by commas"
                )
            user, *own = stripped.split()
            users.append(user)
            items.append(own)
    if len(set(users)) < len(users):
        raise SubflError(
            f"{path}: {len(users) - len(set(users))} x user on a second line; every line is a user and all its items. "
            "If each is a user, an item and a rating, part them by commas"
        )
    names = np.array(users, dtype=object)
    return RatingRows(
        path=path,
        users=np.repeat(names, [len(own) for own in items]),
        items=np.array([item for own in items for item in own], dtype=object),
        all_users=names,
    )
