"""What every task has in common: what of a client's graph is seen in training, the loss, the metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from subfl_flower.data.graph import ClientGraph


class Examples(Protocol):
    """What C clients learn from and are measured on, stacked; node k of client c is row k of its outputs."""

    def losses(self, outputs: Tensor, generators: Sequence[np.random.Generator]) -> Tensor:
        """Each client's mean training loss [C].

        Args:
            outputs: of the model, [C, width, outputs].
            generators: one a client, for what the task samples in this step.
        """

    def evaluate(self, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The metric on validation and on test examples, [C] each; not a number where a client has none."""


class TaskSettings(BaseModel, ABC):
    """A task.

    Attributes:
        metric: what its validation and test figures measure; a fraction.
        needs_labels: whether the data set must have labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    metric: ClassVar[str]
    needs_labels: ClassVar[bool]
    name: str

    @abstractmethod
    def num_outputs(self, num_classes: int) -> int:
        """Width of the model's output for a data set of `num_classes` classes."""

    @abstractmethod
    def visible(self, graph: ClientGraph) -> ClientGraph:
        """The part of a client's graph that its model may see; ``train`` marks the nodes that a loss speaks of."""

    @abstractmethod
    def num_examples(self, graph: ClientGraph) -> int:
        """How many training examples a client has.

        Raises:
            SubflError: it has none.
        """

    @abstractmethod
    def examples(self, graphs: Sequence[ClientGraph], device: torch.device) -> Examples:
        """The stacked examples of some clients, of their whole graphs."""
