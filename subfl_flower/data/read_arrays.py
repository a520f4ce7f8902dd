"""Checks of what a data set's `read` gives: the class may be a user's, and give anything."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from subfl_flower.errors import SubflError

WHOLE, NUMBERS, ANY = "iu", "iufb", ""
"""NumPy's letters for kinds of entries."""


def require_result(result: object, kind: type, source: str) -> None:
    """Refuse what is not an instance of a class.

    Raises:
        SubflError: names the type.
    """
    if not isinstance(result, kind):
        raise SubflError(f"{source}: read() gives {type(result).__name__}; it must return a {kind.__name__}")


def require_array(
    array: Any, name: str, shape: tuple[int | str, ...], kinds: str, source: str, sparse: bool = False
) -> None:
    """Refuse what is not an array of a shape and kind.

    Args:
        array: anything.
        name: of the array in an error.
        shape: lengths that must be, or words for those that are free.
        kinds: NumPy's letters for the kinds of its entries; an array without entries may be of any.
        source: name of the data in an error.
        sparse: allow SciPy's sparse matrices.

    Raises:
        SubflError: names the array, and what it is.
    """
    words = f"[{', '.join(map(str, shape))}]"
    if not (isinstance(array, np.ndarray) or (sparse and sp.issparse(array))):
        raise SubflError(f"{source}: {name} are of the type {type(array).__name__}; expected a NumPy array {words}")
    fits = all(isinstance(wanted, str) or wanted == found for wanted, found in zip(shape, array.shape, strict=False))
    if array.ndim != len(shape) or not fits:
        raise SubflError(f"{source}: {name} have the shape {list(array.shape)}; expected {words}")
    if kinds and array.dtype.kind not in kinds and 0 not in array.shape:
        raise SubflError(
            f"{source}: {name} are of the type {array.dtype}; expected {'whole ' if kinds == WHOLE else ''}numbers"
        )
