from __future__ import annotations

import math
import sys

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from scipy import optimize

from subfl_flower.errors import SubflError
from subfl_flower.privacy import accountant
from subfl_flower.privacy.accountant import (
    ORDERS,
    per_coordinate_epsilon,
    privacy_report,
    renyi_divergences,
    renyi_epsilon,
    require_accountant,
    user_level_epsilon,
    whole_upload_epsilon,
)
from subfl_flower.privacy.grid import Grid
from subfl_flower.privacy.mechanism import LdpSettings

DELTA = 1e-5
LINF = LdpSettings(mechanism="laplace_linf", clip=0.1, noise=0.2)


def laplace(epsilon: float) -> LdpSettings:
    return LdpSettings(mechanism="laplace_l1", clip=2.0, epsilon=epsilon)


def gaussian(multiplier: float) -> LdpSettings:
    return LdpSettings(mechanism="gaussian_l2", clip=2.0, noise_multiplier=multiplier)


def library_epsilon(event: dp_accounting.DpEvent, uploads: int) -> float:
    accountant = pld.PLDAccountant()
    accountant.compose(dp_accounting.SelfComposedDpEvent(event, uploads))
    return float(accountant.get_epsilon(DELTA))


@pytest.mark.parametrize("uploads", [1, 10, 100])
@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_laplace_composes_as_in_the_library(uploads: int, epsilon: float) -> None:
    expected = library_epsilon(dp_accounting.LaplaceDpEvent(1 / epsilon), uploads)
    assert user_level_epsilon(laplace(epsilon), uploads, DELTA) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("uploads", [1, 10, 100])
def test_normal_noise_composes_by_its_renyi_divergences(uploads: int) -> None:
    """Near the library's, which knows other orders, and a little above that of noise of real numbers."""
    library = dp_accounting.rdp.RdpAccountant().compose(dp_accounting.GaussianDpEvent(5.0), uploads)
    found = user_level_epsilon(gaussian(5.0), uploads, DELTA)
    assert found == pytest.approx(library.get_epsilon(DELTA), rel=1e-2)
    tight = library_epsilon(dp_accounting.GaussianDpEvent(5.0), uploads)
    assert tight < found < 1.2 * tight


def test_epsilon_of_normal_noise_is_the_best_order_of_its_bound() -> None:
    """Canonne, Kamath, Steinke, proposition 12, with divergence a rho at order a."""
    found, rho = user_level_epsilon(gaussian(3.0), 4, DELTA), 4 / (2 * 3.0**2)
    bound = optimize.minimize_scalar(
        lambda a: a * rho + math.log1p(-1 / a) - math.log(DELTA * a) / (a - 1), bounds=(1.01, 100), method="bounded"
    )
    assert found == pytest.approx(bound.fun, rel=1e-3)


@pytest.mark.parametrize(("scale", "radius"), [(1.0, 1), (3.0, 2), (2.0, 5), (40.0, 15)])
def test_divergences_of_discrete_laplace_noise_are_their_sums(
    scale: float, radius: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LdpSettings, "grid", property(lambda _: Grid(1.0, radius, scale)))
    found, values = renyi_divergences(laplace(1.0)), np.arange(-3000, 3001)
    one, other = -np.abs(values) / scale, -np.abs(values - 2 * radius) / scale
    normaliser = np.logaddexp.reduce(one)
    for index in (100, 250, 300):
        logarithm = np.logaddexp.reduce(ORDERS[index] * one + (1 - ORDERS[index]) * other) - normaliser
        assert found[index] == pytest.approx(logarithm / (ORDERS[index] - 1), rel=1e-6)


def test_divergences_of_one_laplace_event_bound_its_privacy_loss_from_above_and_closely() -> None:
    expected = dp_accounting.rdp.RdpAccountant().compose(dp_accounting.LaplaceDpEvent(10.0), 500).get_epsilon(DELTA)
    assert renyi_epsilon(renyi_divergences(laplace(0.1)) * 500, DELTA) == pytest.approx(expected, rel=1e-2)


def test_pure_epsilons_add_up() -> None:
    assert user_level_epsilon(laplace(0.7), 1, 0.0) == pytest.approx(0.7)
    assert user_level_epsilon(laplace(0.7), 30, 0.0) == pytest.approx(21.0)
    assert user_level_epsilon(LINF, 30, 0.0, num_coordinates=11) == pytest.approx(330.0)


def test_one_laplace_upload_has_the_delta_that_is_known_in_closed_form() -> None:
    """delta(e) = 1 - exp((e - e0) / 2), so e = e0 + 2 ln(1 - delta)."""
    assert user_level_epsilon(laplace(1.0), 1, 0.01) == pytest.approx(1.0 + 2 * math.log(0.99), rel=1e-4)


