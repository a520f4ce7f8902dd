"""Columns of a user's table by their meaning: ids, numbers and times, and one sentence for all errors."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from subfl_flower.data.tables.blanks import shown
from subfl_flower.data.tables.delimited_text import are_data
from subfl_flower.data.tables.table_file import PLAIN, Table, TableFormat, open_table
from subfl_flower.errors import SubflError

_SAMPLE_TYPE = re.compile(r":(token|float|token_seq|float_seq)$")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")
_WHOLE_OR_NOT = re.compile(r"[+-]?[0-9]+(\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_PLAIN_CHARACTERS = frozenset("0123456789+-.eE")
_FREE_TEXT = frozenset({"title"})  # meanings that may have several lines
_NAMING = frozenset({"id", "label", "source", "target", "user", "item"})
_TRUTH = {"true": 1.0, "false": 0.0}


class Problems:
    """All errors of one file, reported in one sentence.

    Args:
        path: path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: list[str] = []

    def add(self, problem: str) -> None:
        """Record a problem."""
        self._found.append(problem)

    def add_rows(self, mask: np.ndarray, what: str, advice: str, values: np.ndarray | None = None) -> None:
        """Record the rows of a mask, bool `[rows]`, if there are any.

        Args:
            mask: the rows.
            what: name of one of them.
            advice: advice to the user.
            values: `[rows]`; the value of the first such row is shown; None shows none.
        """
        if mask.any():
            example = "" if values is None else f" ({shown(values[int(np.flatnonzero(mask)[0])])})"
            self._found.append(f"{count_rows(mask, what)}{example}; {advice}")

    def require_none(self) -> None:
        """Refuse the file if a problem was recorded.

        Raises:
            SubflError: names the file and every problem.
        """
        if self._found:
            raise SubflError(f"{self._path}: {'; '.join(self._found)}")


def read_table(
    path: Path,
    known: Mapping[str, Sequence[str]],
    required: Sequence[str],
    chosen: Mapping[str, str | None] | None = None,
    format: TableFormat = PLAIN,
) -> tuple[Table, dict[str, str]]:
    """Read a table and find its columns.

    Names are compared without case, blanks, `_`, `-`, and RecBole's types, so that `user_id:token` is `userId`.

    Args:
        path: of the table.
        known: other names that a column may have, by its meaning; each meaning is a name as well.
        required: meanings that must be there.
        chosen: names of columns that the user states, by meaning (`dataset.columns`).
        format: of the file.

    Returns:
        The table, and the name of each meaning's column that was found.

    Raises:
        SubflError: the file cannot be read, a required column is missing or ambiguous, or the first row names columns
            although `format` states a header.
    """
    table = open_table(path, format)
    columns = _found_columns(table, known, required, chosen or {}, format)
    if format.header is not None and len(table) and columns:
        first = {meaning: str(table.columns[name][0]) for meaning, name in columns.items()}
        if all(_normal(value) in {_normal(meaning), *map(_normal, known[meaning])} for meaning, value in first.items()):
            raise SubflError(f"{path}: its first row names the columns ({', '.join(first.values())}); state no header")
    problems = Problems(path)
    for meaning, name in columns.items():
        _refuse_lines(table.columns[name], meaning, problems)
        if meaning in _NAMING:
            _refuse_rounded(table.columns[name], meaning, problems)
    problems.require_none()
    return table, columns


def _refuse_lines(column: np.ndarray, meaning: str, problems: Problems) -> None:
    if column.dtype != object or meaning in _FREE_TEXT:
        return
    joined = "".join(column.tolist())
    if "\n" in joined or "\r" in joined:
        broken = np.array(["\n" in text or "\r" in text for text in column.tolist()], dtype=bool)
        problems.add_rows(
            broken, f"{meaning} with a line break", "each stands in one line; a quote may be missing or stray", column
        )


def _refuse_rounded(column: np.ndarray, meaning: str, problems: Problems) -> None:
    """Refuse floating-point numbers so large that different whole numbers are rounded to the same one."""
    if column.dtype.kind == "f":
        limit = 2.0 ** (np.finfo(column.dtype).nmant + 1)
        problems.add_rows(
            np.abs(column) > limit,
            f"{meaning} that is a rounded number",
            f"above {limit:.0f} fractions of this type lose digits: store whole numbers or text",
            column,
        )


def _found_columns(
    table: Table,
    known: Mapping[str, Sequence[str]],
    required: Sequence[str],
    chosen: Mapping[str, str | None],
    format: TableFormat,
) -> dict[str, str]:
    names = list(table.columns)
    found: dict[str, str] = {}
    problems = Problems(table.path)
    missing = []
    for meaning, others in known.items():
        stated = chosen.get(meaning)
        wanted = {_normal(stated)} if stated is not None else {_normal(meaning), *map(_normal, others)}
        fitting = [name for name in names if name == stated] or [name for name in names if _normal(name) in wanted]
        if len(fitting) > 1:
            problems.add(
                f"the columns {' and '.join(fitting)} may both be the {meaning}; state dataset.columns.{meaning} and "
                "rename or remove the other"
            )
        elif fitting:
            found[meaning] = fitting[0]
        elif stated is not None:
            problems.add(f"there is no column {stated} (dataset.columns.{meaning}); its columns are {', '.join(names)}")
        elif meaning in required:
            missing.append(meaning)
    for name, count in Counter(found.values()).items():
        if count > 1:
            several = " and ".join(meaning for meaning in found if found[meaning] == name)
            problems.add(f"the column {name} is both {several}; each needs a column that the other has not")
    if missing:
        headless = are_data(names)
        advice = f"dataset.columns.{missing[0]}=... names a column"
        problems.add(
            f"the column {' and '.join(missing)} is missing; its columns are {', '.join(names)}; "
            + (f"the first row seems to be data: {format.without_header}" if headless else advice)
        )
    problems.require_none()
    return found


