"""Adam over stacks, with each client's step count.

Clients of one chunk may have taken different numbers of steps (partial participation). Every client's slice is
therefore a separate tensor for PyTorch's fused kernel: one call for a whole chunk.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from subfl_flower.models.settings import OptimizerSettings


def adam_step(
    parameters: Mapping[str, Tensor],
    gradients: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    settings: OptimizerSettings,
    learning_rates: Mapping[str, float] | None = None,
) -> None:
    """Take one step in place, for every client of a chunk.

    Args:
        parameters: by name, each [C, ...], contiguous within a client.
        gradients: the same names and shapes.
        state: ``steps`` [C], the steps taken so far (increased here), and ``exp_avg.<name>``, ``exp_avg_sq.<name>`` for
            every parameter.
        settings: learning rate and weight decay.
        learning_rates: learning rates of single parameters that differ from the settings'.
    """
    clients = range(len(state["steps"]))
    update = adamw if settings.decoupled else adam
    rates = {name: (learning_rates or {}).get(name, settings.lr) for name in parameters}
    for rate in dict.fromkeys(rates.values()):
        names = [name for name in parameters if rates[name] == rate]
        # The kernel advances the step counts that it is given; ours advance once for all groups, below.
        steps = [state["steps"][c].clone() for c in clients]
        update(
            [parameters[name][c] for name in names for c in clients],
            [gradients[name][c] for name in names for c in clients],
            [state[f"exp_avg.{name}"][c] for name in names for c in clients],
            [state[f"exp_avg_sq.{name}"][c] for name in names for c in clients],
            [],
            [steps[c].clone() for _ in names for c in clients],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=settings.weight_decay,
            eps=1e-8,
            maximize=False,
        )
    with torch.no_grad():
        state["steps"].add_(1)


def adam_state_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and per-client shapes of the state that `adam_step` needs for parameters of these `shapes`."""
    state: dict[str, tuple[int, ...]] = {"steps": ()}
    for name, shape in shapes.items():
        state[f"exp_avg.{name}"] = shape
        state[f"exp_avg_sq.{name}"] = shape
    return state