def test_no_shift_inside_the_ball_shows_more_than_the_accountant_says() -> None:
    """The shift that the accountant counts, all in one value, is the worst: spread over values it tells less."""
    epsilon, target = 1.0, 0.5
    rng = np.random.default_rng(0)
    for shift in ([1.0], [0.5, 0.5], [0.1] * 10):
        noise = rng.laplace(scale=1 / epsilon, size=(400_000, len(shift)))
        loss = epsilon * (np.abs(noise - shift) - np.abs(noise)).sum(1)
        delta = np.maximum(0, 1 - np.exp(target - loss)).mean()
        worst = 1 - math.exp((target - epsilon) / 2)
        assert delta <= worst + 0.003
        assert len(shift) > 1 or delta == pytest.approx(worst, abs=0.003)


def test_every_value_of_an_upload_counts_where_values_are_clamped_alone() -> None:
    assert user_level_epsilon(LINF, 2, DELTA, num_coordinates=40) == pytest.approx(
        library_epsilon(dp_accounting.LaplaceDpEvent(1.0), 80), rel=1e-4
    )
    with pytest.raises(ValueError, match="how many values"):
        user_level_epsilon(LINF, 2, DELTA)


def test_very_many_events_have_a_bound_between_mean_and_worst_privacy_loss() -> None:
    """A Laplace event of epsilon 1 loses 1/e on average and 1 at most."""
    events = 300 * 344_064
    bound = user_level_epsilon(LINF, 300, DELTA, num_coordinates=344_064)
    assert events / math.e < bound < events / 2


def test_figures_of_the_paper() -> None:
    """delta 0.1 and lambda 0.2: epsilon 1 a value, and 344,064 for an upload of as many values."""
    assert per_coordinate_epsilon(LINF) == pytest.approx(1.0)
    assert whole_upload_epsilon(LINF, 344_064) == pytest.approx(344_064.0)


@pytest.mark.parametrize("settings", [LdpSettings(), laplace(1.0), gaussian(1.0)])
def test_a_per_coordinate_epsilon_is_told_of_clamping_alone(settings: LdpSettings) -> None:
    assert per_coordinate_epsilon(settings) is None


def test_whole_uploads() -> None:
    assert whole_upload_epsilon(laplace(0.7), 1000) == pytest.approx(0.7)
    assert whole_upload_epsilon(gaussian(1.0), 1000) == math.inf
    assert whole_upload_epsilon(LdpSettings(), 1000) == math.inf
    assert whole_upload_epsilon(LINF.model_copy(update={"noise": 0.0}), 1000) == math.inf


def test_no_upload_tells_nothing_and_no_noise_everything() -> None:
    assert user_level_epsilon(laplace(1.0), 0, DELTA) == 0.0
    assert user_level_epsilon(LdpSettings(), 1, DELTA) == math.inf


def test_a_report_holds_all_figures() -> None:
    report = privacy_report(LINF, 1, 1)
    assert (report.mechanism, report.clip, report.noise_scale) == ("laplace_linf", 0.1, 0.2)
    assert (report.num_uploads, report.num_coordinates, report.delta) == (1, 1, 1e-5)
    assert report.per_coordinate_epsilon == pytest.approx(1.0)
    assert report.whole_upload_epsilon == pytest.approx(1.0)
    assert report.user_level_epsilon == pytest.approx(1.0 + 2 * math.log(1 - 1e-5), rel=1e-6)


def test_a_report_of_unbounded_figures_has_none() -> None:
    report = privacy_report(LdpSettings(), 5, 100)
    assert report.per_coordinate_epsilon is report.whole_upload_epsilon is report.user_level_epsilon is None


@pytest.fixture
def without_dp_accounting(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without the extra `dp`."""

    class Missing:
        def find_spec(self, name: str, *_: object) -> None:
            if name.partition(".")[0] in ("dp_accounting", "absl"):
                raise ModuleNotFoundError(name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] in ("dp_accounting", "absl")]:
        monkeypatch.delitem(sys.modules, name)
    accountant._library.cache_clear()


def test_without_the_extra_pure_epsilons_add_up_and_its_name_is_said(without_dp_accounting: None) -> None:
    report = privacy_report(LINF, 30, 11)
    assert report.user_level_epsilon == pytest.approx(30 * 11 * 2 * 0.1 / 0.2) and report.delta == 0.0
    assert report.note == "a smaller epsilon, at delta 1e-05, needs dp-accounting: pip install 'subfl-flower[dp]'"
    assert privacy_report(laplace(0.7), 30, 11).user_level_epsilon == pytest.approx(21.0)
    for settings in (LINF, laplace(0.7), LdpSettings()):
        require_accountant(settings)


def test_without_the_extra_normal_noise_is_refused_before_a_run(without_dp_accounting: None) -> None:
    with pytest.raises(SubflError, match=r"needs the package dp_accounting: pip install 'subfl-flower\[dp\]'"):
        require_accountant(gaussian(1.0))


def test_with_the_extra_nothing_is_remarked() -> None:
    report = privacy_report(laplace(0.7), 30, 11)
    assert (report.note, report.delta) == (None, DELTA) and report.user_level_epsilon < 21.0
