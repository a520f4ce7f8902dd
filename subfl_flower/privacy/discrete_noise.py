r"""Discrete Laplace and discrete Gaussian noise: integers, drawn many at once from random words.

Their probabilities are proportional to :math:`e^{-|x| / t}` and :math:`e^{-x^2 / 2 \sigma^2}` for all integers x
(Canonne, Kamath, Steinke, NeurIPS 2020). An integer has no low bits that could tell more than its value, as those of a
floating-point variate do (Mironov, CCS 2012).

Samplers are by rejection, as in the paper's algorithms 2 and 3. The paper decides on acceptance with rational numbers.
Here a random integer of 44 bits or more is compared with a probability in double precision. The probability of each
value is so right to a relative 2^-40, for all values within 16 scales; what lies beyond has a probability below 2^-23
together, with the same error relative to that.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

Words = Callable[[int], np.ndarray]
"""Source of randomness: makes so many uniformly random words, uint64 [n]."""

_AT_ONCE = 16_384  # values whose arrays stay in a core's cache
_LOW_BITS = 20  # of a proposal's word: the offset in a block; the other 44 decide on acceptance
_UNIT = 2.0**-53


def uniform(count: int, words: Words) -> np.ndarray:
    """Random numbers below 1, float64 [count], multiples of 2^-32."""
    drawn = words(-(-count // 2)).view(np.uint32)[:count]
    numbers: np.ndarray = drawn * 2.0**-32
    return numbers


def discrete_laplace(scale: float, count: int, words: Words) -> np.ndarray:
    """Values with probabilities proportional to exp(-|x| / scale), int64 [count].

    Args:
        scale: t, above 0 and below 2^40; of large t the standard deviation is sqrt(2) t.
        count: number of values.
        words: the randomness.
    """
    return _in_parts(lambda size: _laplace_proposals(scale, size, words), count)


def discrete_gaussian(sigma: float, count: int, words: Words) -> np.ndarray:
    """Values with probabilities proportional to exp(-x² / (2 sigma²)), int64 [count].

    Args:
        sigma: above 0 and below 2^40; the standard deviation but for a term that vanishes above 1.
        count: number of values.
        words: the randomness.
    """
    scale = math.floor(sigma) + 1.0

    def proposals(size: int) -> np.ndarray:
        drawn = _laplace_proposals(scale, int(size * 1.35) + 16, words)
        distance = np.abs(drawn) - sigma * sigma / scale
        likely = np.exp(distance * distance * (-0.5 / (sigma * sigma)))
        accepted: np.ndarray = drawn[(words(len(drawn)) >> np.uint64(11)) * _UNIT < likely]
        return accepted

    return _in_parts(proposals, count)


def _in_parts(proposals: Callable[[int], np.ndarray], count: int) -> np.ndarray:
    """So many accepted proposals; `proposals` returns about as many as it is asked for."""
    found = np.empty(count, dtype=np.int64)
    done = 0
    while done < count:
        accepted = proposals(min(count - done, _AT_ONCE))[: count - done]
        found[done : done + len(accepted)] = accepted
        done += len(accepted)
    return found


def _laplace_proposals(scale: float, size: int, words: Words) -> np.ndarray:
    """About `size` values of the discrete Laplace distribution.

    A magnitude is an offset in a block of 2^m integers, with 2^m near the scale, and a number of blocks. Both are
    independent: exp(-(u + 2^m v) / t) is a product.
    """
    bits = min(_LOW_BITS, max(0, round(math.log2(scale))))
    block = 2**bits
    ratio = block / scale
    expected = -math.expm1(-ratio) / ratio  # share of accepted offsets: near a mean of exp(-u / t)
    word = words(int(size / expected * 1.01) + 32)
    offset = word & np.uint64(block - 1)
    word >>= np.uint64(_LOW_BITS)
    magnitude = offset[word * 2.0 ** (_LOW_BITS - 64) < np.exp(offset * (-1.0 / scale))].astype(np.int64)
    other = words(len(magnitude))
    negative = (other & np.uint64(1)).astype(bool)
    other >>= np.uint64(1)
    beyond, blocks = np.arange(len(magnitude)), 1
    while len(beyond):
        further = other < np.uint64(math.exp(-ratio * blocks) * 2.0**63)
        beyond, other = beyond[further], other[further]
        magnitude[beyond] += block
        blocks += 1
    signed = np.where(negative, -magnitude, magnitude)
    # Zero has one sign: with two it would be drawn twice as often.
    return signed if signed.all() else signed[(magnitude > 0) | ~negative]
