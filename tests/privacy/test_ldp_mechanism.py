from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import stats

from subfl_flower.errors import SubflError
from subfl_flower.privacy.discrete_noise import Words
from subfl_flower.privacy.grid import LARGEST
from subfl_flower.privacy.mechanism import (
    LdpSettings,
    Uploads,
    protect,
    protect_uploads,
)
from subfl_flower.seeding import system_words, words_of

LINF = LdpSettings(mechanism="laplace_linf", clip=0.5, noise=2.0)
L1 = LdpSettings(mechanism="laplace_l1", clip=3.0, epsilon=1.5)
L2 = LdpSettings(mechanism="gaussian_l2", clip=3.0, noise_multiplier=0.5)


def seeded(seed: int) -> Words:
    return words_of(np.random.default_rng(seed))


def clip_upload(arrays: list[np.ndarray], settings: LdpSettings) -> list[np.ndarray]:
    """An upload protected without noise."""
    noiseless = settings.model_copy(update={"noise": 0.0, "epsilon": np.inf, "noise_multiplier": 0.0})
    assert noiseless.noise_scale == 0
    return protect(arrays, noiseless, seeded(0))


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
    arrays = [np.full((400, 100), 1e-6, dtype=np.float32), np.full(1000, 1e-6, dtype=np.float32)]
    clipped = clip_upload(arrays, settings)
    noise = [noisy - own for noisy, own in zip(protect(arrays, settings, seeded(1)), clipped, strict=True)]
    for values in noise:
        assert stats.kstest(values.ravel(), law.cdf).pvalue > 0.01
    columns = noise[0]
    correlations = np.corrcoef(columns.T)[np.triu_indices(100, 1)]
    assert np.abs(correlations).max() < 5.5 / np.sqrt(400)  # independent: N(0, 1/400) each


def test_protection_moves_what_was_clipped() -> None:
    """Noise is added to the clipped values, not to the raw ones: the mean over many draws is the clipped value."""
    raw = [np.full(200_000, 40.0, dtype=np.float32)]
    (noisy,) = protect(raw, LINF, seeded(2))
    assert noisy.mean(dtype=np.float64) == pytest.approx(0.5, abs=5 * np.sqrt(2) * 2.0 / np.sqrt(200_000))
    np.testing.assert_array_equal(raw[0], np.float32(40.0))


@pytest.mark.parametrize("settings", [LINF, L1, L2], ids=["linf", "l1", "l2"])
def test_what_is_sent_is_on_the_grid(settings: LdpSettings) -> None:
    grid = settings.grid
    assert grid is not None
    assert np.log2(grid.spacing) % 1 == 0 and 2**18 <= grid.scale < 2**19
    rng = np.random.default_rng(5)
    for noisy in protect([rng.standard_normal(20_000, dtype=np.float32), np.float32(0.3)], settings, system_words):
        steps = noisy.astype(np.float64) / grid.spacing
        assert noisy.dtype == np.float32 and (steps == np.round(steps)).all() and (np.abs(steps) <= LARGEST).all()


@pytest.mark.parametrize(("settings", "order"), [(LINF, np.inf), (L1, 1), (L2, 2)], ids=["linf", "l1", "l2"])
@pytest.mark.parametrize("spread", [1.0, 1e-3])
def test_rounding_keeps_an_upload_in_the_ball_and_its_values_on_average(
    settings: LdpSettings, order: float, spread: float
) -> None:
    """With much noise, rounding alone would leave the ball that bounds the distance of two uploads."""
    weak = settings.model_copy(update={"noise": 4e3, "epsilon": 1e-3, "noise_multiplier": 500.0})
    grid = weak.grid
    assert grid is not None and grid.radius < 800
    rng = np.random.default_rng(6)
    values = (rng.standard_normal(50_000) * spread).astype(np.float32)
    (inside,) = clip_upload([values], weak)
    norm = lambda found: float(np.linalg.norm(found, order))  # noqa: E731
    rounded = grid.rounded(inside.astype(np.float64), seeded(7), norm) if order < np.inf else None
    if rounded is None:
        rounded = grid.clamped(inside.astype(np.float64), seeded(7))
    assert (rounded == np.round(rounded)).all() and norm(rounded) <= grid.radius
    assert grid.radius * grid.spacing <= weak.clip
    signal = inside.astype(np.float64) @ (rounded * grid.spacing) / (inside.astype(np.float64) @ inside)
    assert signal > 0.3  # a part of the upload is left, which rounding to the nearest would leave nothing of


def test_without_a_mechanism_nothing_changes() -> None:
    original = uploads(np.random.default_rng(3))
    kept = protect_uploads(original, LdpSettings(), [seeded(user) for user in range(3)])
    np.testing.assert_array_equal(kept.rows, original.rows)
    np.testing.assert_array_equal(kept.shared["weight"], original.shared["weight"])


@pytest.mark.parametrize("settings", [LINF, L1, L2], ids=["linf", "l1", "l2"])
def test_stacked_users_are_protected_as_each_alone(settings: LdpSettings) -> None:
    original = uploads(np.random.default_rng(4))
    stacked = protect_uploads(original, settings, [seeded(user) for user in range(3)])
    for user in range(3):
        alone = protect(original.of_user(user), settings, seeded(user))
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
        ({"mechanism": "laplace_linf", "clip": 1e-7, "noise": 1.0}, r"more than 2\^18 times clip"),
    ],
)
def test_settings_that_make_no_sense_are_refused(knobs: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        LdpSettings.model_validate(knobs)
