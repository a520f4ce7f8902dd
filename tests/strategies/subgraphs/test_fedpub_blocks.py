"""FED-PUB's averages of matrices of many rows, which are worked block by block."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from toy_rounds import replies, strategy_of, toy_roster

from subfl_flower.models.row_stack import RowStack, as_array
from subfl_flower.models.settings import ModelSettings
from subfl_flower.strategies.subgraphs.fedpub import FedPUB
from subfl_flower.subgraphs.models.gcn import StackedGCN

ROWS, WIDTH = 2500, 3
"""More rows than are worked at once, and no multiple of a power of two."""
FIRST, SECOND = "conv1.weight", "conv2.weight"
INITIAL = {name: np.ones((ROWS, WIDTH), np.float32) for name in (FIRST, SECOND)} | {
    "conv1.bias": np.zeros(WIDTH, np.float32)
}


def pruned(rng: np.random.Generator, clients: int) -> np.ndarray:
    """Weights of which half are zero; some are everybody's and some nobody's."""
    sent = rng.standard_normal((clients, ROWS, WIDTH)).astype(np.float32)
    sent[rng.random(sent.shape) < 0.5] = 0
    sent[:, ::97] = 0
    sent[:, 5::101] = 1.5
    return sent


def by_hand(matrix: np.ndarray, sent: np.ndarray, missing: str) -> np.ndarray:
    """M times the stack by loops over clients, in double precision: over those who sent a weight where owners count."""
    found = np.zeros((len(matrix), ROWS, WIDTH))
    for client, row in enumerate(matrix):
        weighted = sum(weight * own.astype(float) for weight, own in zip(row, sent, strict=True))
        owned = sum(weight * (own != 0) for weight, own in zip(row, sent, strict=True))
        found[client] = (
            weighted if missing == "zero" else np.where(owned > 0, weighted / np.where(owned > 0, owned, 1), 0)
        )
    return found


@pytest.mark.parametrize("missing", ["owners", "zero"])
@pytest.mark.parametrize("positions", [[0, 1, 2, 3], [0, 2, 3]])
@pytest.mark.parametrize("similarity", ["functional", "none"])
@pytest.mark.parametrize("form", ["whole", "rows"])
def test_every_row_of_a_large_matrix_is_its_owners_average(
    missing: Literal["owners", "zero"], positions: list[int], similarity: Any, form: str
) -> None:
    rng = np.random.default_rng(7)
    network = StackedGCN(ModelSettings(name="gcn", layers=1, hidden=WIDTH), num_features=ROWS, num_outputs=2)
    settings = {"tau": 2, "missing": missing, "similarity": similarity}
    strategy = strategy_of(FedPUB, toy_roster(10, 20, 30, 40), INITIAL, settings, network=network)
    arrays = {FIRST: pruned(rng, len(positions)), SECOND: pruned(rng, len(positions))}
    wanted = (rng.random((len(positions), ROWS)) < 0.3).astype(np.float32)
    if form == "rows":  # as a message is read, most rows being absent, and the others pruned or complete
        arrays[FIRST][rng.random((len(positions), ROWS)) < 0.6] = 0
        arrays[FIRST][:, ROWS // 2 :] = np.where(arrays[FIRST][:, ROWS // 2 :].any(2, keepdims=True), 2.5, 0)
    for _ in range(2):  # the second time by the plan of the first
        updates = replies(
            positions,
            4,
            conv1__weight=arrays[FIRST],
            conv2__weight=arrays[SECOND],
            conv1__bias=np.ones((len(positions), WIDTH)),
            wanted_features=wanted,
            functional_embedding=rng.standard_normal((len(positions), WIDTH)),
        )
        if form == "rows":
            updates.arrays[FIRST] = as_array(RowStack.of(arrays[FIRST]))
        strategy.take(updates)
    assert isinstance(strategy.parameters[FIRST], RowStack) == (form == "rows")
    assert strategy.mixing is not None
    matrix = strategy.mixing[:, positions]
    received = strategy.instructions(2, [0, 1, 2, 3])
    for name, sent in arrays.items():
        expected = by_hand(matrix, sent, missing)
        for row, client in enumerate(positions):  # an absent client's mask is not known, and it gets all
            used = sent[row] != 0
            if name == FIRST:
                used |= wanted[row, :, None] != 0
            expected[client] *= used
        np.testing.assert_allclose(received[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)
        share = (received[name][positions] != 0).mean()
        assert 0.3 < share < 0.8
