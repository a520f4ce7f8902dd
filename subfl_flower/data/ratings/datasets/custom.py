"""Ratings from a user's tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, Notes
from subfl_flower.data.in_memory import tables_in_memory
from subfl_flower.data.ratings.datasets.custom_settings import RatingColumns
from subfl_flower.data.ratings.datasets.custom_tables import ITEM_NAMES, USER_NAMES, RatingRows, joined, read_rows
from subfl_flower.data.ratings.datasets.item_lists import holds_item_lists, read_item_lists, require_lists
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.side_tables import SideTable, read_side_table
from subfl_flower.data.ratings.splits import DrawnSplit, SplitName
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.source import Protocol
from subfl_flower.data.tables.table_file import SUFFIXES, Encoding, require_table, table_stem
from subfl_flower.data.user_path import UserPath
from subfl_flower.errors import SubflError

_WHAT = "dataset=custom_ratings"
_STEMS = {"train": TRAIN, "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "test": TEST}


class CustomRatingsDataset(RatingDatasetSettings):
    """Ratings from a table with one row each, or from a folder with tables of training and test ratings.

    Columns `user`, `item` (any ids, compared as text) and `rating`; optionally `timestamp` (numbers, larger is newer,
    or ISO dates), `title` (of the item; of several the first counts) and `split`. Without ratings, users and items
    alone are enough to train rankings. Further columns are not used.

    A folder holds `train` and `test` and perhaps `validation`, with the same columns each, or as lines `user item item
    ...` of whole numbers (LightGCN's form, He et al., SIGIR 2020).

    Attributes of users or items may stand in separate tables, with a column `user` or `item`. Every further column is a
    field; `|` separates several values, and an empty entry means no value. Values of rows with the same id are joined;
    ids without a rating are not used.

    Attributes:
        path: path of the table or the folder, relative to the working directory.
        users: the table of users' attributes; None for none.
        items: the table of items' attributes, or titles; None for none.
        encoding: of tables of text.
        header: names of the columns of a table of ratings whose first row is data; None: the first row names them.
        columns: names of columns where they differ from the defaults.
        split: `auto`: the split of the source, where it has one, and else `drawn_split`.
        drawn_split: see `split`.
        scale: lowest and highest possible rating; None for the lowest and highest of the file.
    """

    name: Literal["custom_ratings"] = "custom_ratings"
    path: UserPath
    users: UserPath | None = None
    items: UserPath | None = None
    encoding: Encoding = "utf-8"
    header: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    columns: RatingColumns = RatingColumns()
    split: SplitName | Literal["auto"] = "auto"
    drawn_split: DrawnSplit = "random"
    protocol: Protocol = Protocol(rounds=400, local_epochs=1)

    @property
    def takes_given_split(self) -> bool:
        """True if the settings allow a split that the source states."""
        return self.split in ("auto", "given")

    def chosen_split(self, stated: bool) -> SplitName:
        """The split to use, given whether the source states one."""
        if self.split != "auto":
            return self.split
        return "given" if stated else self.drawn_split

    def read(self, root: Path) -> RawRatings:
        """Read the user's files; `root` is not used.

        Raises:
            SubflError: a file is missing or cannot be used; names the file, the count and the first row.
        """
        paths = self._rating_files()
        lists = self.header is None and any(holds_item_lists(path, self.encoding) for path in paths)
        parts = [self._read_part(path, lists) for path in paths]
        require_lists(parts)
        roles = None
        if len(parts) > 1 and self.takes_given_split:
            roles = [_STEMS[table_stem(path) or path.name] for path in paths]
        ratings = joined(parts, roles)
        if len(parts) > 1 and not self.takes_given_split:
            files = " and ".join(path.name for path in paths)
            about = Notes((f"the split into {files}, because dataset.split={self.split}",))
            ratings = replace(ratings, notes=ratings.notes + about)
        users = self._side_table(self.users, "user", ratings.users, parts)
        items = self._side_table(self.items, "item", ratings.items, parts)
        titles = ratings.item_titles
        if items.titles is not None:
            titles = items.titles | (titles or {})
        return replace(
            ratings,
            item_titles=titles,
            user_attributes=users.attributes,
            item_attributes=items.attributes,
            notes=ratings.notes + users.notes + items.notes,
        )

    def files(self, root: Path) -> list[Path]:
        """The user's files; `root` is not used.

        Raises:
            SubflError: one does not exist, or is no table.
        """
        tables = [require_table(path, _WHAT) for path in (self.users, self.items) if path is not None]
        return [*self._rating_files(), *tables]

    def _rating_files(self) -> list[Path]:
        """The one table of ratings; or the tables of a folder, in the order training, validation, test."""
        path = self.path.expanduser()
        if tables := tables_in_memory(path):
            return [tables[name] for name in ("train", "validation", "test") if name in tables]
        if not path.is_dir():
            return [require_table(path, _WHAT)]
        found: dict[int, list[Path]] = {TRAIN: [], VALIDATION: [], TEST: []}
        for file in sorted(path.iterdir()):
            if file.is_file() and (stem := table_stem(file)) in _STEMS:
                found[_STEMS[stem]].append(file)
        for role, name in ((TRAIN, "train"), (VALIDATION, "validation"), (TEST, "test")):
            names = ", ".join(file.name for file in found[role])
            if len(found[role]) > 1:
                raise SubflError(f"{_WHAT}: {path} holds several tables {name} ({names}); one is allowed")
            if not found[role] and role != VALIDATION:
                raise SubflError(
                    f"{_WHAT}: {path} holds no table {name} ({', '.join(SUFFIXES)}); a folder of ratings needs train "
                    "and test and may have validation; dataset.path may also name one table"
                )
        return [file for files in found.values() for file in files]

    def _read_part(self, path: Path, lists: bool) -> RatingRows:
        """The rows of a file; `lists` is true if a file of the folder holds lists of items."""
        if lists and holds_item_lists(path, self.encoding, tabs=True):
            return read_item_lists(path, self.encoding)
        return read_rows(path, self)

    def _side_table(self, path: Path | None, of: str, known: np.ndarray, parts: list[RatingRows]) -> SideTable:
        if path is None:
            return SideTable({})
        names_of = {"item": ITEM_NAMES, "title": ()} if of == "item" else {"user": USER_NAMES}
        source = " and ".join(part.path.name for part in parts)
        table, stated = require_table(path, _WHAT), self.columns.model_dump()
        return read_side_table(table, of, names_of, stated, self.encoding, known, source)
