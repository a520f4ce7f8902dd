"""Record of uploads as an honest-but-curious server has them, for the audit of what they give away."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from subfl_flower.data.graph import TRAIN, ClientGraph
from subfl_flower.models.row_stack import RowStack
from subfl_flower.privacy.inference import Evidence, inference_report, node_losses
from subfl_flower.server.updates import Updates
from subfl_flower.subgraphs.models.stacked_gnn import CLASSIFIER
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import RunContext

_NOT_SENT = -1.0


class UploadAudit:
    """Audit of the clients of a simulation, where `record.audit` asks for it.

    Changes of parameters are summed over the rounds; the model that is attacked is a client's last one.

    Args:
        run: facts of the run.
        num_clients: K.
    """

    def __init__(self, run: RunContext, num_clients: int) -> None:
        self._run = run
        network = run.network
        self._rows = None if network is None else network.input_rows
        self._bias = f"{CLASSIFIER}.bias"
        self._last: dict[int, Stack] = {}
        self._row_scores: dict[int, np.ndarray] = {}
        self._bias_changes: dict[int, np.ndarray] = {}

    def watch(self, updates: Updates, sent: Stack) -> None:
        """Record a round's uploads, and what each client of the roster was sent, each [K, ...]."""
        if not self._run.audit:
            return
        names = [name for name in sent if name in updates.arrays]
        for place, position in enumerate(updates.positions.tolist()):
            before = {name: np.asarray(sent[name][position]) for name in names}
            uploads = {name: updates.arrays[name] for name in names}
            missing = np.zeros(0, dtype=np.int64)
            model: Stack = {}
            for name, stack in uploads.items():
                if isinstance(stack, RowStack):
                    index, values = stack.part(place)
                    model[name] = np.array(before[name])
                    model[name][index] = values
                    missing = np.setdiff1d(np.arange(stack.height), index)
                else:
                    model[name] = np.array(stack[place])
            self._add(position, model, before, missing)

    def _add(self, position: int, model: Stack, before: Stack, missing: np.ndarray) -> None:
        self._last[position] = model
        if self._rows in model:
            new, old = model[self._rows], before[self._rows]
            change = np.where(new != 0, new - old, 0)  # a zero was pruned, not learnt
            scores = np.linalg.norm(change.reshape(len(change), -1), axis=1).astype(np.float64)
            scores[missing] = _NOT_SENT
            self._row_scores[position] = self._row_scores.get(position, 0) + scores
        if self._bias in model:
            change = (model[self._bias] - before[self._bias]).astype(np.float64)
            self._bias_changes[position] = self._bias_changes.get(position, 0) + change

    def report(self, prepared: Any | None, client_ids: tuple[int, ...]) -> dict[str, Any]:
        """The summary's entry ``inference``, in a simulation.

        Args:
            prepared: all clients' data.
            client_ids: of the roster.
        """
        if prepared is None or not self._last:
            return {}
        evidence = [self._evidence(position, prepared.client(client_ids[position])) for position in sorted(self._last)]
        return {"inference": asdict(inference_report(evidence))}

    def _evidence(self, position: int, graph: ClientGraph) -> Evidence:
        assert graph.labels is not None and self._run.network is not None
        known = np.flatnonzero(graph.labels >= 0)
        trained = graph.roles[known] == TRAIN
        counts = np.bincount(graph.labels[known][trained], minlength=graph.num_classes)
        return Evidence(
            membership=-node_losses(self._outputs(position, graph)[known], graph.labels[known]),
            trained=trained,
            features=self._row_scores.get(position),
            present=self._run.network.reached_inputs(graph),
            labels=self._bias_changes.get(position),
            frequencies=counts / max(counts.sum(), 1),
        )

    @torch.no_grad()
    def _outputs(self, position: int, graph: ClientGraph) -> np.ndarray:
        """Outputs [n, K] of the last uploaded model; personal layers, which nobody sends, have their first values."""
        network = self._run.network
        assert network is not None
        values = {**self._run.initial, **self._last[position]}
        parameters = {name: torch.from_numpy(np.array(values[name])).unsqueeze(0) for name in network.shapes}
        chunk = network.stacked([network.local_graph(graph)])
        outputs: np.ndarray = network(parameters, chunk)[0].double().numpy()
        return outputs
