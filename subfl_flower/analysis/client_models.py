"""The clients' models that a run wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import torch

from subfl_flower.errors import SubflError
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.subgraphs.models.exported import read_model
from subfl_flower.subgraphs.models.graph_network import GraphNetwork, Parameters


class ClientModels(Sequence[Parameters]):
    """Each client's best model, by id, as stacked parameters of one client; read from disk on access.

    Args:
        directory: the run.
        num_clients: how many clients there are.
        gnn: the network whose parameters the models are.
    """

    def __init__(self, directory: RunDirectory, num_clients: int, gnn: GraphNetwork[Any]) -> None:
        self._directory = directory
        self._num_clients = num_clients
        self._shapes = gnn.tensor_shapes

    def __len__(self) -> int:
        """The number of clients."""
        return self._num_clients

    @overload
    def __getitem__(self, index: int) -> Parameters: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Parameters]: ...

    def __getitem__(self, index: int | slice) -> Parameters | Sequence[Parameters]:
        """One client's parameters, each [1, ...].

        Raises:
            SubflError: the run wrote no model of the client, or its shapes differ from those of the configuration.
        """
        if isinstance(index, slice):
            return [self[client_id] for client_id in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        path = self._directory.client_file(index)
        if not path.is_file():
            raise SubflError(f"{path} does not exist: the run left no model of client {index}")
        arrays, _ = read_model(path)
        if {name: array.shape for name, array in arrays.items()} != self._shapes:
            raise SubflError(f"{self._directory.path}: the model of client {index} is not the one that was configured")
        return {name: torch.from_numpy(arrays[name]).unsqueeze(0) for name in self._shapes}
