from __future__ import annotations

import pytest
import torch

from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.settings import OptimizerSettings

SHAPES: dict[str, tuple[int, ...]] = {"weight": (4, 3), "bias": (3,), "mask": (4, 3)}
RATES = {"mask": 0.003, "bias": 0.003}


def gradient(name: str, client: int, step: int) -> torch.Tensor:
    seed = 1000 * client + 10 * step + list(SHAPES).index(name)
    return torch.randn(SHAPES[name], generator=torch.Generator().manual_seed(seed))


def start(name: str, client: int) -> torch.Tensor:
    return gradient(name, client, 99)


def reference(client: int, steps: int, settings: OptimizerSettings) -> dict[str, torch.Tensor]:
    """One client by ``torch.optim``, not fused."""
    parameters = {name: torch.nn.Parameter(start(name, client)) for name in SHAPES}
    groups = [{"params": [value], "lr": RATES.get(name, settings.lr)} for name, value in parameters.items()]
    family = torch.optim.AdamW if settings.decoupled else torch.optim.Adam
    optimizer = family(groups, weight_decay=settings.weight_decay, fused=False, foreach=False)
    for step in range(steps):
        for name, value in parameters.items():
            value.grad = gradient(name, client, step)
        optimizer.step()
    return {name: value.detach() for name, value in parameters.items()}


@pytest.mark.parametrize("decoupled", [False, True])
def test_each_client_takes_the_steps_of_torchs_adam(decoupled: bool) -> None:
    settings = OptimizerSettings(name="adam", lr=0.05, weight_decay=0.1, decoupled=decoupled)
    taken = [0, 0, 0]
    parameters = {name: torch.stack([start(name, client) for client in range(3)]) for name in SHAPES}
    state = {name: torch.zeros(3, *shape) for name, shape in adam_state_shapes(SHAPES).items()}

    # Partial participation: chunks of other clients in every step, so that step counts differ inside a chunk.
    for clients in ([0, 1, 2], [1], [0, 1], [1, 2], [0, 1, 2], [2], [0, 1, 2]):
        chosen = {name: value[clients] for name, value in parameters.items()}
        chosen_state = {name: value[clients] for name, value in state.items()}
        gradients = {name: torch.stack([gradient(name, c, taken[c]) for c in clients]) for name in SHAPES}
        adam_step(chosen, gradients, chosen_state, settings, RATES)
        for name in SHAPES:
            parameters[name][clients] = chosen[name]
        for name in state:
            state[name][clients] = chosen_state[name]
        for client in clients:
            taken[client] += 1
            expected = reference(client, taken[client], settings)
            for name in SHAPES:
                torch.testing.assert_close(parameters[name][client], expected[name], atol=1e-6, rtol=1e-5)
    assert state["steps"].tolist() == taken == [4, 6, 5]


def test_a_rate_named_for_one_parameter_moves_no_other() -> None:
    settings = OptimizerSettings(name="adam", lr=0.05, weight_decay=0.0)
    parameters = {name: torch.zeros(1, *shape) for name, shape in SHAPES.items()}
    state = {name: torch.zeros(1, *shape) for name, shape in adam_state_shapes(SHAPES).items()}
    gradients = {name: torch.ones(1, *shape) for name, shape in SHAPES.items()}
    adam_step(parameters, gradients, state, settings, {"mask": 0.25})
    # The first step of Adam is the learning rate itself.
    for name, rate in {"weight": 0.05, "bias": 0.05, "mask": 0.25}.items():
        torch.testing.assert_close(parameters[name], torch.full_like(parameters[name], -rate))


def test_state_has_two_moments_a_parameter_and_one_count() -> None:
    assert adam_state_shapes({"w": (2, 3)}) == {"steps": (), "exp_avg.w": (2, 3), "exp_avg_sq.w": (2, 3)}
