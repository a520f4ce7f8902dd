from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from subfl_flower.clients.subgraphs.pruning import Masked, MaskThreshold, Prunable, ShareOfWeights, kept_where_positive


def pruned(
    share: float,
    weights: Mapping[str, Tensor],
    masks: Mapping[str, Tensor] | None = None,
    received: Mapping[str, Tensor] | None = None,
    rows: Sequence[int] | None = None,
    absent: int = 0,
) -> dict[str, Tensor]:
    """At the end of a run, with so many entries of absent features."""
    ones = {name: torch.ones_like(value) for name, value in weights.items()}
    clients = len(next(iter(weights.values())))
    entries = sum(value[0].numel() for value in weights.values()) + absent
    places = {} if rows is None else {"a": (torch.tensor(rows),) * clients}
    received = weights if received is None else received
    known = Masked(weights, masks or ones, received, Prunable(places, [absent] * clients))
    return ShareOfWeights(share, 0.5, 4, entries).effective(known, 4)


@pytest.mark.parametrize(
    ("reached", "server_round", "share"),
    [(0.5, 0, 0.0), (0.5, 1, 0.2928), (0.5, 5, 0.6), (0.5, 10, 0.6), (1.0, 5, 0.525), (0.0, 1, 0.6)],
)
def test_the_share_rises_along_a_cubic_curve_and_stays(reached: float, server_round: int, share: float) -> None:
    assert ShareOfWeights(0.6, reached, rounds=10, entries=1).share_in(server_round) == pytest.approx(share)


def test_the_share_in_a_part_of_the_run_does_not_depend_on_its_length() -> None:
    short, long = ShareOfWeights(0.6, 0.5, 20, 1), ShareOfWeights(0.6, 0.5, 200, 1)
    assert [short.share_in(r) for r in (2, 5, 8)] == pytest.approx([long.share_in(r) for r in (20, 50, 80)])


def test_no_round_jumps() -> None:
    shares = [ShareOfWeights(0.6, 0.5, 100, 1).share_in(r) for r in range(101)]
    assert max(np.diff(shares)) < 3 * 0.6 / 50  # the steepest slope of 1 - (1 - t)^3 is 3


def test_entries_are_ranked_over_all_matrices_by_what_was_received_times_the_mask() -> None:
    weights = {"a": torch.tensor([[[1.0, -8.0], [3.0, 4.0]]]), "b": torch.tensor([[[0.5, 6.0]]])}
    masks = {"a": torch.tensor([[[1.0, 0.1], [1.0, -1.0]]]), "b": torch.ones(1, 1, 2)}
    found = pruned(0.5, weights, masks)
    torch.testing.assert_close(found["a"], torch.tensor([[[0.0, 0.0], [3.0, -4.0]]]))  # 1, 0.8 and 0.5 are the smallest
    torch.testing.assert_close(found["b"], torch.tensor([[[0.0, 6.0]]]))
    received = {"a": torch.tensor([[[9.0, 90.0], [0.1, 7.0]]]), "b": torch.tensor([[[8.0, 0.2]]])}
    found = pruned(0.34, weights, masks, received)  # 0.1 and 0.2 of 9, 9, 0.1, 7, 8, 0.2
    torch.testing.assert_close(found["a"], torch.tensor([[[1.0, -0.8], [0.0, -4.0]]]))
    torch.testing.assert_close(found["b"], torch.tensor([[[0.5, 0.0]]]))


def test_a_matrix_that_stays_with_the_client_is_ranked_by_its_own_weights() -> None:
    weights = {"a": torch.tensor([[[1.0, 4.0]]]), "own": torch.tensor([[[2.0, 3.0]]])}
    found = pruned(0.5, weights, received={"a": torch.tensor([[[5.0, 1.0]]])})
    assert (found["a"].flatten().tolist(), found["own"].flatten().tolist()) == ([1.0, 0.0], [0.0, 3.0])


def test_other_rows_than_those_given_neither_count_nor_change() -> None:
    weights = {"a": torch.tensor([[[0.1], [5.0], [7.0]]])}
    found = pruned(0.5, weights, rows=[1, 2])
    assert found["a"].flatten().tolist() == pytest.approx([0.1, 0.0, 7.0])


