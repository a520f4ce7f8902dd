r"""Embeddings of stacked GCNs by their mean output on a random graph.

The output is that of the last convolution before its ReLU, without dropout. The mean over nodes moves inside the last
propagation,

.. math:: \frac{1}{N} 1^T \hat A H W + b = (a^T H) W + b, \quad a = \hat A^T 1 / N,

so that the last layer costs a row vector instead of N rows.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from subfl_flower.models.sparse import SparseMatrix, normalised_adjacency
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.subgraphs.models.input_rows import InputRows

# A chunk of one client skips zero rows of the first weight where they are at least this share of it.
_WORTH_SKIPPING = 0.2


class ConvolutionProbe:
    """A random graph, prepared to embed stacked GCNs.

    Args:
        edge_index: [2, edges] of the random graph.
        features: [N, num_features].
        device: where models live.
    """

    def __init__(self, edge_index: np.ndarray, features: np.ndarray, device: torch.device | str = "cpu") -> None:
        device = torch.device(device)
        operator = normalised_adjacency(edge_index, len(features))
        self._adjacency = SparseMatrix(operator, device, symmetric=True)
        self._node_mean = torch.from_numpy(np.asarray(operator.mean(0), dtype=np.float32)).to(device)
        # Stored features-first, so that the rows that matter to a client can be gathered as whole lines.
        inputs = np.ascontiguousarray((operator @ features.astype(np.float32)).T)
        self._inputs = torch.from_numpy(inputs).to(device)

    @torch.no_grad()
    def embed(self, parameters: Parameters, rows: InputRows | None = None) -> Tensor:
        """Functional embeddings [C, hidden] of C stacked GCNs.

        Args:
            parameters: stacked.
            rows: the rows that `parameters` have of the first layer, the others being zero; None: they have all.
        """
        names = sorted((name for name in parameters if name.startswith("conv")), key=_layer)
        layers = [(parameters[f"{name}.weight"], parameters[f"{name}.bias"]) for name in _layer_names(names)]
        hidden = self._first(layers[0][0], rows) + layers[0][1].unsqueeze(1)
        for weight, bias in layers[1:-1]:
            hidden = torch.bmm(torch.relu(hidden), weight)
            clients, nodes, width = hidden.shape
            flat = hidden.transpose(0, 1).reshape(nodes, clients * width)
            hidden = (self._adjacency @ flat).view(nodes, clients, width).transpose(0, 1) + bias.unsqueeze(1)
        if len(layers) == 1:
            return hidden.mean(1)
        weight, bias = layers[-1]
        pooled = torch.matmul(self._node_mean, torch.relu(hidden)).unsqueeze(1)
        return torch.bmm(pooled, weight).squeeze(1) + bias

    def _first(self, weight: Tensor, rows: InputRows | None) -> Tensor:
        """Â X W of the random graph for stacked W [C, features, hidden], or [C, R, hidden]: [C, N, hidden]."""
        if len(weight) == 1 and weight.device.type == "cpu":
            used = torch.nonzero(weight[0].any(1)).squeeze(1)
            if len(used) < (1 - _WORTH_SKIPPING) * len(self._inputs):
                columns = used if rows is None else rows.index[0, used]
                own = weight[0] if len(used) == weight.shape[1] else weight[0][used]
                return (self._inputs[columns].T @ own).unsqueeze(0)
        if rows is None:
            return torch.matmul(self._inputs.T, weight)
        return torch.stack([self._inputs[index].T @ own for index, own in zip(rows.index, weight, strict=True)])


def _layer(name: str) -> int:
    return int(name.split(".")[0].removeprefix("conv"))


def _layer_names(parameter_names: list[str]) -> list[str]:
    return list(dict.fromkeys(name.split(".")[0] for name in parameter_names))
