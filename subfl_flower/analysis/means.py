"""Means over finite values."""

from __future__ import annotations

import numpy as np


def finite_mean(values: np.ndarray) -> float:
    """The mean of the finite `values`; NaN where there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
