"""Features in the columns of a table: numbers as they are, categories one-hot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from subfl_flower.data.datasets.custom_settings import FeatureSettings
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.graph import Notes
from subfl_flower.data.tables.columns import Problems, number_advice, numbers_of, texts_of
from subfl_flower.data.tables.table_file import Table

_MANY_CATEGORIES = 100


@dataclass(frozen=True, eq=False)
class TableFeatures:
    """Encoded feature columns.

    Attributes:
        matrix: float64 `[nodes, features]`, NaN where a number is missing; None where the table has no features.
        encoding: columns and categories, without any learnt number.
        notes: columns that are no features, and remarks.
    """

    matrix: np.ndarray | None
    encoding: FeatureTransform
    notes: Notes


def encoded_features(
    table: Table,
    other: set[str],
    settings: FeatureSettings,
    problems: Problems,
    transform: FeatureTransform | None = None,
) -> TableFeatures:
    """Encode all columns of a table that are features.

    Args:
        table: of the nodes.
        other: columns with another meaning.
        settings: which columns are categories, or no features.
        problems: errors are added to them.
        transform: transform of a trained model, whose columns and categories are used; None follows `settings`.
    """
    ignored = [name for name in table.columns if name in settings.ignore and name not in other]
    columns = [name for name in table.columns if name not in other and name not in settings.ignore]
    dropped = [f"{table.path.name}: columns {', '.join(ignored)} (dataset.features.ignore)"] if ignored else []
    one_hot: Mapping[str, Sequence[str]] = {}
    if transform is not None:
        unused = [name for name in columns if name not in (transform.columns or ())]
        if unused:
            dropped.append(f"{table.path.name}: columns {', '.join(unused)}, which the model does not read")
        columns, one_hot = list(transform.columns or ()), transform.one_hot
        if lacking := [name for name in columns if name not in table.columns]:
            problems.add(f"the model reads the columns {', '.join(lacking)}, which are not there")
            columns = []
    else:
        _refuse_unknown(table, columns, settings, problems)
        one_hot = _categories(table, columns, settings)
    parts, warnings, wrong = [], [], {}
    for name in columns:
        column = _without(table.columns[name], settings.missing)
        if name in one_hot:
            part, about = _one_hot(table, name, texts_of(column), one_hot[name], settings, transform is not None)
            parts.append(part)
            warnings += about
            continue
        numbers, no_number = numbers_of(column)
        numbers = np.where(np.isin(numbers, _numbers(settings.missing)), np.nan, numbers)
        if no_number.any():
            wrong[name] = (no_number, column)
        empty = np.isnan(numbers) & ~no_number
        fills = settings.impute is not None if transform is None else transform.fill is not None
        if not fills:
            problems.add_rows(empty, f"row with a missing feature (column {name})", _FILL)
        problems.add_rows(np.isinf(numbers), f"row with an infinite feature (column {name})", "mend or drop the rows")
        warnings += _row_number_warning(table, name, numbers)
        parts.append(numbers[:, None])
    _refuse_words(wrong, problems)
    if transform is None:
        warnings += _missing_nowhere(table, columns, settings.missing)
        warnings += _split_warning(table, columns)
    encoding = FeatureTransform(columns=tuple(columns), one_hot={name: tuple(one_hot[name]) for name in one_hot})
    matrix = np.concatenate(parts, axis=1) if parts else None
    return TableFeatures(matrix, encoding, Notes(tuple(dropped), tuple(warnings)))


_FILL = "fill them, or state dataset.features.impute=mean (or median, most_frequent, zero)"


def _without(column: np.ndarray, missing: Sequence[str]) -> np.ndarray:
    """A column in which the texts `missing` are empty."""
    if column.dtype != object or not missing:
        return column
    return np.array(["" if text in missing else text for text in column.tolist()], dtype=object)


def _numbers(missing: Sequence[str]) -> list[float]:
    """The texts that are numbers, as numbers: -999 means -999.0, too."""
    values, _ = numbers_of(np.array(missing, dtype=object))
    return values[~np.isnan(values)].tolist() if missing else []


def _missing_nowhere(table: Table, columns: Sequence[str], missing: Sequence[str]) -> list[str]:
    """Remarks on texts that mean a missing field and do not occur."""
    said = []
    for text in missing:
        values = _numbers([text])
        there = any(
            bool(np.any(column == text)) or (bool(values) and bool(np.isin(numbers_of(column)[0], values).any()))
            for column in (table.columns[name] for name in columns)
        )
        if not there:
            said.append(f"{table.path.name}: no feature is {text}, which dataset.features.missing names")
    return said


def _refuse_unknown(table: Table, columns: Sequence[str], settings: FeatureSettings, problems: Problems) -> None:
    for key, stated in (("one_hot", settings.encoded), ("ignore", settings.ignore)):
        known = columns if key == "one_hot" else list(table.columns)
        if strange := [name for name in stated if name not in known]:
            problems.add(
                f"dataset.features.{key} names {', '.join(strange)}; the feature columns are {', '.join(columns)}"
            )


def _categories(table: Table, columns: Sequence[str], settings: FeatureSettings) -> dict[str, tuple[str, ...]]:
    stated = settings.one_hot if isinstance(settings.one_hot, dict) else {}
    found = {}
    for name in settings.encoded:
        if name in columns:
            texts = texts_of(_without(table.columns[name], settings.missing))
            found[name] = stated.get(name) or tuple(sorted(set(texts.tolist()) - {""}))
    return found


def _one_hot(
    table: Table, name: str, texts: np.ndarray, categories: Sequence[str], settings: FeatureSettings, trained: bool
) -> tuple[np.ndarray, list[str]]:
    """A column's features, float64 `[nodes, categories]`, and remarks on it."""
    position = {category: number for number, category in enumerate(categories)}
    chosen = np.array([position.get(text, -1) for text in texts.tolist()], dtype=np.int64)
    matrix = np.zeros((len(texts), len(categories)))
    rows = np.flatnonzero(chosen >= 0)
    matrix[rows, chosen[rows]] = 1.0
    empty = texts == ""
    strange = (chosen < 0) & ~empty
    about = []
    if strange.any():
        first = texts[int(strange.argmax())]
        known = "the model was trained with" if trained else f"dataset.features.one_hot states for {name}"
        about.append(
            f"{table.path.name}: {np.count_nonzero(strange)} nodes have a {name} that is none of the categories which "
            f"{known}, the first is {first!r}; they count as having none"
        )
    if empty.any():
        about.append(f"{table.path.name}: {np.count_nonzero(empty)} nodes have no {name}")
    if len(categories) > _MANY_CATEGORIES:
        about.append(f"{table.path.name}: {name} has {len(categories)} categories, a feature each")
    return matrix, about


