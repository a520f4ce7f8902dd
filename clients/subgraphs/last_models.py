"""Last models of clients in a simulation, to be measured on other clients' graphs (`record.evaluation_modes`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from subfl_flower.node.state import CohortState, Shapes
from subfl_flower.subgraphs.models.stacked_gnn import Parameters
from subfl_flower.wire.array_format import Stack

if TYPE_CHECKING:
    from subfl_flower.clients.subgraphs.subgraph import SubgraphClient


class LastModels:
    """The part of `SubgraphClient` that keeps each client's last model, and measures given models on its graph.

    Args:
        client: the object that trains the clients.
    """

    def __init__(self, client: SubgraphClient) -> None:
        self._client = client
        shapes = client.model.tensor_shapes
        self.shapes: Shapes = client.compact.shapes({f"last.{name}": shape for name, shape in shapes.items()})

    def keep(self, state: CohortState, positions: Sequence[int], effective: Parameters) -> None:
        """Keep models [C, ...] of the clients at some positions in their rows of the state."""
        for row, position in enumerate(positions):
            with state.replacing(position):
                for name, value in effective.items():
                    last = state.of_client(f"last.{name}", position)
                    last.copy_(value[row][: len(last)] if last.ndim else value[row])

    def of(self, state: CohortState, position: int) -> Stack:
        """The model that a client has kept; {} where it was never trained."""
        if state.is_fresh(position):
            return {}
        rows, names = self._client.compact, self._client.model.tensor_shapes
        return {
            name: rows.of_client(name, state.of_client(f"last.{name}", position), position).cpu().numpy().copy()
            for name in names
        }

    def test_outputs(self, models: Mapping[int, Stack]) -> dict[int, Stack]:
        """Outputs and truth of clients' test examples under a given model for each, chunk by chunk."""
        client, found = self._client, {}
        size = client.cohort.chunk_size(
            sum(int(np.prod(shape)) for shape in client.model.tensor_shapes.values()), client.model.widest
        )
        for positions in client.cohort.split(sorted(client.position_of[client_id] for client_id in models), size):
            ids = [client.cohort.client_ids[position] for position in positions]
            stacked = {
                name: torch.from_numpy(np.stack([models[client_id][name] for client_id in ids])).to(
                    client.cohort.device
                )
                for name in client.model.tensor_shapes
            }
            outputs = client.outputs(stacked, client.graph_chunk(positions))
            examples = client.held_out(positions)
            for client_id, (own, truth) in zip(ids, examples.test_outputs(outputs), strict=True):  # type: ignore[attr-defined]
                found[client_id] = {"outputs": own, "truth": truth}
        return found
