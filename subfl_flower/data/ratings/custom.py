"""Ratings from a user's own table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from subfl_flower.data.protocol import Protocol
from subfl_flower.data.ratings.attributes import RawAttributes
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.raw_files import fingerprint
from subfl_flower.errors import SubflError

if TYPE_CHECKING:
    import pandas as pd


class CustomRatingsDataset(RatingDatasetSettings):
    """A CSV or Parquet file with a row for each rating.

    Columns `user`, `item` (any ids, compared as text) and `rating`; optionally `timestamp` (whole numbers, larger is
    newer) and `title` (of the item; of several the first counts). Further columns are ignored.

    Attributes of users or items may stand in tables of their own, with a column `user` or `item`. Every further column
    is a field; `|` separates several values, and an empty entry is none. Rows of the same id add to each other, and
    ids without a rating are ignored.

    Attributes:
        path: of the file, relative to the working directory.
        users: a .csv or .parquet file of users' attributes; None for none.
        items: a .csv or .parquet file of items' attributes; None for none.
        scale: lowest and highest possible rating; None for the lowest and highest of the file.
    """

    name: Literal["custom_ratings"] = "custom_ratings"
    path: Path
    users: Path | None = None
    items: Path | None = None
    protocol: Protocol = Protocol(rounds=400, local_epochs=1)

    def read(self, root: Path) -> RawRatings:
        """Read the user's files; `root` has no effect.

        Raises:
            SubflError: a file is missing or cannot be used; names the file, the count and the first row.
        """
        from subfl_flower.data.tables import read_ids, read_numbers, read_table  # pandas is slow to import

        path = _existing(self.path)
        table = read_table(path, ["user", "item"], ["rating"])
        items = read_ids(table, "item", path)
        return RawRatings(
            source=str(path),
            users=read_ids(table, "user", path).to_numpy(dtype=object),
            items=items.to_numpy(dtype=object),
            values=read_numbers(table, "rating", path),
            timestamps=_timestamps(table, path) if "timestamp" in table else None,
            item_titles=_titles(items, table["title"]) if "title" in table else None,
            user_attributes=_attributes(self.users, "user"),
            item_attributes=_attributes(self.items, "item"),
        )

    def raw_fingerprint(self, root: Path) -> str:
        """A digest of the user's files.

        Raises:
            SubflError: a file is missing.
        """
        return fingerprint([_existing(path) for path in (self.path, self.users, self.items) if path is not None])


def _existing(path: Path) -> Path:
    path = path.expanduser()
    if not path.is_file():
        raise SubflError(f"dataset=custom_ratings: {path} does not exist (looked for at {path.absolute()})")
    if path.suffix not in (".csv", ".parquet"):
        raise SubflError(f"dataset=custom_ratings: {path} is neither .csv nor .parquet")
    return path


def _attributes(table: Path | None, of: str) -> RawAttributes:
    """The attributes in a table with a column `of` of ids."""
    from subfl_flower.data.tables import read_ids, read_table

    if table is None:
        return {}
    path = _existing(table)
    columns = list(read_table(path, [of]).columns)
    read = read_table(
        path, [of, *columns]
    )  # all as text: a column of whole numbers with gaps would be one of fractions
    ids = read_ids(read, of, path).tolist()
    return {str(column): _values(ids, read[column], path) for column in columns if column != of}


def _values(ids: list[str], column: pd.Series, path: Path) -> dict[str, list[str]]:
    """The values of each id that has any.

    Raises:
        SubflError: an entry is a list, as Parquet may have them.
    """
    from pandas.api.types import is_list_like

    stated = column.convert_dtypes()  # whole numbers as such, where Parquet has them as fractions for their gaps
    values: dict[str, list[str]] = {}
    for row in np.flatnonzero(column.notna()).tolist():
        if is_list_like(stated.iloc[row]):
            raise SubflError(f"{path}: {column.name} is a list in row {row + 1}; several values are text, parted by |")
        parts = (part.strip() for part in str(stated.iloc[row]).split("|"))
        values.setdefault(ids[row], []).extend(part for part in parts if part)
    return values


def _timestamps(table: pd.DataFrame, path: Path) -> np.ndarray:
    from subfl_flower.data.tables import count_rows, read_numbers

    numbers = read_numbers(table, "timestamp", path)
    wrong = ~(np.abs(numbers) < 2**53) | (np.round(numbers) != numbers)
    if wrong.any():
        raise SubflError(
            f"{path}: {count_rows(wrong, 'timestamp that is no whole number')}; "
            "every row needs one, for example seconds since 1970"
        )
    return numbers.astype(np.int64)


def _titles(items: pd.Series, titles: pd.Series) -> dict[str, str]:
    """The first title of each item that has one."""
    stated = titles.notna()
    first = stated & ~items.where(stated).duplicated()
    return dict(zip(items[first], titles[first].astype(str), strict=True))
