from __future__ import annotations

import numpy as np
import pytest
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.server.updates import Updates
from subfl_flower.strategies.subgraphs.mixing import MixingStrategy, mix, rows


class FirstOnly(MixingStrategy):
    """Clients 0 and 1 mix what came; client 2 takes nothing."""

    def mixing_matrix(self, updates: Updates) -> np.ndarray:
        weight = 1 / len(updates.positions)
        return np.array([[weight] * len(updates.positions)] * 2 + [[0.0] * len(updates.positions)])


@pytest.mark.parametrize("shape", [(), (3,), (2, 5)])
def test_mix_is_the_einsum(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    matrix, stack = rng.random((4, 6)), rng.standard_normal((6, *shape)).astype(np.float32)
    found = mix(matrix, {"w": stack})["w"]
    assert found.shape == (4, *shape) and found.dtype == np.float32
    np.testing.assert_allclose(found, np.einsum("ij,j...->i...", matrix, stack), rtol=1e-5, atol=1e-6)


def test_equal_rows_are_mixed_once_and_stay_one_row_in_memory() -> None:
    stack = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = mix(np.tile([0.5, 0.25, 0.25], (7, 1)), {"w": stack})["w"]
    np.testing.assert_allclose(found, np.tile([3.0, 4.0, 5.0, 6.0], (7, 1)))
    assert found.strides[0] == 0
    assert rows(found, [4, 1]).strides[0] == 0
    np.testing.assert_array_equal(rows(found, [4, 1]), found[:2])
    almost = np.tile([0.5, 0.25, 0.25], (7, 1))
    almost[3] = [0.25, 0.5, 0.25]
    other = mix(almost, {"w": stack})["w"]
    np.testing.assert_allclose(other[3], [4.0 - 1, 5.0 - 1, 6.0 - 1, 7.0 - 1][0] + np.arange(4) + 1)
    assert other.strides[0] != 0


def test_rows_are_those_asked_for_in_their_order() -> None:
    stack = np.arange(8.0).reshape(4, 2)
    assert rows(stack, [0, 1, 2, 3]) is stack
    np.testing.assert_array_equal(rows(stack, [3, 0]), [[6, 7], [0, 1]])


def test_a_zero_row_keeps_the_clients_parameters_and_absent_clients_have_zero_columns() -> None:
    strategy = strategy_of(FirstOnly, toy_roster(1, 1, 1), {"w": np.array([9.0, 9.0], np.float32)})
    assert strategy.mixing is None
    strategy.aggregate(replies([0, 2], 3, w=[[1, 2], [3, 6]]))
    np.testing.assert_allclose(strategy.instructions(2, [0, 1, 2])["w"], [[2, 4], [2, 4], [9, 9]])
    np.testing.assert_allclose(strategy.mixing, [[0.5, 0, 0.5], [0.5, 0, 0.5], [0, 0, 0]])
    strategy.aggregate(replies([1], 3, w=[[7, 7]]))
    np.testing.assert_allclose(strategy.instructions(3, [2, 0])["w"], [[9, 9], [7, 7]])


def test_before_the_first_round_everyone_gets_the_initial_model() -> None:
    strategy = strategy_of(FirstOnly, toy_roster(1, 1, 1), {"w": np.array([9.0, 8.0], np.float32)})
    sent = strategy.instructions(1, [0, 2])["w"]
    np.testing.assert_array_equal(sent, [[9, 8], [9, 8]])
    assert sent.strides[0] == 0