def _refuse_words(wrong: Mapping[str, tuple[np.ndarray, np.ndarray]], problems: Problems) -> None:
    for name, (rows, column) in wrong.items():
        first = str(column[int(rows.argmax())])
        advice = (
            f"for categories state dataset.features.one_hot=[{name}], to leave the column out "
            f"dataset.features.ignore=[{name}], for a text that means a missing number dataset.features.missing"
        )
        if re.search("[0-9]", first) and (known := number_advice(first)):
            advice = f"mend them{known}"
        problems.add_rows(rows, f"value that is no number (column {name})", advice, column)


def _split_warning(table: Table, columns: Sequence[str]) -> list[str]:
    """A remark on features that seem to be masks under other names."""
    if not {"train", "test"} <= {name.lower() for name in columns}:
        return []
    return [
        f"{table.path.name}: train and test are features here; where they are masks, call them train_mask, val_mask "
        "and test_mask"
    ]


def _row_number_warning(table: Table, name: str, numbers: np.ndarray) -> list[str]:
    """A remark on numbers that count the rows: one by one, or from 0 or 1 in any order."""
    if len(numbers) < 3:
        return []
    steps = np.ones(len(numbers) - 1)
    in_order = np.array_equal(np.diff(numbers), steps)
    ascending = np.sort(numbers)
    if not in_order and not (ascending[0] in (0, 1) and np.array_equal(np.diff(ascending), steps)):
        return []
    return [
        f"{table.path.name}: the feature {name} counts the rows; where it is a row number, state "
        f"dataset.features.ignore=[{name}]"
    ]
