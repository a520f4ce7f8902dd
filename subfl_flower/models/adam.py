"""Adam over stacks, with each client's step count.

One call of PyTorch's fused kernel takes a step for a whole chunk. Where its clients have taken different numbers of
steps (partial participation), each client's slice is a separate tensor for the kernel. Else a stack is one tensor, if
no bit depends on that: the kernel computes vectors of numbers, and a last part of a tensor that does not fill one by
another formula. Few tensors matter, because each one costs as much as some thousand numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from subfl_flower.models.settings import OptimizerSettings

_VECTOR = 16
"""Numbers of the longest vector that a processor computes at once."""


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
    steps = state["steps"].detach()
    together = bool((steps == steps[0]).all())
    update = adamw if settings.decoupled else adam
    rates = {name: (learning_rates or {}).get(name, settings.lr) for name in parameters}
    for rate in dict.fromkeys(rates.values()):
        names = [name for name in parameters if rates[name] == rate]
        of_names = [(parameters[n], gradients[n], state[f"exp_avg.{n}"], state[f"exp_avg_sq.{n}"]) for n in names]
        parts = [part for stacks in of_names for part in _tensors(stacks, steps, together)]
        own, found, first, second, counts = (list(column) for column in zip(*parts, strict=True))
        update(
            own,
            found,
            first,
            second,
            [],
            # The kernel advances the step counts that it is given; ours advance once for all groups, below.
            [count.clone() for count in counts],
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


def _tensors(stacks: tuple[Tensor, ...], steps: Tensor, together: bool) -> list[tuple[Tensor, ...]]:
    """The tensors of a parameter's stacks [C, ...], each with its step count: whole stacks where all are, or slices."""
    clients, size = len(steps), stacks[0][0].numel()
    fills_vectors = clients == 1 or size % _VECTOR == 0 or stacks[0].device.type != "cpu"
    if together and fills_vectors and all(stack.is_contiguous() for stack in stacks):
        return [(*stacks, steps[0])]
    return [(*(stack[client] for stack in stacks), steps[client]) for client in range(clients)]


def adam_state_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Names and per-client shapes of the state that `adam_step` needs for parameters of these `shapes`."""
    state: dict[str, tuple[int, ...]] = {"steps": ()}
    for name, shape in shapes.items():
        state[f"exp_avg.{name}"] = shape
        state[f"exp_avg_sq.{name}"] = shape
    return state
