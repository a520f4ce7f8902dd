"""Degrees as an array for a message: whole numbers in four bytes, sums of weights in eight.

Without edge weights, or with whole ones, degrees are whole numbers. The form of an array follows from its degrees
alone.
"""

from __future__ import annotations

import numpy as np

_LARGEST_WHOLE = np.iinfo(np.uint32).max

_FORMS = "degrees must be uint32 [nodes], each at least 1, or float64 where one is not whole, all finite and at least 1"


def packed_degrees(degrees: np.ndarray) -> np.ndarray:
    """Degrees `[nodes]`, each at least 1: uint32 where all are whole and fit, else float64."""
    return degrees.astype(np.uint32 if _whole(degrees) else np.float64)


def unpacked_degrees(packed: np.ndarray | None) -> np.ndarray:
    """Degrees as `packed_degrees` got them: int64 `[nodes]` where all are whole, else float64.

    Args:
        packed: untrusted; None where it is missing.

    Raises:
        ValueError: it is not in the form of these degrees, or one is below 1 or not finite.
    """
    if packed is None or packed.ndim != 1 or packed.dtype not in (np.uint32, np.float64):
        raise ValueError(_FORMS)
    whole = packed.dtype == np.uint32
    if not (np.isfinite(packed) & (packed >= 1)).all() or (not whole and _whole(packed)):
        raise ValueError(_FORMS)
    return packed.astype(np.int64) if whole else packed


def _whole(degrees: np.ndarray) -> bool:
    return bool(((degrees == np.rint(degrees)) & (degrees <= _LARGEST_WHOLE)).all())
