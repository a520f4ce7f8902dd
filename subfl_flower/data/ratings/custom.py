"""Ratings from a user's own table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from subfl_flower.data.protocol import Protocol
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

    Attributes:
        path: of the file, relative to the working directory.
        scale: lowest and highest possible rating; None for the lowest and highest of the file.
    """

    name: Literal["custom_ratings"] = "custom_ratings"
    path: Path
    protocol: Protocol = Protocol(rounds=400, local_epochs=1)

    def read(self, root: Path) -> RawRatings:
        """Read the user's file; `root` has no effect.

        Raises:
            SubflError: the file is missing or cannot be used; names the file, the count and the first row.
        """
        from subfl_flower.data.tables import read_ids, read_numbers, read_table  # pandas is slow to import

        path = self._file()
        table = read_table(path, ["user", "item"], ["rating"])
        items = read_ids(table, "item", path)
        return RawRatings(
            source=str(path),
            users=read_ids(table, "user", path).to_numpy(dtype=object),
            items=items.to_numpy(dtype=object),
            values=read_numbers(table, "rating", path),
            timestamps=_timestamps(table, path) if "timestamp" in table else None,
            item_titles=_titles(items, table["title"]) if "title" in table else None,
        )

    def raw_fingerprint(self, root: Path) -> str:
        """A digest of the user's file.

        Raises:
            SubflError: the file is missing.
        """
        return fingerprint([self._file()])

    def _file(self) -> Path:
        path = self.path.expanduser()
        if not path.is_file():
            raise SubflError(f"dataset=custom_ratings: {path} does not exist (looked for at {path.absolute()})")
        if path.suffix not in (".csv", ".parquet"):
            raise SubflError(f"dataset=custom_ratings: {path} is neither .csv nor .parquet")
        return path


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
