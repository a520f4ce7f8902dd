"""The server's model: plain steps by hand, Adam as PyTorch has it, the average over steps, going on from a state."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from subfl_flower.strategies.recommendation.server_model import ServerModel, part_of, prefixed

SHAPES = {"items": (3, 2), "bias": (1,)}
RATES = {"items": 0.5, "bias": 0.1}


def values(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=generator) for name, shape in SHAPES.items()}


def test_a_plain_step_is_the_rate_times_the_gradient_and_the_decay() -> None:
    initial = {"items": torch.tensor([[1.0, 2.0], [3.0, -4.0], [0.0, 0.0]]), "bias": torch.tensor([5.0])}
    model = ServerModel(initial, "sgd", 0)
    gradient = {"items": torch.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, -2.0]]), "bias": torch.tensor([10.0])}
    model.step(gradient, RATES, {"items": 0.2})
    # 0.5 (gradient + 0.2 value) less for items, 0.1 gradient less for the bias.
    expected = [[1 - 0.5 * 1.2, 2 - 0.5 * 0.4], [3 - 0.5 * 0.6, -4 + 0.5 * 0.8], [-1.0, 1.0]]
    np.testing.assert_allclose(model.parameters["items"], expected, atol=1e-6)
    assert model.parameters["bias"].tolist() == [4.0] and model.steps == 1
    assert initial["bias"].tolist() == [5.0] and initial["items"][2].tolist() == [0, 0]  # they were copied
    assert gradient["items"][0].tolist() == [1, 0]
    assert model.evaluated is model.parameters


def test_adam_is_pytorchs_with_a_rate_for_each_parameter() -> None:
    model = ServerModel(values(0), "adam", 0)
    p = {name: value.clone().requires_grad_() for name, value in values(0).items()}
    adam = torch.optim.Adam([{"params": [p[name]], "lr": RATES[name]} for name in p])
    for step in range(1, 6):
        gradients = values(step)
        model.step(gradients, RATES, {"bias": 0.3})
        for name, value in p.items():
            value.grad = gradients[name] + (0.3 * value.detach() if name == "bias" else 0)
        adam.step()
        for name, value in p.items():
            np.testing.assert_allclose(model.parameters[name], value.detach(), atol=1e-6, err_msg=f"{name} {step}")


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_the_average_weighs_the_last_steps_most(optimizer: Any) -> None:
    """Weights 1, past, past^2, .. of the last, the last but one, .. parameters after a step, divided by their sum."""
    model, seen = ServerModel(values(0), optimizer, 0.7), []
    for step in range(1, 6):
        model.step(values(step), RATES, {})
        seen.append({name: value.clone() for name, value in model.parameters.items()})
        weights = 0.7 ** np.arange(step)[::-1]
        for name in SHAPES:
            parts = zip(weights, seen, strict=True)
            expected = sum(weight * part[name].numpy() for weight, part in parts) / weights.sum()
            np.testing.assert_allclose(model.evaluated[name], expected, atol=1e-6)
    assert not torch.allclose(model.evaluated["items"], model.parameters["items"], atol=1e-3)


@pytest.mark.parametrize("how", ["state", "copy"])
@pytest.mark.parametrize(("optimizer", "past"), [("sgd", 0.0), ("adam", 0.0), ("adam", 0.8)])
def test_a_model_goes_on_where_another_was(how: str, optimizer: Any, past: float) -> None:
    model = ServerModel(values(0), optimizer, past)
    for step in (1, 2):
        model.step(values(step), RATES, {})
    if how == "copy":
        other = model.copy()
    else:
        other = ServerModel(values(99), optimizer, past)
        other.load_state({name: np.array(value) for name, value in model.state().items()})
    before = {name: value.clone() for name, value in other.evaluated.items()}
    for step in (3, 4):
        model.step(values(step), RATES, {})
    for name, value in before.items():  # of which it notices nothing
        np.testing.assert_array_equal(other.evaluated[name], value)
    for step in (3, 4):
        other.step(values(step), RATES, {})
    assert other.steps == model.steps == 4
    for mine, theirs in ((other.parameters, model.parameters), (other.evaluated, model.evaluated)):
        for name in SHAPES:
            np.testing.assert_array_equal(mine[name], theirs[name])


def test_states_of_several_models_have_names_of_their_own() -> None:
    first, second = {"a": np.ones(2), "b/c": np.zeros(1)}, {"a": np.arange(3)}
    together = {**prefixed("cluster1", first), **prefixed("cluster11", second), "other": np.ones(1)}
    assert sorted(together) == ["cluster1/a", "cluster1/b/c", "cluster11/a", "other"]
    assert part_of("cluster1", together) == first and part_of("cluster11", together) == second
    assert part_of("cluster", together) == {}


def test_a_model_is_drawn_to_another_in_what_is_evaluated_too() -> None:
    one, other = ServerModel(values(0), "sgd", 0.5), ServerModel(values(1), "sgd", 0.5)
    for model, seed in ((one, 2), (one, 3), (other, 4), (other, 5)):
        model.step(values(seed), RATES, {})
    before = [{name: value.clone() for name, value in part.items()} for part in (one.parameters, one.evaluated)]
    one.draw_towards(other, 0.25)
    for own, was, others in zip(
        (one.parameters, one.evaluated), before, (other.parameters, other.evaluated), strict=True
    ):
        for name in SHAPES:
            np.testing.assert_allclose(own[name], 0.75 * was[name] + 0.25 * others[name], atol=1e-6)
