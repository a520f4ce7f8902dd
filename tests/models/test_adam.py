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


@pytest.mark.parametrize("shape", [(16, 3), (7,), (40,), (128, 7), (5, 5)])
@pytest.mark.parametrize("taken", [(0, 0, 0), (4, 4, 4), (2, 5, 0)])
def test_a_clients_step_does_not_depend_on_its_chunk_to_the_last_bit(
    shape: tuple[int, ...], taken: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    settings = OptimizerSettings(name="adam", lr=0.03, weight_decay=0.01)
    parameters = {"w": torch.randn(3, *shape, generator=generator)}
    state = {
        "steps": torch.tensor(taken, dtype=torch.float32),
        "exp_avg.w": torch.randn(3, *shape, generator=generator),
    }
    state["exp_avg_sq.w"] = torch.rand(3, *shape, generator=generator)
    alone = [
        ({name: value[c : c + 1].clone() for name, value in each.items()})
        for c in range(3)
        for each in (parameters, state)
    ]
    for _ in range(4):
        gradients = torch.randn(3, *shape, generator=generator)
        adam_step(parameters, {"w": gradients}, state, settings)
        for c in range(3):
            adam_step(alone[2 * c], {"w": gradients[c : c + 1]}, alone[2 * c + 1], settings)
    for c in range(3):
        assert torch.equal(parameters["w"][c], alone[2 * c]["w"][0])
        for name, value in state.items():
            assert torch.equal(value[c], alone[2 * c + 1][name][0])
    assert state["steps"].tolist() == [count + 4 for count in taken]


def test_clients_with_equal_steps_are_one_tensor_for_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr("subfl_flower.models.adam.adam", lambda own, *rest, **options: seen.append(len(own)))
    parameters = {"w": torch.zeros(3, 16), "b": torch.zeros(3, 7)}
    state = {name: torch.zeros(3, *shape) for name, shape in adam_state_shapes({"w": (16,), "b": (7,)}).items()}
    for steps, tensors in ((0.0, 4), (1.0, 6)):  # one for w, three for b; then each client's of both
        state["steps"][1] = steps
        state["steps"][0] = state["steps"][2] = 0
        adam_step(parameters, parameters, state, OptimizerSettings(name="adam", lr=0.1))
        assert seen.pop() == tensors
