"""Class numbers from labels, which are text: a class has the name from its source."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from subfl_flower.data.tables.columns import without_points
from subfl_flower.errors import SubflError

ClassName = bool | int | float | str
"""The name of a class in an override: YAML parses some names as truth values or numbers."""

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NO_NUMBER = {"na", "nan", "null", "none", "n/a", "#n/a", "inf", "-inf", "+inf", "infinity", "-infinity"}
_FEWEST_TO_A_CLASS = 2


def numbered_labels(
    labels: np.ndarray,
    source: str,
    classes: Sequence[ClassName] | None = None,
    unlabelled: Sequence[ClassName] | None = None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number the labels of nodes by their names.

    Args:
        labels: text `[nodes]`, `""` for none.
        source: begin of an error.
        classes: all classes in the order of their numbers; None: those that are found, whole numbers first and by
            their size, then text.
        unlabelled: labels that mean no label.

    Returns:
        int64 `[nodes]`, -1 where there is none; and the classes' names in the order of their numbers.

    Raises:
        SubflError: a label is none of `classes`, or labels are measurements, that is, numbers with fractions.
    """
    found = set(labels.tolist()) - {""}
    none = {""} | {_meant(name, found) for name in unlabelled or ()}
    labels = without_points(np.array(["" if label in none else label for label in labels.tolist()], dtype=object))
    found = set(labels.tolist()) - {""}
    _refuse_points(found, source)
    if classes is None:
        _refuse_measurements(labels, found, source)
        names = sorted(found, key=numbers_first)
    else:
        names = [_meant(name, found) for name in classes]
    number_of = {name: number for number, name in enumerate(names)} | {"": -1}
    strange = found.difference(number_of)
    if strange:
        rows = np.array([label in strange for label in labels.tolist()])
        raise SubflError(
            f"{source}: {np.count_nonzero(rows)} labels are none of dataset.classes, the first is "
            f"{labels[int(rows.argmax())]!r}; the classes are {', '.join(names)}"
        )
    return np.array([number_of[label] for label in labels.tolist()], dtype=np.int64), tuple(names)


def numbers_first(name: str) -> tuple[bool, int, str]:
    """A key that sorts whole numbers by size, before text."""
    number = re.fullmatch("[+-]?[0-9]+", name)
    return number is None, int(name) if number and len(name) < 4000 else 0, name


def same_text_twice(names: Sequence[ClassName]) -> bool:
    """True if two names of classes are equal as text."""
    return len({_meant(name, set()) for name in names}) < len(names)


def label_warnings(
    texts: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    source: str,
    unlabelled: Sequence[ClassName] | None = None,
) -> tuple[str, ...]:
    """Remarks on labels that often have another meaning.

    Args:
        texts: `[nodes]`, the labels as they were read.
        labels: int64 `[nodes]`, their numbers, -1 where there is none.
        names: names of the classes.
        source: begin of a remark.
        unlabelled: labels that the user declares to mean no label.
    """
    found = set(texts.tolist())
    nowhere = [str(name) for name in unlabelled or () if _meant(name, found) not in found]
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    said = [f"{source}: no label is {name}, which dataset.unlabelled names" for name in nowhere]
    if counts.sum() and len(names) > 2 and counts.sum() < _FEWEST_TO_A_CLASS * np.count_nonzero(counts):
        said.append(f"{source}: {np.count_nonzero(counts)} classes on {counts.sum()} labelled nodes; is label a class?")
    if "-1" in names and source.endswith(".csv"):
        said.append(f"{source}: -1 is a class here; where it means no label, state dataset.unlabelled=[-1]")
    lower: dict[str, str] = {}
    for name in names:
        other = lower.setdefault(name.lower(), name)
        if other != name:
            said.append(f"{source}: the classes {other} and {name} differ in case only")
    return tuple(said)


def _meant(name: ClassName, found: set[str]) -> str:
    """The label that an override's name means, as it is written in the data if it occurs there."""
    if isinstance(name, str):
        return name.strip()
    if isinstance(name, bool) or (isinstance(name, float) and not math.isfinite(name)):
        text = str(name).lower()
        return next((label for label in sorted(found) if label.lower() == text), text)
    text = str(int(name)) if name == int(name) else repr(name)
    return next((label for label in (text, f"{text}.0") if label in found), text)


def _refuse_points(found: set[str], source: str) -> None:
    both = sorted(text for text in found if text.endswith(".0") and text.removesuffix(".0") in found)
    if both:
        raise SubflError(
            f"{source}: the labels {both[0].removesuffix('.0')} and {both[0]} stand beside words and differ in a point "
            "only; write each class in one way"
        )


def _refuse_measurements(labels: np.ndarray, found: set[str], source: str) -> None:
    numbers = {label: float(_as_number(label)) for label in found if _NUMBER.fullmatch(_as_number(label))}
    fractions = {label for label, value in numbers.items() if value % 1 != 0}
    others = {label for label in found if label not in numbers and label.lower() not in _NO_NUMBER}
    if fractions and (not others or 2 * len(fractions) > len(found)):
        rows = np.array([label in fractions for label in labels.tolist()])
        raise SubflError(
            f"{source}: label is not a class ({len(fractions)} different fractional values on {np.count_nonzero(rows)} "
            f"nodes, the first is {labels[int(rows.argmax())]}); classes are names or whole numbers. Cut the values "
            "into classes, or name all of them in dataset.classes"
        )


def _as_number(label: str) -> str:
    """A label with a decimal comma or a percent sign as a number is written."""
    text = label.removesuffix("%").rstrip()
    return text.replace(",", ".") if text.count(",") == 1 else text
