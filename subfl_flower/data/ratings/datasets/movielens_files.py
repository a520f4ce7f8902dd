"""Lines of GroupLens' files: users with age, gender and occupation, films with titles and genres."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from subfl_flower.data.ratings.attributes import RawAttributes
from subfl_flower.data.raw_files import damaged

FLAGGED_GENRES = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
"""The genres of the flags in `u.item`, in order, with the names of `u.genre`."""

_NO_GENRE = "(no genres listed)"
_AGES_FROM = (18, 25, 35, 45, 50, 56)


def read_lines(path: Path, separator: str, columns: int, encoding: str) -> list[list[str]]:
    """The fields of each line that is not empty.

    Args:
        path: of the file.
        separator: between fields.
        columns: least number of fields in a line.
        encoding: of the file.

    Raises:
        SubflError: the file cannot be read, or a line is too short.
    """
    try:
        lines = path.read_text(encoding).split("\n")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from error
    rows = {number: line.rstrip("\r").split(separator) for number, line in enumerate(lines, 1) if line.strip()}
    short = [number for number, row in rows.items() if len(row) < columns]
    if short:
        what = f"{len(short)} x line with fewer than {columns} fields, first in line {short[0]}"
        raise damaged(path, ValueError(what))
    return list(rows.values())


def titles_of(rows: list[list[str]]) -> dict[str, str]:
    """The title of each film's id."""
    return {row[0]: row[1] for row in rows}


def flagged_genres(rows: list[list[str]], path: Path) -> RawAttributes:
    """The genres of films whose lines end with flags, as in ML-100K.

    Raises:
        SubflError: a flag is neither 0 nor 1.
    """
    count = len(FLAGGED_GENRES)
    for row in rows:
        if not {"0", "1"}.issuperset(row[-count:]):
            raise damaged(path, ValueError(f"the flags of the genres of film {row[0]} are not all 0 or 1"))
    of_film = {
        row[0]: [genre for genre, flag in zip(FLAGGED_GENRES, row[-count:], strict=True) if flag == "1"] for row in rows
    }
    return {"genre": of_film}


def listed_genres(rows: list[list[str]]) -> RawAttributes:
    """The genres of films whose lines list them in the last field, as in ML-1M and ML-10M."""
    return {"genre": {row[0]: [genre for genre in row[-1].split("|") if genre != _NO_GENRE] for row in rows}}


def users_of(rows: list[list[str]], columns: Mapping[str, int], path: Path) -> RawAttributes:
    """Attributes of users from the lines of a file, ages as bands.

    Args:
        rows: the lines' fields, the first of which is the user's id.
        columns: position of the fields `age`, `gender`, `occupation` in a line.
        path: path of the file, for the error.

    Raises:
        SubflError: an age is no whole number.
    """
    found = {field: {row[0]: [row[column]] for row in rows} for field, column in columns.items()}
    try:
        found["age"] = {user: [age_band(int(age))] for user, [age] in found["age"].items()}
    except ValueError as error:
        raise damaged(path, error) from error
    return found


def age_band(age: int) -> str:
    """The band of an age among ML-1M's seven, whose lowest ages are its codes 1, 18, 25, ...

    Args:
        age: in years.
    """
    bands = ["under 18", *(f"{low}-{after - 1}" for low, after in pairwise(_AGES_FROM)), "56+"]
    return bands[sum(age >= low for low in _AGES_FROM)]
