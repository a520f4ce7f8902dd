r"""Grid of values on which an upload is rounded before noise: multiples of a power of two.

Noise and rounded values are integers, in units of the grid's `spacing`, and so is their sum. float32 holds all integers
up to 2^24, so a protected upload is exactly on the grid, and nothing but the sum travels. Each value is rounded at
random to one of the two nearest multiples, with the value as the mean. The norm of the *rounded* upload is at most the
clipping radius, so that the bound on how far two uploads can be apart counts the rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from subfl_flower.privacy.discrete_noise import Words, uniform

FINENESS = 18  # the noise's scale is 2^18 spacings or more
LARGEST = 2**24  # of an integer that float32 holds with all integers below it: 32 scales of the noise or more
_RADIUS_BITS = 22  # the clipping radius is at most 2^22 spacings
_TRIES = 8
_MARGIN = 2.0**-20  # of the first try to shrink an upload; four times as much with each further one

Norm = Callable[[np.ndarray], float]


@dataclass(frozen=True)
class Grid:
    """Multiples of `spacing` inside a ball.

    Attributes:
        spacing: a power of two.
        radius: of the ball, in units of the spacing: an integer.
        scale: of the noise, in the same units.
    """

    spacing: float
    radius: int
    scale: float

    @classmethod
    def of(cls, clip: float, noise_scale: float) -> Grid:
        """The grid for a clipping radius and a noise scale, both above 0 and in the units of the upload.

        It is fine against the noise. Where the radius is far larger than the noise it is fine against the radius.
        """
        fine = math.floor(math.log2(noise_scale)) - FINENESS
        spacing = 2.0 ** max(fine, math.ceil(math.log2(clip)) - _RADIUS_BITS)
        return cls(spacing, math.floor(clip / spacing), noise_scale / spacing)

    def rounded(self, values: np.ndarray, words: Words, norm: Norm) -> np.ndarray:
        """Integers [n], as float64, of norm `radius` at most: the values at random to one of the nearest two.

        Args:
            values: float [n], in the units of the upload.
            words: the randomness.
            norm: of an array of integers; it is exact up to 2^53.
        """
        scaled = values * (1 / self.spacing)
        for shrunk in range(_TRIES):
            found: np.ndarray = np.floor(scaled + uniform(len(scaled), words))
            size = norm(found)
            if size <= self.radius:
                return found
            scaled *= self.radius / size * (1 - _MARGIN * 4**shrunk)
        # Towards zero, rounding makes no value larger.
        towards_zero: np.ndarray = np.trunc(scaled * min(1.0, self.radius / norm(scaled) * (1 - _MARGIN)))
        return towards_zero

    def clamped(self, values: np.ndarray, words: Words) -> np.ndarray:
        """Integers [n], as float64, each of magnitude `radius` at most: the values at random to one of the nearest two.

        Args:
            values: float [n], in the units of the upload.
            words: the randomness.
        """
        found = np.floor(values * (1 / self.spacing) + uniform(len(values), words))
        return np.clip(found, -self.radius, self.radius, out=found)

    def written(self, integers: np.ndarray, into: Sequence[np.ndarray]) -> None:
        """Write integers [n] as values, exactly, into float32 arrays with n values together.

        Integers beyond `LARGEST` are cut off, whatever the data are: that changes no guarantee.
        """
        values = np.clip(integers, -LARGEST, LARGEST).astype(np.float32)
        values *= np.float32(self.spacing)
        start = 0
        for array in into:
            array[...] = values[start : start + array.size].reshape(array.shape)
            start += array.size
