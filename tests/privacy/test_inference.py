from __future__ import annotations

import numpy as np
import pytest

from subfl_flower.privacy.inference import Evidence, inference_report, node_losses


def evidence(**changed: np.ndarray | None) -> Evidence:
    """Three nodes, one of which was trained on; three features, two of which are there; two classes."""
    known: dict[str, np.ndarray | None] = {
        "membership": np.array([0.0, -1.0, 1.0]),
        "trained": np.array([False, True, False]),
        "features": np.array([3.0, 0.0, 1.0]),
        "present": np.array([True, False, True]),
        "labels": np.array([0.5, -0.5]),
        "frequencies": np.array([0.8, 0.2]),
    }
    return Evidence(**{**known, **changed})  # type: ignore[arg-type]


def test_figures_are_means_over_clients() -> None:
    """Of the second client one of two features is ranked first, and the wrong class."""
    other = evidence(
        membership=np.array([0.0, 2.0, 1.0]), features=np.array([3.0, 2.0, 1.0]), labels=np.array([0.1, 0.2])
    )
    report = inference_report([evidence(), other])
    assert report.clients == 2
    assert report.membership_auc == pytest.approx((0.0 + 1.0) / 2)
    assert report.feature_auc == pytest.approx((1.0 + 0.5) / 2)
    assert report.feature_precision == pytest.approx((1.0 + 0.5) / 2)
    assert report.feature_share == pytest.approx(2 / 3)
    assert report.label_correlation == pytest.approx((1.0 - 1.0) / 2)
    assert (report.label_mode, report.label_mode_chance) == (0.5, 0.5)


def test_attacks_without_scores_have_no_figure() -> None:
    report = inference_report([evidence(membership=None, features=None, labels=None)])
    assert report.membership_auc is report.feature_auc is report.label_correlation is report.label_mode is None
    everything = inference_report([evidence(present=np.ones(3, dtype=bool))])
    assert everything.feature_auc is None and everything.feature_share == 1


def test_losses_are_cross_entropies() -> None:
    outputs = np.array([[0.0, 0.0], [1000.0, 0.0], [2.0, 1.0]])
    expected = [np.log(2), 1000.0, -np.log(np.e**2 / (np.e**2 + np.e))]
    np.testing.assert_allclose(node_losses(outputs, np.array([1, 1, 0])), expected)
