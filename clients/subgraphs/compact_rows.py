"""The first layer of subgraph clients on the rows that each client's own data reach.

A row of the first layer belongs to a column of the inputs, such as a feature. Where no node of a client has the
feature, the row has no effect on the client's outputs and no gradient. What happens to it otherwise depends on the
local objective (`LocalWeights.unreached_rows`):

- ``zero``: the row is zero in the model, as FED-PUB's masks make it. Then it is not needed at all: parameters, masks,
  moments, the kept model, description and upload are made of the other rows.
- ``kept``: training leaves the row as received. Then steps and moments are made of the other rows. The row is part of
  the model again afterwards, because descriptions, kept model and upload have it.
- ``trained``: something else moves the row, such as weight decay. Then it is a row like any other.

State holds a client's own number of rows, which follows from the client's data alone, so that it is the same on every
node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from subfl_flower.models.row_stack import RowStack
from subfl_flower.node.state import OwnRows, Shapes
from subfl_flower.subgraphs.models.input_rows import InputRows
from subfl_flower.wire.batch import Batch

Uploads = Mapping[str, Tensor | RowStack]
"""Uploads of C clients by name, each [C, ...]."""

Unreached = Literal["zero", "kept", "trained"]
"""Treatment of rows that no data of a client reach."""


class CompactRows:
    """The rows of the first layer that the clients of a cohort work on.

    Args:
        names: names of the parameters whose rows belong to inputs: the first layer's weight, and its mask.
        unreached: treatment of the rows that a client's data do not reach.
        reached: flags of the rows that each client's data reach in all rounds, bool [F]; None where that is not fixed.
        device: device of models.

    Attributes:
        zero: True where unreached rows are zero, and are not needed at all.
    """

    def __init__(
        self,
        names: Sequence[str],
        unreached: Unreached,
        reached: Sequence[np.ndarray] | None,
        device: torch.device,
    ) -> None:
        used = bool(names) and unreached != "trained" and reached is not None
        self._reached = [] if reached is None or not used or all(flags.all() for flags in reached) else list(reached)
        self._names = frozenset(names) if self._reached else frozenset()
        self.zero = bool(self._names) and unreached == "zero"
        self._device = device

    def __bool__(self) -> bool:
        """True where a client has unreached rows that need not be worked on."""
        return bool(self._names)

    def of(self, positions: Sequence[int]) -> InputRows | None:
        """The rows of the clients at some positions; None where they work on all."""
        return InputRows.of([self._reached[position] for position in positions], self._device) if self else None

    def shapes(self, whole: Shapes) -> Shapes:
        """The shapes of a state whose entries are named ``<kind>.<parameter>``, with each client's own rows.

        Moments have reached rows alone. So has everything else where unreached rows are zero.
        """
        counts = tuple(int(flags.sum()) for flags in self._reached)
        shapes = dict(whole)
        for name, shape in whole.items():
            kind, _, parameter = name.partition(".")
            if parameter in self._names and (self.zero or kind.startswith("exp_avg")):
                assert isinstance(shape, tuple)
                shapes[name] = OwnRows(counts, shape[1:])
        return shapes

    def received(self, batch: Batch, rows: InputRows | None) -> dict[str, Tensor]:
        """What clients are sent, with the chunk's `rows`; on a CPU it may be views of the message."""
        arrays: dict[str, Any] = dict(batch.stack)
        stacks = {name: value for name, value in arrays.items() if isinstance(value, RowStack)}
        if rows is None or not stacks.keys() <= self._names:
            return self.gathered(batch.tensors(self._device), rows)
        others = self.gathered(batch.tensors(self._device, set(stacks)), rows)
        return {name: rows.gathered_stack(stacks[name]) if name in stacks else others[name] for name in batch.stack}

    def gathered(self, values: Mapping[str, Tensor], rows: InputRows | None) -> dict[str, Tensor]:
        """Values [C, F, ...] by name with the chunk's `rows` of those whose rows belong to inputs."""
        if rows is None:
            return dict(values)
        return {name: rows.gathered(value) if name in self._names else value for name, value in values.items()}

    def spread(self, values: Uploads, rows: InputRows | None) -> dict[str, Tensor | RowStack]:
        """All rows of uploads that have the chunk's `rows`: the others are zero."""
        if rows is None:
            return dict(values)
        return {
            name: rows.spread(value) if name in self._names and isinstance(value, Tensor) else value
            for name, value in values.items()
        }

    def put(self, values: Mapping[str, Tensor], whole: Mapping[str, Tensor], rows: InputRows | None) -> None:
        """Put the chunk's `rows` of values into `whole`, in place."""
        for name in self._names & whole.keys() if rows is not None else ():
            assert rows is not None
            rows.put(values[name], whole[name])

    def of_client(self, name: str, values: Tensor, position: int) -> Tensor:
        """All rows [F, ...] of a client's values, where `values` are the rows that its data reach."""
        if name not in self._names or not self.zero:
            return values
        flags = torch.from_numpy(self._reached[position])
        whole = values.new_zeros(len(flags), *values.shape[1:])
        whole[flags.to(values.device)] = values
        return whole
