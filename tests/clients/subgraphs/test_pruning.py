from __future__ import annotations

import numpy as np
import pytest
import torch

from subfl_flower.clients.subgraphs.pruning import MaskThreshold, ShareOfWeights


@pytest.mark.parametrize(
    ("reached", "server_round", "share"),
    [(0.5, 0, 0.0), (0.5, 1, 0.2928), (0.5, 5, 0.6), (0.5, 10, 0.6), (1.0, 5, 0.525), (0.0, 1, 0.6)],
)
def test_the_share_rises_along_a_cubic_curve_and_stays(reached: float, server_round: int, share: float) -> None:
    assert ShareOfWeights(0.6, reached, rounds=10).share_in(server_round) == pytest.approx(share)


def test_the_share_in_a_part_of_the_run_does_not_depend_on_its_length() -> None:
    short, long = ShareOfWeights(0.6, 0.5, rounds=20), ShareOfWeights(0.6, 0.5, rounds=200)
    assert [short.share_in(r) for r in (2, 5, 8)] == pytest.approx([long.share_in(r) for r in (20, 50, 80)])


def test_no_round_of_a_long_run_prunes_more_than_its_share_of_the_way() -> None:
    shares = [ShareOfWeights(0.6, 0.5, rounds=100).share_in(r) for r in range(101)]
    assert max(np.diff(shares)) < 3 * 0.6 / 50  # the steepest slope of 1 - (1 - t)^3 is 3


def test_entries_are_ranked_over_all_matrices_of_a_client_and_by_weight_times_mask() -> None:
    weights = {"a": torch.tensor([[[1.0, -8.0], [3.0, 4.0]]]), "b": torch.tensor([[[0.5, 6.0]]])}
    masks = {"a": torch.tensor([[[1.0, 0.1], [1.0, -1.0]]]), "b": torch.ones(1, 1, 2)}
    found = ShareOfWeights(0.5, 0.0, rounds=1).effective(weights, masks, {}, 1)
    torch.testing.assert_close(found["a"], torch.tensor([[[0.0, 0.0], [3.0, -4.0]]]))  # 1, 0.8 and 0.5 are the smallest
    torch.testing.assert_close(found["b"], torch.tensor([[[0.0, 6.0]]]))


def test_other_rows_than_those_given_neither_count_nor_change() -> None:
    weights, masks = {"a": torch.tensor([[[0.1], [5.0], [7.0]]])}, {"a": torch.ones(1, 3, 1)}
    places = {"a": (torch.tensor([1, 2]),)}
    found = ShareOfWeights(0.5, 0.0, rounds=1).effective(weights, masks, places, 1)
    assert found["a"].flatten().tolist() == pytest.approx([0.1, 0.0, 7.0])


def test_each_client_has_its_own_limit() -> None:
    weights = {"a": torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]]])}
    found = ShareOfWeights(0.5, 0.0, rounds=1).effective(weights, {"a": torch.ones(2, 1, 2)}, {}, 1)
    assert found["a"].flatten().tolist() == [0.0, 2.0, 0.0, 20.0]


def test_large_matrices_keep_their_share_although_the_limit_is_found_on_a_sample() -> None:
    """Columns of very different size: a sample of some columns alone would miss the share by far."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((1, 1500, 128)).astype(np.float32) * np.geomspace(1e-3, 1e3, 128, dtype=np.float32)
    weights = {"a": torch.from_numpy(values)}
    found = ShareOfWeights(0.6, 0.5, rounds=4).effective(weights, {"a": torch.ones(1, 1500, 128)}, {}, 4)
    assert float((found["a"] == 0).float().mean()) == pytest.approx(0.6, abs=0.01)


def test_a_share_of_zero_prunes_nothing() -> None:
    weights = {"a": torch.tensor([[[0.0, 1e-30]]])}
    found = ShareOfWeights(0.0, 0.5, rounds=2).effective(weights, {"a": torch.ones(1, 1, 2)}, {}, 2)
    assert float(found["a"][0, 0, 1]) == pytest.approx(1e-30)


def test_the_threshold_prunes_by_the_mask_alone() -> None:
    weights, masks = {"a": torch.tensor([[[9.0, 0.1]]])}, {"a": torch.tensor([[[0.69, -0.71]]])}
    found = MaskThreshold(0.7).effective(weights, masks, {}, 1)
    torch.testing.assert_close(found["a"], torch.tensor([[[0.0, -0.071]]]))
