"""A model that the server holds and steps by averaged gradients, with its own optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.wire.array_format import Stack

_ADAM = OptimizerSettings(name="adam", weight_decay=0)


class ServerModel:
    """Parameters, the moments of their optimiser, and their average over steps.

    Args:
        initial: float32 by name, without a client axis; copied.
        optimizer: ``adam``, or ``sgd`` for plain steps.
        past: weight of the past in an exponential average of the parameters over steps; 0: no average.

        Attributes:
        parameters: the parameters that users are sent to train, by name.
        steps: number of steps taken.
    """

    def __init__(self, initial: Mapping[str, Tensor], optimizer: Literal["adam", "sgd"], past: float) -> None:
        self.parameters = {name: value.clone() for name, value in initial.items()}
        self.steps = 0
        self._optimizer, self._past = optimizer, past
        shapes = adam_state_shapes({name: tuple(value.shape) for name, value in initial.items()})
        # Adam's moments, with the server as the only client.
        self._moments = {name: torch.zeros(1, *shape) for name, shape in shapes.items()}
        self._average = {name: value.clone() for name, value in initial.items()}

    @property
    def evaluated(self) -> dict[str, Tensor]:
        """Parameters to evaluate and keep: the average where there is one, else the trained ones."""
        return self._average if self._past else self.parameters

    def copy(self) -> ServerModel:
        """An independent copy of the model."""
        other = ServerModel(self.parameters, self._optimizer, self._past)
        other.load_state(self.state())
        return other

    def step(self, gradients: Mapping[str, Tensor], rates: Mapping[str, float], decays: Mapping[str, float]) -> None:
        """Take one step.

        Args:
            gradients: by name, of the shapes of the parameters.
            rates: learning rate of each parameter.
            decays: weight decay, inside the gradient, of those parameters that have any.
        """
        found = {
            name: gradient.add(self.parameters[name], alpha=decays.get(name, 0.0))
            for name, gradient in gradients.items()
        }
        if self._optimizer == "sgd":
            for name, value in self.parameters.items():
                value.sub_(found[name], alpha=rates[name])
        else:
            stacks, steps = ({name: value[None] for name, value in part.items()} for part in (self.parameters, found))
            adam_step(stacks, steps, self._moments, _ADAM, rates)
        self.steps += 1
        if self._past:
            for name, value in self.parameters.items():
                # Corrected for the bias towards the first values.
                weight = (1 - self._past) / (1 - self._past**self.steps)
                self._average[name].lerp_(value, weight)

    def draw_towards(self, other: ServerModel, share: float) -> None:
        """Move a share of the way to another model, both trained and evaluated parameters."""
        for own, others in ((self.parameters, other.parameters), (self._average, other._average)):
            for name, value in own.items():
                value.lerp_(others[name], share)

    def state(self) -> Stack:
        """The whole model, as arrays by name."""
        parts = (("parameters", self.parameters), ("average", self._average), ("adam", self._moments))
        kept = {f"{prefix}.{name}": value.numpy() for prefix, values in parts for name, value in values.items()}
        return {**kept, "steps": torch.tensor(self.steps).numpy()}

    def load_state(self, state: Stack) -> None:
        """Restore the arrays of `state`."""
        self.steps = int(state["steps"])
        for prefix, values in (("parameters", self.parameters), ("average", self._average), ("adam", self._moments)):
            for name, value in values.items():
                value.copy_(torch.tensor(state[f"{prefix}.{name}"]))


def prefixed(prefix: str, state: Stack) -> Stack:
    """A part's state under names with a prefix."""
    return {f"{prefix}/{name}": value for name, value in state.items()}


def part_of(prefix: str, state: Stack) -> Stack:
    """The state that `prefixed` got, without the prefix."""
    start = f"{prefix}/"
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
