"""Tables of attributes of users or of items, matched with the ratings by id."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from subfl_flower.data.graph import Notes
from subfl_flower.data.ratings.attributes import RawAttributes
from subfl_flower.data.table_file import TableFormat
from subfl_flower.data.tables import Problems, matched, read_ids, read_table, texts_of
from subfl_flower.errors import SubflError


@dataclass(frozen=True, eq=False)
class SideTable:
    """What a table says of users or of items.

    Attributes:
        attributes: by field and id, as the ratings write it.
        titles: by id; None where the table has no column of titles.
        notes: remarks on the table.
    """

    attributes: RawAttributes
    titles: dict[str, str] | None = None
    notes: Notes = field(default_factory=Notes)


def read_side_table(
    path: Path, of: str, id_names: Sequence[str], title_names: Sequence[str], encoding: str, known: np.ndarray,
    source: str,
) -> SideTable:  # fmt: skip
    """The attributes in a table, and titles.

    Args:
        path: of the table.
        of: `user` or `item`, the name of the column of ids.
        id_names: other names that it may have.
        title_names: names of a column of titles; none: a title is an attribute as any other.
        encoding: of a table of text.
        known: the ids of the ratings, text.
        source: of these, for the error.

    Raises:
        SubflError: the table cannot be read, has no such ids, or none of them is known.
    """
    columns_of = {of: tuple(id_names)} | ({"title": tuple(title_names)} if title_names else {})
    table, columns = read_table(path, columns_of, [of], format=TableFormat(encoding))
    problems = Problems(path)
    ids = read_ids(table, columns[of], of, problems)
    problems.require_none()
    names = sorted(set(known.tolist()))
    positions = matched(ids, {name: position for position, name in enumerate(names)})
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
    """The values of each id that has any."""
    values: dict[str, list[str]] = {}
    for name, text in zip(ids, texts, strict=True):
        if parts := [part for part in map(str.strip, text.split("|")) if part]:
            values.setdefault(name, []).extend(parts)
    return values