def _normal(name: str) -> str:
    return re.sub(r"[\s_-]", "", _SAMPLE_TYPE.sub("", name)).lower()


def texts_of(column: np.ndarray) -> np.ndarray:
    """A column of ids, labels or categories as text, `""` where it is empty: an object array `[rows]`.

    In a column that holds only whole numbers, those with a point (`1.0`) equal those without. Whole numbers of a
    Parquet file are written without a point.
    """
    if column.dtype == object:
        return without_points(column)
    values = column.tolist()
    if column.dtype.kind == "f":
        known = column[~np.isnan(column)]
        if bool(np.all((known == np.floor(known)) & (np.abs(known) < 2**53))):
            values = ["" if value != value else int(value) for value in values]
        else:
            values = ["" if value != value else value for value in values]
    return np.array([str(value) for value in values], dtype=object)


def without_points(texts: np.ndarray) -> np.ndarray:
    """Text `[rows]` with `1.0` as `1`, where every text that is not empty is a whole number."""
    different = set(texts.tolist()) - {""}
    if not any(_WHOLE.fullmatch(text) for text in different) or not all(map(_WHOLE_OR_NOT.fullmatch, different)):
        return texts
    plain = {text: text.partition(".")[0] for text in different} | {"": ""}
    return np.array([plain[text] for text in texts.tolist()], dtype=object)


def read_ids(table: Table, column: str, meaning: str, problems: Problems) -> np.ndarray:
    """A column of ids as text, an object array `[rows]`; rows without one are added to the problems."""
    ids = texts_of(table.columns[column])
    problems.add_rows(ids == "", f"empty {meaning}", "every row needs one")
    _refuse_points(ids, meaning, problems)
    return ids


def _refuse_points(ids: np.ndarray, meaning: str, problems: Problems) -> None:
    different = set(ids.tolist())
    pointed = {text: match[1] for text in different if (match := _WHOLE.fullmatch(text))}
    written = Counter(pointed.values())
    both = sorted(text for text, whole in pointed.items() if whole in different or written[whole] > 1)
    if both:
        problems.add(
            f"{len(both)} x {meaning} written both as a whole number and with a point, the first is {both[0]}; "
            "write each in one way"
        )


def matched(texts: np.ndarray, known: Mapping[str, int]) -> np.ndarray:
    """Find ids in those of another table: int64 `[rows]`, -1 where unknown.

    An id that is not found as written may have a point in only one of the tables: `1.0` then matches `1`.

    Args:
        texts: the ids, text `[rows]`.
        known: the position of each id of the other table.
    """
    different = set(texts.tolist())
    found = {text: known[text] for text in different if text in known}
    if strange := different - found.keys():
        whole = {match[1]: position for text, position in known.items() if (match := _WHOLE.fullmatch(text))}
        for text in strange:
            match = _WHOLE.fullmatch(text)
            plain = match[1] if match else text
            found[text] = known.get(plain, whole.get(plain, -1))
    return np.array([found[text] for text in texts.tolist()], dtype=np.int64)


def numbers_of(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A column as numbers.

    Numbers are decimal, with a point; a column of `true` and `false` alone counts as 1 and 0.

    Returns:
        float64 `[rows]`, NaN where there is no number; and a mask of other entries, bool `[rows]`.
    """
    if column.dtype != object:
        return column.astype(np.float64), np.zeros(len(column), dtype=bool)
    texts = column.tolist()
    filled = [text or "nan" for text in texts]
    if set().union(*set(texts)) <= _PLAIN_CHARACTERS:
        try:
            return np.array(filled, dtype=object).astype(np.float64), np.zeros(len(texts), dtype=bool)
        except ValueError:
            pass
    different = set(texts)
    truth = different - {""} and {text.lower() for text in different if text} <= set(_TRUTH)
    value_of = {text: _TRUTH[text.lower()] if text and truth else _number(text) for text in different}
    values = np.array([value_of[text] for text in texts], dtype=np.float64)
    return values, np.isnan(values) & (column != "")


def _number(text: str) -> float:
    return float(text) if _NUMBER.fullmatch(text) else float("nan")


def read_numbers(table: Table, column: str, meaning: str, problems: Problems, allowed: str = "") -> np.ndarray:
    """A column of numbers, float64 `[rows]`, NaN where empty.

    Args:
        table: the table.
        column: its name.
        meaning: name of a value that is no number.
        problems: such values are added to it.
        allowed: further advice to the user on a word.
    """
    values, wrong = numbers_of(table.columns[column])
    if wrong.any():
        texts = table.columns[column]
        known = number_advice(str(texts[int(np.flatnonzero(wrong)[0])]))
        advice = "mend or drop them" + (known or (f": {allowed}" if allowed else ""))
        problems.add_rows(wrong, f"{meaning} that is no number", advice, texts)
    return values


def number_advice(text: str) -> str:
    """Advice on a text that should be a number, as the end of a sentence; empty where there is none."""
    if re.fullmatch(
        r"[+-]?[0-9]+([.,'\u2019 \u00a0][0-9]+)*,[0-9]+|[+-]?[0-9]+([,'\u2019 ][0-9]{3})+(\.[0-9]+)?", text
    ):
        return ": decimals have a point, and thousands no comma"
    return ": a missing number is an empty field" if text.lower() in ("na", "nan", "null", "none", "n/a") else ""


def count_rows(mask: np.ndarray, what: str) -> str:
    """Count and first row of a mask, such as `3 x unknown target, first in row 17`; data rows count from 1."""
    return f"{np.count_nonzero(mask)} x {what}, first in row {int(np.flatnonzero(mask)[0]) + 1}"
