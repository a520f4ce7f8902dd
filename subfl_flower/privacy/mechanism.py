r"""Local differential privacy: a client clips its upload and adds noise before sending it.

With clipping to a ball of radius :math:`\delta` (`clip`), two uploads are at most :math:`2 \delta` apart in the norm of
the ball, whatever the data. Three mechanisms:

================  ====================================  ==========================================
mechanism         ball                                  noise of a value
================  ====================================  ==========================================
``laplace_linf``  every value in itself, by clamping    Laplace of scale `noise`, or 2 clip / `epsilon`
``laplace_l1``    the whole upload, by its L1 norm      Laplace of scale 2 clip / `epsilon`
``gaussian_l2``   the whole upload, by its L2 norm      normal, deviation `noise_multiplier` · 2 clip
================  ====================================  ==========================================

The first is FedGNN's (Wu et al., Nature Communications 2022, eq. 1); its :math:`\epsilon = 2 \delta / \lambda` holds
for one value of one upload alone (`subfl_flower.privacy.accountant`). The guarantees cover an upload's *values*. The
server also sees which rows are sent, which none of them covers.

Clipped values are rounded to a grid, and the noise is discrete Laplace or discrete Gaussian noise on that grid
(`subfl_flower.privacy.grid`, `subfl_flower.privacy.discrete_noise`). The guarantees are those of the numbers that are
sent: there are no low bits that would tell them apart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from subfl_flower.errors import SubflError
from subfl_flower.privacy.discrete_noise import Words, discrete_gaussian, discrete_laplace
from subfl_flower.privacy.grid import FINENESS, Grid

ROUNDING = 2.0**-20  # more than the float32 error of scaling an upload: a clipped upload is strictly inside the ball


class LdpSettings(BaseModel):
    """Settings of the mechanism that protects an upload before it leaves a client.

    Attributes:
        mechanism: see above; ``none`` leaves an upload as it is.
        clip: radius of the ball that uploads are clipped to, in the units of the upload.
        noise: scale of the Laplace noise of ``laplace_linf``, unless `epsilon` gives it.
        epsilon: of one upload (``laplace_l1``), or of one value of it (``laplace_linf``).
        noise_multiplier: deviation of the noise of ``gaussian_l2``, in units of 2 clip.
        target_epsilon: of ``gaussian_l2``: user-level epsilon of a whole run, which replaces `noise_multiplier` by the
            least one that keeps it (`subfl_flower.privacy.accountant.for_rounds`).
        in_sum: of ``gaussian_l2`` with secure sums: True where the clients of a sum share its noise, and the guarantee
            is that of the sum; False where each client adds the whole noise.
        delta: delta of the reported user-level epsilon.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    mechanism: Literal["none", "laplace_linf", "laplace_l1", "gaussian_l2"] = "none"
    clip: float = Field(default=0.1, gt=0)
    noise: float = Field(default=0.2, ge=0)
    epsilon: float | None = Field(default=None, gt=0)
    noise_multiplier: float | None = Field(default=None, gt=0)
    target_epsilon: float | None = Field(default=None, gt=0)
    in_sum: bool = False
    delta: float = Field(default=1e-5, gt=0, lt=1)

    @model_validator(mode="after")
    def _noise_is_given(self) -> LdpSettings:
        if self.mechanism == "laplace_l1" and self.epsilon is None:
            raise ValueError("mechanism=laplace_l1 needs epsilon, that of one upload")
        if self.mechanism == "gaussian_l2" and self.noise_multiplier is None:
            raise ValueError("mechanism=gaussian_l2 needs noise_multiplier")
        if self.target_epsilon is not None and self.mechanism != "gaussian_l2":
            raise ValueError("target_epsilon is for mechanism=gaussian_l2 alone")
        if self.in_sum and self.mechanism != "gaussian_l2":
            raise ValueError("in_sum is for mechanism=gaussian_l2 alone")
        if self.grid is not None and self.grid.radius == 0:
            raise ValueError(f"noise of scale {self.noise_scale:g} is more than 2^{FINENESS} times clip, {self.clip:g}")
        return self

    @property
    def noise_scale(self) -> float:
        """Scale of the noise: Laplace's lambda, or the deviation of a normal; 0 for ``none``."""
        if self.mechanism == "none":
            return 0.0
        if self.mechanism == "gaussian_l2":
            assert self.noise_multiplier is not None
            return self.noise_multiplier * 2 * self.clip
        return self.noise if self.epsilon is None else 2 * self.clip / self.epsilon

    @property
    def relative_noise(self) -> float:
        """Deviation of the noise of a value, in units of 2 clip, the most by which two clipped uploads differ."""
        laplace = self.mechanism in ("laplace_linf", "laplace_l1")
        return (math.sqrt(2) if laplace else 1.0) * self.noise_scale / (2 * self.clip)

    def share_of(self, clients: int) -> LdpSettings:
        """The settings of each of so many clients, whose noises together have the deviation of these.

        The sum of discrete Gaussian variates is one up to a total variation far below 1e-100 at the grid's fineness
        (Kairouz, Liu, Steinke, ICML 2021, theorem 1).
        """
        assert self.noise_multiplier is not None
        return self.model_copy(update={"noise_multiplier": self.noise_multiplier / math.sqrt(clients)})

    @property
    def grid(self) -> Grid | None:
        """The grid of protected values; None without noise, where values stay as they are."""
        return Grid.of(self.clip, self.noise_scale) if self.noise_scale > 0 else None


