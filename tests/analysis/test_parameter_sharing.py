import numpy as np
import pytest
import torch

from subfl_flower.analysis.sharing import kept_weights, parameter_sharing


def test_weight_matrices_count_and_biases_do_not() -> None:
    models = [
        {"a.weight": torch.tensor([[[0.0, 2.0], [-1.0, 0.0]]]), "a.bias": torch.tensor([[0.0, 1.0]])},
        {"a.weight": torch.tensor([[[3.0, 0.0], [1e-30, 1.0]]]), "a.bias": torch.tensor([[0.0, 0.0]])},
    ]
    assert kept_weights(models, ["a.weight"]).tolist() == [[False, True, True, False], [True, False, True, True]]


def test_three_clients_worked_out_by_hand() -> None:
    kept = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=bool)
    similarity = np.array([[1.0, 0.8, 0.1], [0.8, 1.0, 0.3], [0.1, 0.3, 1.0]])
    found = parameter_sharing(kept, similarity)
    assert found is not None
    most, least = found.most_similar, found.least_similar
    assert most.client.tolist() == [1, 0, 1] and least.client.tolist() == [2, 2, 0]
    assert most.similarity.tolist() == [0.8, 0.8, 0.3] and least.similarity.tolist() == [0.1, 0.3, 0.1]
    # 0 and 1 both keep two of the four that either keeps, of five; nothing is in common with client 2
    assert most.jaccard.tolist() == [0.5, 0.5, 0] and most.of_all.tolist() == pytest.approx([0.4, 0.4, 0])
    assert least.jaccard.tolist() == [0, 0, 0]
    assert most.mean_jaccard == pytest.approx(1 / 3)


def test_models_without_any_weight_have_no_share() -> None:
    found = parameter_sharing(np.zeros((2, 3), dtype=bool), np.eye(2))
    assert found is not None and np.isnan(found.most_similar.jaccard).all()
    assert np.isnan(found.most_similar.mean_jaccard)


def test_without_pruning_there_is_nothing_to_say() -> None:
    assert parameter_sharing(np.ones((3, 4), dtype=bool), np.eye(3)) is None