@pytest.mark.parametrize(
    ("absent", "kept"), [(0, [0, 0, 0, 0, 5, 6]), (3, [0, 0, 3, 4, 5, 6]), (90, [1, 2, 3, 4, 5, 6])]
)
def test_entries_of_absent_features_are_among_the_share(absent: int, kept: list[float]) -> None:
    """0.6 of 6 entries are 4; of 9 they are 5.4, of which 3 are absent; of 96 they are fewer than the absent ones."""
    weights = {"a": torch.arange(1.0, 7.0).reshape(1, 6, 1)}
    assert pruned(0.6, weights, absent=absent)["a"].flatten().tolist() == kept


def test_each_client_has_its_own_limit() -> None:
    weights = {"a": torch.tensor([[[1.0, 2.0]], [[10.0, 20.0]]])}
    assert pruned(0.5, weights)["a"].flatten().tolist() == [0.0, 2.0, 0.0, 20.0]


def test_large_matrices_keep_their_share_although_the_limit_is_found_on_a_sample() -> None:
    """Four columns of very different size, and a step of four entries: a sample of one column would miss the share."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((1, 17_500, 4)).astype(np.float32) * np.geomspace(1e-3, 1e3, 4, dtype=np.float32)
    found = pruned(0.6, {"a": torch.from_numpy(values)})
    assert float((found["a"] == 0).float().mean()) == pytest.approx(0.6, abs=0.01)


def test_a_client_is_pruned_alike_in_any_chunk() -> None:
    """In a chunk with a client of more rows its matrix is longer; the limit must come from the same sample."""
    values = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 400, 64)).astype(np.float32))
    longer = torch.cat([values, torch.ones(1, 900, 64)], dim=1)
    rows = range(0, 400, 2)
    found = []
    for stack in (values, longer):
        prunable = Prunable({"a": (torch.tensor(rows),)}, [0])
        known = Masked({"a": stack}, {"a": torch.ones_like(stack)}, {"a": stack}, prunable)
        found.append(ShareOfWeights(0.5, 0.5, 4, 200 * 64).effective(known, 4)["a"][:, :400])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert float((found[0][:, rows] == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_a_share_of_zero_prunes_nothing() -> None:
    assert pruned(0.0, {"a": torch.tensor([[[0.0, 1e-30]]])})["a"][0, 0, 1] > 0


def test_the_threshold_prunes_by_the_mask_alone() -> None:
    weights, masks = {"a": torch.tensor([[[9.0, 0.1]]])}, {"a": torch.tensor([[[0.69, -0.71]]])}
    found = MaskThreshold(0.7).effective(Masked(weights, masks, weights, Prunable({}, [0])), 1)
    torch.testing.assert_close(found["a"], torch.tensor([[[0.0, -0.071]]]))


def test_kept_indexes_do_not_outlive_the_shape_that_they_belong_to() -> None:
    narrow, wide = torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[[1.0, 6.0], [5.0, 2.0], [3.0, 4.0]]])
    prunable = Prunable({"a": (torch.tensor([1, 2]),)}, [0])
    rule = ShareOfWeights(0.5, 0.5, 4, 4)
    for values, kept in ((narrow, [1.0, 0.0, 3.0]), (wide, [1.0, 6.0, 5.0, 0.0, 0.0, 4.0]), (narrow, [1.0, 0.0, 3.0])):
        known = Masked({"a": values}, {"a": torch.ones_like(values)}, {"a": values}, prunable)
        assert rule.effective(known, 4)["a"].flatten().tolist() == kept


def test_values_of_positive_ranks_are_kept_bit_by_bit_and_so_are_values_without_a_rank() -> None:
    values = torch.tensor([-0.0, -0.0, 2.0, -3.0, torch.nan, torch.inf, -torch.inf])
    ranks = torch.tensor([1.0, 0.0, -1.0, 1e-40, 1.0, torch.nan, -0.0])
    found = kept_where_positive(values, ranks)
    expected = values.masked_fill(ranks <= 0, 0)
    assert found.view(torch.int32).tolist() == expected.view(torch.int32).tolist()
