"""Means over those who have a value."""

from __future__ import annotations

import numpy as np


def finite_mean(values: np.ndarray) -> float:
    """The mean of the finite `values`; not a number where there is none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")
