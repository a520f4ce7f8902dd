"""Tables of attributes of users or of items, matched with the ratings by id."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from subfl_flower.data.graph import Notes
from subfl_flower.data.ratings.attributes import RawAttributes
from subfl_flower.data.tables.columns import Problems, matched, read_ids, read_table, texts_of
from subfl_flower.data.tables.table_file import TableFormat, open_table
from subfl_flower.errors import SubflError

_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")


@dataclass(frozen=True, eq=False)
class SideTable:
    """Attributes and titles from a table of users or of items.

    Attributes:
        attributes: by field and id; ids are written as in the ratings.
        titles: by id; None where the table has no column of titles.
        notes: remarks on the table.
    """

    attributes: RawAttributes
    titles: dict[str, str] | None = None
    notes: Notes = field(default_factory=Notes)


def read_side_table(
    path: Path, of: str, names_of: Mapping[str, Sequence[str]], stated: Mapping[str, str | None], encoding: str,
    known: np.ndarray, source: str,
) -> SideTable:  # fmt: skip
    """The attributes in a table, and titles.

    Args:
        path: of the table.
        of: `user` or `item`, the name of the column of ids.
        names_of: other names that the columns `of` and `title` may have; without `title` a title is an attribute.
        stated: names of these columns that the user states; they may refer to another table.
        encoding: encoding of a table of text.
        known: the ids of the ratings, text.
        source: source of the ratings, for the error.

    Raises:
        SubflError: the table cannot be read, has no such ids, or none of them is known.
    """
    format = TableFormat(encoding)
    chosen = {meaning: name for meaning, name in stated.items() if name is not None and meaning in names_of}
    columns_of = {meaning: [*names, *filter(None, [chosen.get(meaning)])] for meaning, names in names_of.items()}
    if chosen:
        there = open_table(path, format).columns
        chosen = {meaning: name for meaning, name in chosen.items() if name in there}
    table, columns = read_table(path, columns_of, [of], chosen, format)
    problems = Problems(path)
    ids = read_ids(table, columns[of], of, problems)
    problems.require_none()
    names = sorted(set(known.tolist()))
    written = table.columns[columns[of]]
    positions = matched(written if written.dtype == object else ids, _positions(names))
    notes = Notes(tuple(table.dropped)) + _about_matches(ids, positions, names, path.name, of, source)
    rows = np.flatnonzero(positions >= 0)
    whose = [names[position] for position in positions[rows].tolist()]
    values = {name: texts_of(table.columns[name])[rows].tolist() for name in table.columns if name != columns[of]}
    titles: dict[str, str] | None = None
    if "title" in columns:
        titles = {}
        for owner, title in zip(whose, values.pop(columns["title"]), strict=True):
            if title:
                titles.setdefault(owner, title)
    return SideTable({name: _values(whose, texts) for name, texts in values.items()}, titles, notes)


def _positions(names: Sequence[str]) -> dict[str, int]:
    """The position of each name; that of `1.0` also under `1`, where no other name is or would become `1`."""
    positions = {name: position for position, name in enumerate(names)}
    plain = {name: match[1] for name in names if (match := _WHOLE.fullmatch(name))}
    times = Counter(plain.values())
    return {short: positions[name] for name, short in plain.items() if times[short] == 1} | positions


def _about_matches(
    ids: np.ndarray, positions: np.ndarray, names: Sequence[str], table: str, of: str, source: str
) -> Notes:
    different = dict.fromkeys(ids.tolist())
    unknown = dict.fromkeys(ids[positions < 0].tolist())
    if different and len(unknown) == len(different):
        raise SubflError(
            f"{table}: none of its {len(different)} ids is {'an' if of == 'item' else 'a'} {of} of {source} "
            f"(first: {ids[0]}); both must write an id in the same way"
        )
    dropped, warnings = [], []
    if not different:
        warnings.append(f"{table} has no rows")
    if unknown:
        first = next(iter(unknown))
        dropped.append(
            f"{table}: {len(unknown)} of {len(different)} ids, which are no {of} of {source} (first: {first})"
        )
    lacking = len(names) - len(set(positions[positions >= 0].tolist()))
    if lacking and different:
        warnings.append(f"{table} says nothing of {lacking} of the {len(names)} {of}s of {source}")
    return Notes(tuple(dropped), tuple(warnings))


def _values(ids: Sequence[str], texts: Sequence[str]) -> dict[str, list[str]]:
    """The values of each id; ids without a value are left out."""
    values: dict[str, list[str]] = {}
    for name, text in zip(ids, texts, strict=True):
        if parts := [part for part in map(str.strip, text.split("|")) if part]:
            values.setdefault(name, []).extend(parts)
    return values
