"""Privacy guarantees of the noise on uploads, from one value to all uploads of a user.

Neighbouring inputs are any two data sets of a user, so two uploads differ by up to twice the clipping radius. Epsilons
are in nats, and are those of the discrete noise that is drawn (`subfl_flower.privacy.grid`). Laplace noise is composed
over a user's uploads by dp-accounting's privacy loss distributions (`dp_accounting.pld`), or by Rényi differential
privacy where there are too many events for their grid. Discrete Gaussian noise has the Rényi divergences of normal
noise as bounds (Canonne, Kamath, Steinke, NeurIPS 2020, proposition 5), in any number of dimensions.

dp-accounting is the extra `dp`. Without it a run with Laplace noise states the sum of its pure epsilons, at delta 0.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from subfl_flower.errors import SubflError
from subfl_flower.installed import optional_module
from subfl_flower.privacy.grid import FINENESS
from subfl_flower.privacy.mechanism import LdpSettings

GRID_STEPS = 100  # of a privacy loss distribution, in an event's epsilon: five digits of the composed epsilon
MOST_GRID_EVENTS = 20_000
ORDERS = 1.01 + np.logspace(-3, 5, 500)
"""Orders of Rényi divergences."""


@dataclass(frozen=True)
class PrivacyReport:
    """The guarantees of a run for a user who uploaded `num_uploads` times. None means that there is no finite bound.

    Attributes:
        mechanism: its name.
        clip: radius of the ball that uploads were clipped to.
        noise_scale: Laplace's lambda, or the deviation of a normal.
        grid: spacing of the values that are sent; None where they are as they were.
        num_uploads: most uploads of one user.
        num_coordinates: most values in one upload.
        per_coordinate_epsilon: of one value of one upload, FedGNN's figure (``laplace_linf`` only).
        whole_upload_epsilon: pure (delta 0), of one upload.
        user_level_epsilon: of all uploads together, at `delta`.
        delta: delta of `user_level_epsilon`.
        note: remark on `user_level_epsilon`.
    """

    mechanism: str
    clip: float
    noise_scale: float
    grid: float | None
    num_uploads: int
    num_coordinates: int
    per_coordinate_epsilon: float | None
    whole_upload_epsilon: float | None
    user_level_epsilon: float | None
    delta: float
    note: str | None = None


def per_coordinate_epsilon(settings: LdpSettings) -> float | None:
    """2 clip / lambda: pure epsilon of one value of one upload under ``laplace_linf``; None for other mechanisms.

    It does not bound a whole upload, whose values all depend on the same data.
    """
    return _event_epsilon(settings) if settings.mechanism == "laplace_linf" else None


def whole_upload_epsilon(settings: LdpSettings, num_coordinates: int) -> float:
    """Pure epsilon of one upload of `num_coordinates` values; infinite without noise, and for normal noise."""
    if settings.mechanism == "laplace_linf":
        return _event_epsilon(settings) * num_coordinates
    return _event_epsilon(settings)


def _event_epsilon(settings: LdpSettings) -> float:
    """Pure epsilon of one Laplace event: of a value under ``laplace_linf``, of an upload under ``laplace_l1``."""
    grid = settings.grid
    if settings.mechanism == "gaussian_l2" or grid is None:
        return math.inf
    return 2 * grid.radius / grid.scale


def user_level_epsilon(
    settings: LdpSettings, num_uploads: int, delta: float, num_coordinates: int | None = None
) -> float:
    """Epsilon, at `delta`, of all uploads of a user.

    Args:
        settings: the mechanism.
        num_uploads: number of uploads of the user.
        delta: 0 for pure differential privacy.
        num_coordinates: values in an upload; ``laplace_linf`` needs it, as its noise does not depend on them.

    Returns:
        An upper bound; infinite where there is none.

    Raises:
        ValueError: ``laplace_linf`` without `num_coordinates`.
    """
    if num_uploads == 0:
        return 0.0
    if settings.mechanism == "laplace_linf" and num_coordinates is None:
        raise ValueError("laplace_linf: the user-level epsilon depends on how many values an upload has")
    grid = settings.grid
    if grid is None:
        return math.inf
    events = num_uploads * (num_coordinates or 1) if settings.mechanism == "laplace_linf" else num_uploads
    if settings.mechanism == "gaussian_l2":
        return renyi_epsilon(renyi_divergences(settings) * events, delta)
    pure = _event_epsilon(settings) * events
    if delta == 0 or events > MOST_GRID_EVENTS:
        return min(pure, renyi_epsilon(renyi_divergences(settings) * events, delta) if delta else math.inf)
    loss = _library("pld.privacy_loss_distribution").from_discrete_laplace_mechanism(
        1 / grid.scale,
        2 * grid.radius,
        value_discretization_interval=_event_epsilon(settings) / GRID_STEPS,
        use_connect_dots=True,
    )
    return min(pure, float(loss.self_compose(events).get_epsilon_for_delta(delta)))


def renyi_divergences(settings: LdpSettings) -> np.ndarray:
    r"""Largest Rényi divergence of one event at each of the `ORDERS`; an event is that of `user_level_epsilon`.

    For discrete Gaussian noise it is :math:`\alpha k^2 / 2 \sigma^2`, with k the distance of two uploads. Discrete
    Laplace noise, with :math:`q = e^{-1/t}`, has

    .. math:: e^{(\alpha - 1) D_\alpha} = \frac{q^{(1 - \alpha) k} + q^{\alpha k}
        + (1 - q) \, q^{(1 - \alpha) k} \sum_{x=1}^{k-1} q^{(2 \alpha - 1) x}}{1 + q} .
    """
    grid = settings.grid
    if grid is None:
        return np.full(len(ORDERS), np.inf)
    distance = 2 * grid.radius
    if settings.mechanism == "gaussian_l2":
        return ORDERS * distance**2 / (2 * grid.scale**2)
    step, twice = 1 / grid.scale, 2 * ORDERS - 1
    first, last = (ORDERS - 1) * distance * step, -ORDERS * distance * step
    between = np.full(len(ORDERS), -np.inf)
    if distance > 1:
        inner = np.log(-np.expm1(-twice * (distance - 1) * step)) - np.log(-np.expm1(-twice * step))
        between = math.log(-math.expm1(-step)) + first - twice * step + inner
    total = np.logaddexp(np.logaddexp(first, last), between) - math.log1p(math.exp(-step))
    divergences: np.ndarray = np.maximum(total, 0) / (ORDERS - 1)
    return divergences


def renyi_epsilon(divergences: np.ndarray, delta: float) -> float:
    """Epsilon at `delta`, above 0, of events with these Rényi divergences together, at each of the `ORDERS`."""
    if not np.isfinite(divergences).all():
        return math.inf
    return float(_library("rdp.rdp_privacy_accountant").compute_epsilon(ORDERS, divergences, delta)[0])


def for_rounds(settings: LdpSettings, num_uploads: int | None) -> LdpSettings:
    """The settings with the noise by which so many uploads of a user have `target_epsilon`; as they are without one.

    Every upload counts in full. The server, and everybody who knows the run's seed, can tell which clients take part in
    a round, so that drawing some of them hides nobody.

    Raises:
        SubflError: the number of uploads is not known, the extra `dp` is missing, or no noise is enough.
    """
    target = settings.target_epsilon
    if target is None:
        return settings
    if num_uploads is None:
        raise SubflError("privacy.target_epsilon: the noise depends on the run's number of rounds, which is not known")
    low, high = math.log(1e-4), math.log(2.0**FINENESS / 4)

    def noised(logarithm: float) -> LdpSettings:
        return settings.model_copy(update={"noise_multiplier": math.exp(logarithm)})

    def spent(logarithm: float) -> float:
        return user_level_epsilon(noised(logarithm), num_uploads, settings.delta)

    if spent(high) > target:
        raise SubflError(
            f"privacy.target_epsilon: no noise keeps {num_uploads} uploads within {target:g} at delta "
            f"{settings.delta:g}"
        )
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if spent(middle) > target else (low, middle)
    return noised(high)


def require_accountant(settings: LdpSettings) -> None:
    """Check, before a run starts, that its guarantees can be computed.

    Raises:
        SubflError: normal noise, which has no pure epsilon, without the extra `dp`.
    """
    if settings.mechanism == "gaussian_l2":
        _library("rdp.rdp_privacy_accountant")


def privacy_report(settings: LdpSettings, num_uploads: int, num_coordinates: int) -> PrivacyReport:
    """All guarantees for a user with at most `num_uploads` uploads of at most `num_coordinates` values.

    Without the extra `dp` the user-level epsilon of Laplace noise is the sum of pure epsilons, `delta` is 0, and `note`
    names the extra.
    """
    delta, note = settings.delta, None
    if settings.mechanism.startswith("laplace") and not has_accountant():
        delta = 0.0
        note = f"a smaller epsilon, at delta {settings.delta:g}, needs dp-accounting: pip install 'subfl-flower[dp]'"
    return PrivacyReport(
        mechanism=settings.mechanism,
        clip=settings.clip,
        noise_scale=settings.noise_scale,
        grid=None if settings.grid is None else settings.grid.spacing,
        num_uploads=num_uploads,
        num_coordinates=num_coordinates,
        per_coordinate_epsilon=_finite(per_coordinate_epsilon(settings)),
        whole_upload_epsilon=_finite(whole_upload_epsilon(settings, num_coordinates)),
        user_level_epsilon=_finite(user_level_epsilon(settings, num_uploads, delta, num_coordinates)),
        delta=delta,
        note=note,
    )


def _finite(epsilon: float | None) -> float | None:
    return None if epsilon is None or math.isinf(epsilon) else epsilon


def has_accountant() -> bool:
    """True where the extra `dp` is installed."""
    try:
        _library("pld")
    except SubflError:
        return False
    return True


@cache
def _library(module: str) -> Any:
    """A module of dp-accounting, which takes a second to import."""
    found = optional_module(f"dp_accounting.{module}", "dp", "the epsilon of several uploads at a delta above 0")
    # absl, which dp-accounting logs with, keeps the standard error stream of its import, and closes it when logging is
    # configured again, as Hydra does. In a notebook, or where standard error was replaced since, others use it.
    if sys.__stderr__ is not None:
        handler = optional_module("absl.logging", "dp", "dp-accounting").get_absl_handler()
        handler.python_handler.stream = sys.__stderr__
    return found
