"""float32 values in two bytes or in one.

``float16`` rounds to half precision (IEEE 754): 11 significant bits, up to 65,504. Larger values become infinite.

``int8`` rounds to a multiple of a row's step, its largest magnitude divided by 127 (uniform symmetric quantisation,
see Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", CVPR
2018). The error of an entry is half a step at most. Rounding is to the nearest multiple: zeros stay zeros, and the form
does not depend on random numbers. A row with a value that is not finite becomes all NaN.
"""

from __future__ import annotations

import numpy as np

SHORT = frozenset({"float16", "int8"})
"""Formats other than float32."""

_MOST = 127


def shortened(rows: np.ndarray, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The short form of float32 rows [R, ...]: values of type `dtype`, and with int8 the step of each row [R]."""
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return rows.astype(np.float16), None
    flat = rows.reshape(len(rows), -1)
    with np.errstate(invalid="ignore"):
        most = np.abs(flat).max(axis=1, initial=0.0)
        sound = np.isfinite(most)
        steps = np.where(sound, most / np.float32(_MOST), np.float32(np.nan)).astype(np.float32)
        divisors = np.where(sound & (steps > 0), steps, np.float32(1))
        values = np.rint(np.where(sound[:, None], flat, 0) / divisors[:, None])
    return np.clip(values, -_MOST, _MOST).astype(np.int8).reshape(rows.shape), steps


def restored(values: np.ndarray, steps: np.ndarray | None) -> np.ndarray:
    """The float32 rows of a short form."""
    rows: np.ndarray = values.astype(np.float32)
    if steps is not None:
        with np.errstate(invalid="ignore", over="ignore"):
            rows *= steps.reshape(-1, *[1] * (rows.ndim - 1))
    return rows
