"""Privacy guarantees of the noise on uploads, from one value to all uploads of a user.

Neighbouring inputs are any two data sets of a user, so two uploads differ by up to twice the clipping radius. Epsilons
are in nats. Composition over a user's uploads is dp-accounting's: privacy loss distributions for Laplace noise
(`dp_accounting.pld`), or Rényi differential privacy where there are too many events for their grid; for normal noise
N uploads are one with 1/sqrt(N) of the noise, whose epsilon has a closed equation (Balle and Wang, ICML 2018).
dp-accounting is the extra `dp`. Without it a run with Laplace noise states the sum of its pure epsilons, at delta 0.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from subfl_flower.errors import SubflError
from subfl_flower.installed import optional_module
from subfl_flower.privacy.mechanism import LdpSettings

GRID_STEPS = 100  # of a privacy loss distribution, in an event's epsilon: five digits of the composed epsilon
MOST_GRID_EVENTS = 20_000


@dataclass(frozen=True)
class PrivacyReport:
    """The guarantees of a run for a user who uploaded `num_uploads` times. None means that there is no finite bound.

    Attributes:
        mechanism: its name.
        clip: radius of the ball that uploads were clipped to.
        noise_scale: Laplace's lambda, or the deviation of a normal.
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
    if settings.mechanism in ("none", "gaussian_l2") or settings.noise_scale == 0:
        return math.inf
    return 2 * settings.clip / settings.noise_scale


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
    if settings.mechanism == "gaussian_l2":
        assert settings.noise_multiplier is not None
        return float(
            _library("gaussian_mechanism").get_epsilon_gaussian(
                settings.noise_multiplier / math.sqrt(num_uploads), delta
            )
        )
    events = num_uploads
    if settings.mechanism == "laplace_linf":
        if num_coordinates is None:
            raise ValueError("laplace_linf: the user-level epsilon depends on how many values an upload has")
        events *= num_coordinates
    return _composed_laplace(_event_epsilon(settings), events, delta)


def _composed_laplace(epsilon: float, events: int, delta: float) -> float:
    pure = epsilon * events
    if delta == 0 or math.isinf(pure) or pure == 0:
        return pure
    if events <= MOST_GRID_EVENTS:
        accountant = _library("pld").PLDAccountant(value_discretization_interval=epsilon / GRID_STEPS)
    else:
        accountant = _library("rdp").RdpAccountant()
    accountant.compose(_library("dp_event").LaplaceDpEvent(1 / epsilon), events)
    return min(pure, float(accountant.get_epsilon(delta)))


def require_accountant(settings: LdpSettings) -> None:
    """Check, before a run starts, that its guarantees can be computed.

    Raises:
        SubflError: normal noise, which has no pure epsilon, without the extra `dp`.
    """
    if settings.mechanism == "gaussian_l2":
        _library("gaussian_mechanism")


def privacy_report(settings: LdpSettings, num_uploads: int, num_coordinates: int) -> PrivacyReport:
    """All guarantees for a user with at most `num_uploads` uploads of at most `num_coordinates` values.

    Without the extra `dp` the user-level epsilon of Laplace noise is the sum of pure epsilons, `delta` is 0, and `note`
    names the extra.
    """
    delta, note = settings.delta, None
    if settings.mechanism.startswith("laplace") and not _has_library():
        delta = 0.0
        note = f"a smaller epsilon, at delta {settings.delta:g}, needs dp-accounting: pip install 'subfl-flower[dp]'"
    return PrivacyReport(
        mechanism=settings.mechanism,
        clip=settings.clip,
        noise_scale=settings.noise_scale,
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


def _has_library() -> bool:
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
