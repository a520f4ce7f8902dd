"""Reading of ratings from tables: ids, values, times, titles and a stated split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, Notes
from subfl_flower.data.in_memory import is_in_memory
from subfl_flower.data.ratings.table import RawRatings
from subfl_flower.data.ratings.timestamps import Times, read_times
from subfl_flower.data.tables.columns import Problems, read_ids, read_numbers, read_table, texts_of
from subfl_flower.data.tables.table_file import Columns, Table, TableFormat, table_suffix
from subfl_flower.errors import SubflError

if TYPE_CHECKING:
    from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset

USER_NAMES, ITEM_NAMES = ("user_id",), ("item_id", "movie_id")
"""Names that a column of ids may have besides `user` and `item`."""

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "user": USER_NAMES,
    "item": ITEM_NAMES,
    "rating": (),
    "timestamp": (),
    "title": (),
    "split": (),
}
_STATED_TITLE = "title that the user states"
_MOVIELENS = ("user", "item", "rating", "timestamp")
_WITHOUT_HEADER = "dataset.header=[user,item,rating,timestamp] names its columns in their order"
_ROLES = {
    **dict.fromkeys(("train", "training", "0"), TRAIN),
    **dict.fromkeys(("validation", "valid", "val", "1"), VALIDATION),
    **dict.fromkeys(("test", "2"), TEST),
}


@dataclass(frozen=True, eq=False)
class RatingRows:
    """The rows of one file.

    Attributes:
        path: of the file.
        users, items: ids, text `[rows]`; `1.0` is `1` where the column of this file holds whole numbers alone.
        written: by `user` and `item` the ids of a text file as written there; absent: as `users`, or `items`.
        values: float64 `[rows]`; None where there is no column of ratings.
        times: None where there is no column of timestamps.
        titles: text `[rows]`, `""` where missing; None where there is no column of titles.
        roles: int8 `[rows]`, the split that the file states; None where it states none.
        all_users: every user that the file names, also without a row; None for those of the rows.
        notes: remarks on the file.
    """

    path: Path
    users: np.ndarray
    items: np.ndarray
    values: np.ndarray | None = None
    times: Times | None = None
    titles: np.ndarray | None = None
    roles: np.ndarray | None = None
    all_users: np.ndarray | None = None
    written: Mapping[str, np.ndarray] = field(default_factory=dict)
    notes: Notes = field(default_factory=Notes)


def read_rows(path: Path, settings: CustomRatingsDataset) -> RatingRows:
    """The rows of a table of ratings.

    Raises:
        SubflError: the file cannot be read, a column is missing, or entries cannot be used; lists all errors.
    """
    if settings.header is not None and (table_suffix(path) == ".parquet" or is_in_memory(path)):
        raise SubflError(f"{path}: dataset.header is for files without names of columns, and this table has them")
    format = TableFormat(settings.encoding, settings.header, _MOVIELENS, _WITHOUT_HEADER)
    known, chosen = dict(_COLUMNS), settings.columns.model_dump()
    if settings.items is not None and (title := chosen.pop("title")) is not None:  # may be in the table of items
        known[_STATED_TITLE] = (title,)
        del known["title"]
    table, columns = read_table(path, known, ["user", "item"], chosen, format)
    problems = Problems(path)
    users = read_ids(table, columns["user"], "user", problems)
    items = read_ids(table, columns["item"], "item", problems)
    values, times, titles, roles = None, None, None, None
    if "rating" in columns:
        values = _read_values(table, columns["rating"], problems)
    if "timestamp" in columns:
        times = read_times(table, columns["timestamp"], problems)
    if title_column := columns.get("title", columns.get(_STATED_TITLE)):
        titles = texts_of(table.columns[title_column])
    if "split" in columns and settings.takes_given_split:
        roles = _read_roles(texts_of(table.columns[columns["split"]]), columns["split"], problems)
    problems.require_none()
    unused = [name for name in table.columns if name not in columns.values()]
    dropped = [*table.dropped, *([f"{path.name}: columns {', '.join(unused)}"] if unused else [])]
    if "split" in columns and roles is None:
        dropped.append(f"{path.name}: the column {columns['split']}, because dataset.split={settings.split}")
    written = {of: table.columns[columns[of]] for of in ("user", "item") if table.columns[columns[of]].dtype == object}
    return RatingRows(path, users, items, values, times, titles, roles, None, written, Notes(tuple(dropped)))


def _read_values(table: Table, column: str, problems: Problems) -> np.ndarray:
    values = read_numbers(table, column, "rating", problems, "a rating is a number, or true or false")
    texts = table.columns[column]
    empty = texts == "" if texts.dtype == object else np.isnan(values)
    problems.add_rows(empty, "empty rating", "every row needs one; remove such rows, or drop the whole column")
    problems.add_rows(np.isinf(values), "rating that is no finite number", "mend or drop them", texts)
    return values


def _read_roles(texts: np.ndarray, column: str, problems: Problems) -> np.ndarray:
    role_of = {text: _ROLES.get(text.lower(), -1) for text in set(texts.tolist())}
    roles = np.array([role_of[text] for text in texts.tolist()], dtype=np.int8)
    advice = "allowed are train, validation and test, or 0, 1 and 2; dataset.split=random leaves the column out"
    problems.add_rows(roles < 0, f"unknown {column}", advice, np.array([repr(text) for text in texts.tolist()]))
    return roles


def joined(parts: Sequence[RatingRows], roles: Sequence[int] | None) -> RawRatings:
    """The ratings of several files of one data set.

    Args:
        parts: the rows of each file, at least one.
        roles: role of the rows of each file; None: the roles that the files state.

    Raises:
        SubflError: the files do not have the same columns, their timestamps do not fit together, or an id is written
            with a point in one and without in another.
    """
    parts = _with_ids_of_one_kind(parts)
    for part in parts[1:]:
        for name in ("values", "times", "roles"):
            if (getattr(part, name) is None) != (getattr(parts[0], name) is None):
                with_it, without = (part, parts[0]) if getattr(parts[0], name) is None else (parts[0], part)
                column = {"values": "rating", "times": "timestamp", "roles": "split"}[name]
                raise SubflError(
                    f"{without.path}: the column {column} is missing, which {with_it.path.name} has; "
                    "all files of a split need the same columns"
                )
    items = np.concatenate([part.items for part in parts])
    times = None
    if all(part.times is not None for part in parts):
        times = Times.joined({part.path.name: part.times for part in parts if part.times is not None})
    given = [part.roles for part in parts if part.roles is not None]
    if roles is not None:
        given = [np.full(len(part.users), role, dtype=np.int8) for part, role in zip(parts, roles, strict=True)]
    known = [part.users if part.all_users is None else part.all_users for part in parts]
    values = [part.values for part in parts if part.values is not None]
    notes = sum((part.notes for part in parts), Notes()) + Notes(warnings=() if times is None else times.warnings)
    return RawRatings(
        source=" and ".join(str(part.path) for part in parts),
        users=np.concatenate([part.users for part in parts]),
        items=items,
        values=np.concatenate(values) if values else np.ones(len(items)),
        implicit=not values,
        timestamps=None if times is None else times.values,
        per_second=times.per_second if times is not None and times.of_calendar else None,
        roles=np.concatenate(given) if given else None,
        item_titles=_titles(parts),
        all_users=np.concatenate(known) if any(part.all_users is not None for part in parts) else None,
        notes=notes,
    )


def _with_ids_of_one_kind(parts: Sequence[RatingRows]) -> Sequence[RatingRows]:
    """The parts, with `1.0` read as `1` only if the column holds whole numbers alone in every part."""
    if len(parts) < 2:
        return parts
    problems = Problems(parts[0].path.parent)
    ends = np.cumsum([len(part.users) for part in parts])[:-1]
    ids = {}
    for of in ("user", "item"):
        own = [part.written.get(of, part.users if of == "user" else part.items) for part in parts]
        path = parts[0].path.parent
        table = Table(path, Columns([(of, np.concatenate(own))], {}, path))
        ids[of] = np.split(read_ids(table, of, of, problems), ends)
    problems.require_none()
    return [
        replace(part, users=users, items=items)
        for part, users, items in zip(parts, ids["user"], ids["item"], strict=True)
    ]


def _titles(parts: Sequence[RatingRows]) -> dict[str, str] | None:
    """The first title of each item that has one; None without a column of titles."""
    titles: dict[str, str] = {}
    for part in parts:
        if part.titles is not None:
            for item, title in zip(part.items.tolist(), part.titles.tolist(), strict=True):
                if title:
                    titles.setdefault(item, title)
    return titles if any(part.titles is not None for part in parts) else None
