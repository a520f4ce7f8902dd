"""GraphSAGE layers over a graph to which generated nodes are added while it is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from subfl_flower.models.sparse import SparseMatrix
from subfl_flower.subgraphs.mending.mending_example import Surroundings

Parameters = Mapping[str, Tensor]
"""Parameters of one client by name, without a client axis."""


def sage_shapes(layer: str, fan_in: int, fan_out: int) -> dict[str, tuple[int, ...]]:
    """Parameters of a layer by name, and their shapes."""
    return {
        f"{layer}.own": (fan_in, fan_out),
        f"{layer}.neighbours": (fan_in, fan_out),
        f"{layer}.bias": (fan_out,),
    }


def sage(parameters: Parameters, layer: str, inputs: SparseMatrix | Tensor, surroundings: Surroundings) -> Tensor:
    """One GraphSAGE layer before its ReLU, [n, fan out]; without neighbours their mean is zero."""
    sums = surroundings.adjacency @ (inputs @ parameters[f"{layer}.neighbours"])
    means = sums / surroundings.degrees.clamp(min=1)
    return inputs @ parameters[f"{layer}.own"] + means + parameters[f"{layer}.bias"]


def mended_sage(
    parameters: Parameters,
    layer: str,
    rows: Sequence[Tensor],
    generated: Sequence[Tensor],
    surroundings: Surroundings,
    owners: Tensor,
) -> tuple[Tensor, Tensor]:
    """One GraphSAGE layer before its ReLU over n own and m generated nodes, [n, fan out] and [m, fan out].

    Args:
        parameters: parameters with the layer's bias, which is added.
        layer: name of the layer.
        rows: the own nodes' inputs times the layer's two matrices, own part first.
        generated: the same products of generated nodes, whose only neighbour is their owner.
        surroundings: edges between own nodes.
        owners: int64 [m].
    """
    bias = parameters[f"{layer}.bias"]
    sums = (surroundings.adjacency @ rows[1]).index_add(0, owners, generated[1])
    degrees = surroundings.degrees + torch.bincount(owners, minlength=len(sums))[:, None]
    return rows[0] + sums / degrees.clamp(min=1) + bias, generated[0] + rows[1][owners] + bias
