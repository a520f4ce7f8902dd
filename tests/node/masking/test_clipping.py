"""Updates scaled to a norm, client by client: what is longer, and by how much."""

from __future__ import annotations

import numpy as np

from subfl_flower.node.masking.clipping import clipped
from subfl_flower.wire.batch import Result
from subfl_flower.wire.ragged import Ragged


def test_only_updates_that_are_too_long_are_scaled() -> None:
    """Client 4 moves by (3, 4), of norm 5, and client 9 by (0.3, 0.4)."""
    sent = Result((4, 9), {"w": np.array([[4.0, 6.0], [1.3, 2.4]], np.float32)})
    found = clipped(sent, {"w": np.array([[1.0, 2.0], [1.0, 2.0]])}, 1.0)
    np.testing.assert_allclose(found.arrays["w"], [[1.6, 2.8], [1.3, 2.4]], rtol=1e-6)
    assert clipped(sent, {"w": np.array([[1.0, 2.0], [1.0, 2.0]])}, 5.0) is sent


def test_arrays_and_rows_count_together_and_numbers_of_rows_stay() -> None:
    """Uploads that are updates: user 0 has (2) and the rows (1), (2), of norm 3; user 1 has (0) and (0.5)."""
    rows = Ragged(np.array([[1.0], [2.0], [0.5]], np.float32), np.array([2, 1]))
    ids = Ragged(np.array([7, 8, 7], np.int32), np.array([2, 1]))
    sent = Result((0, 1), {"bias": np.array([[2.0], [0.0]], np.float32)}, {"ids": ids, "rows": rows})
    found = clipped(sent, {}, 1.5)
    np.testing.assert_allclose(found.arrays["bias"], [[1.0], [0.0]])
    np.testing.assert_allclose(found.rows["rows"].values, [[0.5], [1.0], [0.5]])
    assert found.rows["ids"] is ids and found.arrays["bias"].dtype == np.float32


def test_an_update_of_zero_stays_zero() -> None:
    sent = Result((0,), {"w": np.zeros((1, 3), np.float32)})
    assert clipped(sent, {}, 0.1) is sent
