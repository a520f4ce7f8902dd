"""Which class has which number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subfl_flower.errors import SubflError


def class_numbers(labels: Sequence[object] | np.ndarray, classes: Sequence[str | int], source: str) -> np.ndarray:
    """The position of every label among named classes.

    Args:
        labels: one a labelled node; compared as text, a float that is a whole number as that number.
        classes: all classes in the order of their numbers.
        source: what to call the labels in an error.

    Returns:
        int64 `[labels]`.

    Raises:
        SubflError: a label is none of the classes.
    """
    number = {str(name): position for position, name in enumerate(classes)}
    found = np.array([number.get(_text(label), -1) for label in labels], dtype=np.int64)
    if (found < 0).any():
        unknown = _text(labels[int(np.flatnonzero(found < 0)[0])])
        raise SubflError(
            f"{source}: {np.count_nonzero(found < 0)} labels are none of dataset.classes, the first is {unknown!r}; "
            f"the classes are {', '.join(number)}"
        )
    return found


def _text(label: object) -> str:
    # A table column of integers with gaps, and a tensor, hold floats.
    return str(int(label)) if isinstance(label, float | np.floating) and label == int(label) else str(label)
