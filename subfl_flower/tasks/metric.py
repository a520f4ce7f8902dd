"""The declaration of a figure that clients measure: its range, and its place in the records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LARGEST = 1e100
"""Bound of a figure without a narrower range, so that a mean over clients is finite."""


@dataclass(frozen=True)
class Metric:
    """A figure that clients measure.

    Attributes:
        low, high: the range of its values.
        needed: True where every client has it; else it may be left out, or be NaN.
        by_client: True where the round's record lists each client's value.
        averaged: True where the round's record also has the mean over the last known values of all clients.
    """

    low: float = -_LARGEST
    high: float = _LARGEST
    needed: bool = False
    by_client: bool = False
    averaged: bool = False

    def allows(self, values: np.ndarray) -> np.ndarray:
        """True for each of the values [A] in range, bool [A]. NaN is in range, unless the figure is needed."""
        inside = (values >= self.low) & (values <= self.high)  # not a number compares as false
        return inside if self.needed else inside | np.isnan(values)

    def __str__(self) -> str:
        """The range in words, such as ``from 0 to 1``."""
        if (self.low, self.high) == (-_LARGEST, _LARGEST):
            return "a finite number"
        return f"from {self.low:g}" + ("" if self.high >= _LARGEST else f" to {self.high:g}")


SHARE = Metric(0.0, 1.0)
"""A figure between 0 and 1."""

COUNT = Metric(0.0, 1e12)
"""A number of examples."""


def is_test_figure(name: str) -> bool:
    """True for the name of a figure of test examples, such as ``test``, ``test_as_received`` or ``test.ndcg@10``."""
    return name == "test" or name.startswith(("test.", "test_"))