class NoNoise(LdpSettings):
    """Uploads as they are."""

    mechanism: Literal["none"] = "none"


class LaplaceLinf(LdpSettings):
    """Every value clipped separately, with Laplace noise: FedGNN's mechanism."""

    mechanism: Literal["laplace_linf"] = "laplace_linf"


class LaplaceL1(LdpSettings):
    """The whole upload clipped by its L1 norm, with Laplace noise for an epsilon of one upload."""

    mechanism: Literal["laplace_l1"] = "laplace_l1"
    clip: float = Field(default=1.0, gt=0)
    epsilon: float | None = Field(default=1.0, gt=0)


class GaussianL2(LdpSettings):
    """The whole upload clipped by its L2 norm, with normal noise."""

    mechanism: Literal["gaussian_l2"] = "gaussian_l2"
    clip: float = Field(default=1.0, gt=0)
    noise_multiplier: float | None = Field(default=1.0, gt=0)


AnyMechanism = Annotated[NoNoise | LaplaceLinf | LaplaceL1 | GaussianL2, Field(discriminator="mechanism")]
"""The section `privacy` of the configuration, with each mechanism's defaults, told apart by `mechanism`."""


@dataclass(frozen=True, eq=False)
class Uploads:
    """Uploads of U users.

    Attributes:
        rows: float32 `[R, width]`, the rows of all users, one user's after the other's.
        offsets: int64 `[U + 1]`; user u has the rows `offsets[u]` to `offsets[u + 1]`.
        shared: float32 `[U, ...]` by name, arrays of which every user has one.
    """

    rows: np.ndarray
    offsets: np.ndarray
    shared: Mapping[str, np.ndarray]

    def of_user(self, user: int) -> list[np.ndarray]:
        """One user's upload, as views: its rows, then its arrays of `shared`, in the order of their names there."""
        own = slice(self.offsets[user], self.offsets[user + 1])
        return [self.rows[own], *(values[user, ...] for values in self.shared.values())]


def protect(arrays: Sequence[np.ndarray], settings: LdpSettings, words: Words) -> list[np.ndarray]:
    """One user's upload, clipped and with noise on every value.

    Args:
        arrays: float32, of any shapes.
        settings: the mechanism.
        words: the user's random words, which the server must not know (`seeding.system_words`).

    Returns:
        New arrays of the same shapes; with noise, of multiples of the grid's spacing.

    Raises:
        SubflError: a value is not finite.
    """
    protected = [np.array(values, dtype=np.float32) for values in arrays]
    _protect(protected, settings, words)
    return protected


def protect_uploads(uploads: Uploads, settings: LdpSettings, words: Sequence[Words]) -> Uploads:
    """The uploads of U users, each protected as by `protect` with the user's random words; equal in any grouping.

    Args:
        uploads: float32.
        settings: the mechanism.
        words: one source of random words a user.

    Raises:
        SubflError: a value is not finite.
    """
    protected = Uploads(
        np.array(uploads.rows, dtype=np.float32),
        uploads.offsets,
        {name: np.array(values, dtype=np.float32) for name, values in uploads.shared.items()},
    )
    for user, own in enumerate(words):  # one at a time: an upload stays in cache from its norm to its noise
        _protect(protected.of_user(user), settings, own)
    return protected


def _protect(arrays: list[np.ndarray], settings: LdpSettings, words: Words) -> None:
    """Clip an upload in place, and add noise to it on the grid."""
    if settings.mechanism == "none":
        return
    _clip(arrays, settings)
    grid = settings.grid
    if grid is None or not arrays:
        return
    values = np.concatenate([array.reshape(-1) for array in arrays]).astype(np.float64)
    if settings.mechanism == "laplace_linf":
        integers = grid.clamped(values, words)
    else:
        integers = grid.rounded(values, words, lambda found: _norm([found], settings.mechanism))
    noise = discrete_gaussian if settings.mechanism == "gaussian_l2" else discrete_laplace
    integers += noise(grid.scale, len(integers), words)
    grid.written(integers, arrays)


def _clip(arrays: list[np.ndarray], settings: LdpSettings) -> None:
    norm = _norm(arrays, settings.mechanism)
    if not math.isfinite(norm):
        raise SubflError("a client's upload has a value that is not finite, and cannot be clipped")
    if norm <= settings.clip:
        return
    if settings.mechanism == "laplace_linf":
        for values in arrays:
            np.clip(values, -settings.clip, settings.clip, out=values)
        return
    factor = np.float32(settings.clip / norm * (1 - ROUNDING))
    for values in arrays:
        values *= factor


def _norm(arrays: Sequence[np.ndarray], mechanism: str) -> float:
    if mechanism == "laplace_linf":
        return float(max((np.abs(values).max(initial=0.0) for values in arrays), default=0.0))
    if mechanism == "laplace_l1":
        return float(sum(np.abs(values).sum(dtype=np.float64) for values in arrays))
    return math.sqrt(sum(np.square(values, dtype=np.float64).sum() for values in arrays))
