"""Lists of items by user, the files of LightGCN's data sets: no ratings, a line a user."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from subfl_flower.data.ratings.custom_tables import RatingRows
from subfl_flower.data.table_file import open_text, readable, table_suffix
from subfl_flower.errors import SubflError

_LINE = re.compile(r"[0-9]+( +[0-9]+)*")


def holds_item_lists(path: Path, encoding: str) -> bool:
    """Whether a file begins with a line of whole numbers with blanks between them, and its name ends in .txt.

    Raises:
        SubflError: the file cannot be read.
    """
    if table_suffix(path) != ".txt":
        return False
    with readable(path, encoding), open_text(path, encoding) as text:
        first = next((line.strip() for line in text if line.strip()), "")
    return _LINE.fullmatch(first) is not None


def read_item_lists(path: Path, encoding: str) -> RatingRows:
    """A row for each user and item of a file of lines `user item item ...`, as LightGCN has them (He et al., 2020).

    A line may hold a user alone.

    Raises:
        SubflError: the file cannot be read, a line is none of whole numbers, or two lines begin with the same user.
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
                    "first line is; part the fields of a table by commas or tabs"
                )
            user, *own = stripped.split()
            users.append(user)
            items.append(own)
    if len(set(users)) < len(users):
        raise SubflError(
            f"{path}: {len(users) - len(set(users))} x user on a second line; every line is a user and all its items. "
            "If each is a user, an item and a rating, part them by commas or tabs"
        )
    names = np.array(users, dtype=object)
    return RatingRows(
        path=path,
        users=np.repeat(names, [len(own) for own in items]),
        items=np.array([item for own in items for item in own], dtype=object),
        all_users=names,
    )
