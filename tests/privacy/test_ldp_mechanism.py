from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from subfl_flower.errors import SubflError
from subfl_flower.privacy.mechanism import (
    LdpSettings,
    Uploads,
    protect,
    protect_uploads,
)

LINF = LdpSettings(mechanism="laplace_linf", clip=0.5, noise=2.0)
L1 = LdpSettings(mechanism="laplace_l1", clip=3.0, epsilon=1.5)
L2 = LdpSettings(mechanism="gaussian_l2", clip=3.0, noise_multiplier=0.5)


def clip_upload(arrays: list[np.ndarray], settings: LdpSettings) -> list[np.ndarray]:
    """An upload protected without noise."""
    noiseless = settings.model_copy(update={"noise": 0.0, "epsilon": np.inf, "noise_multiplier": 0.0})
    assert noiseless.noise_scale == 0
    return protect(arrays, noiseless, np.random.default_rng(0))


def uploads(rng: np.random.Generator) -> Uploads:
    """Three users: some rows, none, and rows that no ball holds."""
    return Uploads(
        rng.standard_normal((70, 5), dtype=np.float32),
        np.array([0, 30, 30, 70]),
        {
            "weight": rng.standard_normal((3, 4, 5), dtype=np.float32),
            "bias": rng.standard_normal(3, dtype=np.float32),
        },
    )


def test_clamping_bounds_every_value_and_leaves_small_ones() -> None:
    rows, bias = clip_upload([np.float32([[0.2, -0.7], [0.5, 9.0]]), np.float32(-2)], LINF)
    np.testing.assert_array_equal(rows, np.float32([[0.2, -0.5], [0.5, 0.5]]))
    np.testing.assert_array_equal(bias, np.float32(-0.5))


@pytest.mark.parametrize(
    ("settings", "norm"), [(L1, 5.0 + 1.0), (L2, np.sqrt(3.0**2 + 2.0**2 + 1.0))], ids=["l1", "l2"]
)
def test_a_norm_is_of_the_whole_upload(settings: LdpSettings, norm: float) -> None:
    arrays = [np.float32([[3.0, 0.0]]), np.float32([-2.0]), np.float32(1.0)]
    for clipped, values in zip(clip_upload(arrays, settings), arrays, strict=True):
        np.testing.assert_allclose(clipped, values * 3.0 / norm, rtol=2e-6)


@pytest.mark.parametrize("settings", [L1, L2], ids=["l1", "l2"])
def test_an_upload_inside_the_ball_is_not_touched(settings: LdpSettings) -> None:
    arrays = [np.float32([[1.0, -0.5]]), np.float32([0.25])]
    for clipped, values in zip(clip_upload(arrays, settings), arrays, strict=True):
        np.testing.assert_array_equal(clipped, values)


@pytest.mark.parametrize(("settings", "order"), [(L1, 1), (L2, 2)], ids=["l1", "l2"])
def test_clipped_uploads_are_never_outside_the_ball(settings: LdpSettings, order: int) -> None:
    rng = np.random.default_rng(0)
    for size in (1, 7, 1000, 100_000):
        (clipped,) = clip_upload([rng.standard_normal(size, dtype=np.float32) * 100], settings)
        norm = np.linalg.norm(clipped.astype(np.float64), order)
        assert norm <= settings.clip
        assert norm == pytest.approx(settings.clip, rel=3e-6)


@pytest.mark.parametrize(
    ("settings", "law"),
    [(LINF, stats.laplace(scale=2.0)), (L1, stats.laplace(scale=4.0)), (L2, stats.norm(scale=3.0))],
    ids=["linf", "l1", "l2"],
)
def test_noise_has_the_law_that_it_should(settings: LdpSettings, law: stats.rv_continuous) -> None:
    rng = np.random.default_rng(1)
    arrays = [np.full((400, 100), 1e-6, dtype=np.float32), np.full(1000, 1e-6, dtype=np.float32)]
    clipped = clip_upload(arrays, settings)
    noise = [noisy - own for noisy, own in zip(protect(arrays, settings, rng), clipped, strict=True)]
    for values in noise:
        assert stats.kstest(values.ravel(), law.cdf).pvalue > 0.01
    columns = noise[0]
    correlations = np.corrcoef(columns.T)[np.triu_indices(100, 1)]
    assert np.abs(correlations).max() < 5.5 / np.sqrt(400)  # independent: N(0, 1/400) each


def test_protection_moves_what_was_clipped() -> None:
    """Noise is added to the clipped values, not to the raw ones: the mean over many draws is the clipped value."""
    raw = [np.full(200_000, 40.0, dtype=np.float32)]
    (noisy,) = protect(raw, LINF, np.random.default_rng(2))
    assert noisy.mean(dtype=np.float64) == pytest.approx(0.5, abs=5 * np.sqrt(2) * 2.0 / np.sqrt(200_000))
    np.testing.assert_array_equal(raw[0], np.float32(40.0))


def test_without_a_mechanism_nothing_changes() -> None:
    original = uploads(np.random.default_rng(3))
    rngs = [np.random.default_rng(user) for user in range(3)]
    kept = protect_uploads(original, LdpSettings(), rngs)
    np.testing.assert_array_equal(kept.rows, original.rows)
    np.testing.assert_array_equal(kept.shared["weight"], original.shared["weight"])


@pytest.mark.parametrize("settings", [LINF, L1, L2], ids=["linf", "l1", "l2"])
def test_stacked_users_are_protected_as_each_alone(settings: LdpSettings) -> None:
    original = uploads(np.random.default_rng(4))
    stacked = protect_uploads(original, settings, [np.random.default_rng(user) for user in range(3)])
    for user in range(3):
        alone = protect(original.of_user(user), settings, np.random.default_rng(user))
        for ours, theirs in zip(stacked.of_user(user), alone, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == np.float32


def test_a_value_that_is_not_finite_is_refused() -> None:
    for settings in (LINF, L1, L2):
        for bad in (np.nan, np.inf):
            with pytest.raises(SubflError, match="not finite"):
                clip_upload([np.float32([1.0, bad])], settings)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [
        (LdpSettings(), 0.0),
        (LINF, 2.0),
        (LdpSettings(mechanism="laplace_linf", clip=0.1, epsilon=1.0), 0.2),
        (L1, 4.0),
        (L2, 3.0),
    ],
)
def test_the_scale_of_noise(settings: LdpSettings, scale: float) -> None:
    assert settings.noise_scale == pytest.approx(scale)


@pytest.mark.parametrize(
    ("knobs", "named"),
    [
        ({"mechanism": "laplace_l1"}, "needs epsilon"),
        ({"mechanism": "gaussian_l2"}, "needs noise_multiplier"),
        ({"mechanism": "laplace"}, "mechanism"),
        ({"clip": 0}, "clip"),
        ({"noise": -1}, "noise"),
        ({"epsilon": float("inf")}, "epsilon"),
        ({"sigma": 1}, "sigma"),
    ],
)
def test_settings_that_make_no_sense_are_refused(knobs: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        LdpSettings.model_validate(knobs)
