from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from subfl_flower.errors import SubflError
from subfl_flower.node.cross_measured import LAST_MODEL, TEST_OUTPUTS, CrossMeasuredClients
from subfl_flower.server.measuring.evaluation_modes import EvaluationModes, mean_model
from subfl_flower.subgraphs.tasks.node_classification import NodeClassification
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question
from subfl_flower.wire.roster import Roster

TASK = NodeClassification(name="node_classification")
ROSTER = Roster((10, 11, 12), (1, 1, 2), np.array([1.0, 3.0, 4.0]), np.ones(3), np.ones(3), 1, 2, False)
LABELS: tuple[list[int], ...] = ([0, 0, 1], [1], [])
"""Test labels of each client; the third one has no test node."""


class Answering:
    """Stands for the exchange: a model is a bias, and its sign is the class that is predicted for every node."""

    roster = ROSTER

    def __init__(self, biases: Sequence[float | None]) -> None:
        self.biases = biases
        self.asked: list[tuple[str, list[int]]] = []

    def ask(
        self, action: str, decode: Callable[[Stack], Any], sent: Mapping[int, Stack] | None = None
    ) -> list[Stack | None]:
        if sent is None:
            assert action == LAST_MODEL
            return [{} if bias is None else {"bias": np.array([bias], np.float32)} for bias in self.biases]
        assert action == TEST_OUTPUTS
        self.asked.append((action, sorted(sent)))
        return [self._outputs(p, sent[p]["bias"][0]) if p in sent else None for p in range(3)]

    def _outputs(self, position: int, bias: float) -> Stack:
        truth = np.array(LABELS[position], dtype=np.int64)
        return {"outputs": np.tile(np.array([-bias, bias], np.float32), (len(truth), 1)), "truth": truth}


def test_a_mean_model_is_weighted_by_training_examples() -> None:
    models = {0: {"bias": np.array([8.0], np.float32)}, 2: {"bias": np.array([-2.0], np.float32)}}
    assert mean_model(models, ROSTER)["bias"].tolist() == pytest.approx([0.0], abs=1e-6)  # (1 * 8 - 4 * 2) / 5


def test_figures_of_two_models_worked_out_by_hand() -> None:
    """Client 10's model says class 0 and has 2 of 3, and 2 of all 4; client 11's says 1 and has 1 of 1, and 2 of 4.

    The mean of -4 (weight 1/8), 4 (3/8) and 4 (4/8) is 3, which says class 1: 1/3 and 1 on own data, 2 of all 4.
    """
    modes = EvaluationModes(TASK, seed=0)
    exchange: Any = Answering((-4.0, 4.0, 4.0))
    modes.take(exchange, 7)
    found = modes.report(exchange)
    assert found is not None
    assert found["round"] == 7 and found["models"] == 3
    assert found["global_on_own"] == pytest.approx((1 / 3 + 1) / 2) and found["global_on_all"] == 0.5
    assert found["personal_on_own"] == pytest.approx((2 / 3 + 1) / 2) and found["personal_on_all"] == 0.5
    assert found["clients"]["ids"] == [10, 11, 12]
    assert found["clients"]["personal_on_own"] == [pytest.approx(2 / 3), 1.0, None]


def test_some_of_many_models_are_drawn_and_clients_without_a_model_are_left_out() -> None:
    exchange: Any = Answering((-4.0, 4.0, 4.0))
    modes = EvaluationModes(TASK, seed=0, most_models=2)
    modes.take(exchange, 1)
    found = modes.report(exchange)
    assert found is not None and found["models"] == 2
    assert sum(value is not None for value in found["clients"]["personal_on_all"]) == 2
    few: Any = Answering((None, 4.0, None))
    modes.take(few, 2)
    found = modes.report(few)
    assert found is not None and found["models"] == 1 and found["personal_on_own"] == 1.0
    assert few.asked == [(TEST_OUTPUTS, [0, 1, 2]), (TEST_OUTPUTS, [1]), (TEST_OUTPUTS, [0, 1, 2])]


def test_a_checkpoint_keeps_the_models_beside_the_strategys_arrays() -> None:
    modes, exchange = EvaluationModes(TASK, seed=0), Answering((-4.0, None, 4.0))
    modes.take(exchange, 3)  # type: ignore[arg-type]
    again, matrix = EvaluationModes(TASK, seed=0), np.eye(3)
    assert again.load_state({"mixing": matrix, **modes.state()}) == {"mixing": matrix}
    assert again.report(exchange) == modes.report(exchange)  # type: ignore[arg-type]
    assert EvaluationModes(TASK, seed=0).report(exchange) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked_for", "simulated"), [(False, True), (True, False)])
@pytest.mark.parametrize("phase", [LAST_MODEL, TEST_OUTPUTS])
def test_a_node_gives_no_model_where_the_run_is_no_simulation_with_modes(
    asked_for: bool, simulated: bool, phase: str
) -> None:
    client: Any = SimpleNamespace(
        run=SimpleNamespace(evaluation_modes=asked_for), cohort=SimpleNamespace(simulated=simulated)
    )
    with pytest.raises(SubflError, match="only in a simulation with "):
        CrossMeasuredClients(client).answer(Question(phase, {0: {}}))
