"""Ratings in one tensor file, those of a whole data set or of one user."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from subfl_flower.storage.tensor_file import Card, read_tensor_file, write_tensor_file


class RatingsCard(Card):
    """Ratings: `items`, `values` and `roles` with an entry for each, and `offsets` of users where there are several."""

    holds: ClassVar[str] = "ratings"

    kind: Literal["ratings"] = "ratings"


def write_rating_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of `Ratings` by name.

    Raises:
        SubflError: the file cannot be written.
    """
    write_tensor_file(path, arrays, RatingsCard())


def read_rating_arrays(
    path: Path, names: Iterable[str] | None = None, rows: slice | None = None
) -> dict[str, np.ndarray]:
    """Arrays of `Ratings` by name.

    Args:
        path: of the file.
        names: of the arrays; None: all.
        rows: of these arrays; None: all.

    Raises:
        SubflError: the file is damaged or holds something else.
    """
    return read_tensor_file(path, RatingsCard, names, rows)[0]
