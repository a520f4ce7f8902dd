"""Base of all clients that hold a subgraph: they train a graph network on their own nodes.

Each client takes full-batch Adam steps on its own training examples, from what the server sent. Adam's state stays with
the client. The objective and the personal parameters are those of `clients/subgraphs/local_weights.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from subfl_flower.clients.subgraphs.compact_rows import CompactRows, Uploads, require_skippable, with_all_rows
from subfl_flower.clients.subgraphs.description import Description
from subfl_flower.clients.subgraphs.last_models import LastModels
from subfl_flower.clients.subgraphs.local_steps import Epoch, LocalSteps, Model, generators
from subfl_flower.clients.subgraphs.local_weights import LocalWeights, Used
from subfl_flower.clients.subgraphs.protected_update import COSINE, ProtectedUpdate
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.adam import adam_state_shapes
from subfl_flower.models.row_stack import RowStack, as_array, completed
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.node.client import CohortClient
from subfl_flower.node.iteration import Iteration, in_chunks
from subfl_flower.node.kept_arrays import Arrays
from subfl_flower.node.state import CohortState, Shapes, StateStore
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.minibatches import Minibatches
from subfl_flower.subgraphs.models.choices import graph_network, network_class
from subfl_flower.subgraphs.models.chunk import GraphChunk
from subfl_flower.subgraphs.models.graph_network import Parameters
from subfl_flower.subgraphs.models.input_rows import InputRows
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.subgraphs.models.stacked_gnn import layer_parameters
from subfl_flower.subgraphs.prepared import Prepared
from subfl_flower.tasks.choices import Examples
from subfl_flower.tasks.metric import Metric
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Batch, Result
from subfl_flower.wire.contract import Declared, MethodSettings, RunContext
from subfl_flower.wire.payload import ArraySpec


class SubgraphClient(CohortClient):
    """Train a graph network on the graphs of a node's clients.

    A method may override `local_weights`, `describes`, `graph_patch_name` with `patched_graph`, or `local_graph`.
    """

    class Settings(MethodSettings):
        """Knobs of the local objective.

        Attributes:
            proximal: weight of the squared distance to the received parameters, from round 2 on.
            personal_layers: layers that stay with the client, and are not averaged.
            weight_decay: replaces the optimiser's; null keeps it.
        """

        proximal: float = Field(default=0.0, ge=0)
        personal_layers: tuple[str, ...] = ()
        weight_decay: float | None = Field(default=None, ge=0)

    settings: Settings

    trains_mixed = True

    protects_uploads = True

    audited = True

    keeps_last = True

    networks: ClassVar[tuple[str, ...]] = ()
    """Names, in the settings, of the networks that the family works with; empty: all."""

    graph_patch_name: ClassVar[str | None] = None
    """State key of the neighbour data added to the local graph; None: clients train on the graph that they hold."""

    # The contract -----------------------------------------------------------------------------------------------------

    @classmethod
    def shared(cls, run: RunContext) -> dict[str, ArraySpec]:
        """The model's shared parameters."""
        own = layer_parameters(run.initial, run.settings.personal_layers)
        shared = {name: ArraySpec.like(value) for name, value in run.initial.items() if name not in own}
        first = None if run.network is None else run.network.input_rows
        if first in shared and cls.skips_absent(run):
            shared[first] = replace(shared[first], by_row=True)
        return shared

    @classmethod
    def downloads(cls, run: RunContext) -> Declared:
        """The shared parameters."""
        return cls.shared(run)

    @classmethod
    def protects_update(cls, run: RunContext) -> bool:
        """True where `privacy` protects the change of a client's parameters."""
        return run.privacy.mechanism != "none"

    @classmethod
    def metrics(cls, run: RunContext) -> dict[str, Metric]:
        """The task's figures and the training loss; with protected changes their cosine instead of the loss."""
        declared = super().metrics(run)
        if cls.protects_update(run):
            del declared["train_loss"]
            declared[COSINE] = Metric(-1.0, 1.0, averaged=True)
        return declared

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """Refuse a missing model, or one that is none of `networks`."""
        if cls.networks and model.name not in cls.networks:
            raise SubflError(f"method={method} is for model={' or '.join(cls.networks)}, not for model={model.name}")
        network_class(model).check(model)

    @classmethod
    def skips_absent(cls, run: RunContext) -> bool:
        """True where clients leave out rows of the first layer whose features they do not have."""
        return run.skips_absent

    @classmethod
    def check_skipping(cls, model: Any, settings: Any, optimizer: OptimizerSettings, method: str) -> None:
        """Refuse to skip rows of absent features where there are none, or where training changes them.

        Raises:
            SubflError: the model has no such rows, clients work on more than their own features, or weights decay.
        """
        require_skippable(model, settings, optimizer, method, cls._own_graphs())

    @classmethod
    def _own_graphs(cls) -> bool:
        """True where clients train on the nodes that they hold alone."""
        return cls.graph_patch_name is None and cls.local_graph is SubgraphClient.local_graph

    # Parts that a method exchanges ------------------------------------------------------------------------------------

    def local_weights(self) -> LocalWeights:
        """The part that makes the model of shared and personal parameters."""
        return LocalWeights(self.model, self.settings, self.seed, self.cohort.device)

    def describes(self) -> Sequence[Description]:
        """The parts that make further uploads for client similarity."""
        return ()

    def patched_graph(self, own: ClientGraph, kept: Arrays) -> LocalGraph:
        """The graph for a client's model, from its own graph and the arrays kept under `graph_patch_name`."""
        return self.model.local_graph(own)

    def __init__(self, run: RunContext, cohort: Cohort, store: StateStore, iterate: Iteration = in_chunks) -> None:
        super().__init__(run, cohort, store, iterate)
        if self.settings.weight_decay is not None:
            self.optimizer = run.optimizer.model_copy(update={"weight_decay": self.settings.weight_decay})
        self.model = graph_network(run.model, cohort.num_features, cohort.num_outputs)
        self.weights = self.local_weights()
        self.descriptions = self.describes()
        trained = self.weights.trained_shapes
        self.compact = CompactRows(
            self.weights.by_input,
            self.weights.unreached_rows(self.optimizer.weight_decay),
            self.reached_inputs() if self.weights.by_input else None,
            cohort.device,
        )
        worked_on = self.compact.shapes(
            {
                **adam_state_shapes(trained),
                **{f"personal.{name}": shape for name, shape in self.weights.personal_shapes.items()},
            }
        )
        self._worked_on = tuple(worked_on)
        self._best_shapes = self.compact.shapes(
            {
                **{f"best.{name}": shape for name, shape in self.model.tensor_shapes.items()},
                "best_validation": (),
            }
        )
        self._last = LastModels(self) if run.evaluation_modes else None
        last_shapes = {} if self._last is None else self._last.shapes
        self._state_shapes: Shapes = {**worked_on, **self._best_shapes, **last_shapes}
        # Of all rows of the first layer, and of those that clients' data reach.
        self._chunks: dict[bool, Prepared[GraphChunk]] = {rows: Prepared(len(cohort.graphs)) for rows in (True, False)}
        floats = sum(int(np.prod(shape)) for shape in trained.values())
        # Clients with different numbers of minibatches take different numbers of steps, so that none shares a chunk.
        self._chunk_size = 1 if cohort.task.samples else cohort.chunk_size(floats, self.model.widest)
        self.steps = LocalSteps(
            self.model, self.weights, self.optimizer, cohort.device, self.seed, in_precision=self.in_precision
        )
        self._protection = self._protected(run, cohort) if self.protects_update(run) else None
        self._minibatches = Minibatches(self.model, cohort.task, cohort.device)
        self._sampled_from: dict[int, LocalGraph] = {}

    def _protected(self, run: RunContext, cohort: Cohort) -> ProtectedUpdate:
        """Protection of the change of parameters, with a share of the noise where a sum's clients have it together."""
        names, sums = list(self.shared(run)), run.secure_sums
        if not run.privacy.in_sum:
            return ProtectedUpdate(run.privacy, names, cohort, self.seed)
        share = run.privacy.share_of(sums.min_clients)
        return ProtectedUpdate(share, names, cohort, self.seed, sums.fraction_bits)

    @property
    def state_shapes(self) -> Shapes:
        """Adam's moments, personal parameters, and the best model so far."""
        return self._state_shapes

    @property
    def side_by_side(self) -> int:
        """All clients, unless their network computes for one at a time."""
        return super().side_by_side if self.model.side_by_side else 1

    # Graphs -----------------------------------------------------------------------------------------------------------

    def graph_version(self, position: int) -> int:
        """The round before which a client was sent its graph's patch; 0 where it has none."""
        if self.graph_patch_name is None:
            return 0
        return self.store.kept.round_of(self.cohort.client_ids[position], self.graph_patch_name) or 0

    def local_graph(self, position: int) -> LocalGraph:
        """The graph for a client's model: its own as far as the task shows it, patched or not."""
        own = self.cohort.visible[position]
        if self.graph_patch_name is None or not self.graph_version(position):
            return self.model.local_graph(own)
        return self.patched_graph(own, self.store.kept.get(own.client_id, self.graph_patch_name))

    def reached_inputs(self) -> Sequence[np.ndarray] | None:
        """Flags, for each client, of the first layer's rows that its graph reaches in all rounds: bool [inputs].

        None where they may change from round to round, or where a method makes local graphs of more than clients' own.
        """
        if not self._own_graphs():
            return None
        return [self.model.reached_inputs(graph) for graph in self.cohort.visible]

    def mended(self, client_id: int) -> bool:
        """True where a client's graph is patched."""
        return self.graph_version(self.position_of[client_id]) > 0

    def graph_chunk(self, positions: Sequence[int], rows: InputRows | None = None) -> GraphChunk:
        """The stacked local graphs of some clients, prepared where they are new or have changed.

        Args:
            positions: the clients' positions in the cohort.
            rows: the rows of the first layer to prepare inputs for, from `compact`; None: all.
        """
        versions = tuple(self.graph_version(position) for position in positions)
        prepared = self._chunks[rows is None]
        return prepared.of(tuple(positions), lambda: self._new_chunk(positions, rows), versions)

    def _new_chunk(self, positions: Sequence[int], rows: InputRows | None) -> GraphChunk:
        graphs = [self.local_graph(position) for position in positions]
        if rows is not None:
            columns = rows.index.cpu().numpy()
            graphs = [graph.with_inputs(own) for graph, own in zip(graphs, columns, strict=True)]
        if self.cohort.task.samples and (rows is not None or not self.compact):
            self._sampled_from.update(zip(positions, graphs, strict=True))
        return replace(self.model.stacked(graphs, self.cohort.device), rows=rows)

    # A round ----------------------------------------------------------------------------------------------------------

    def chunks(self, batch: Batch) -> list[Batch]:
        """Chunks of clients by their positions in the cohort, of the size at which the device is fastest."""
        order = sorted(range(len(batch)), key=lambda place: self.position_of[batch.clients[place]])
        return [batch.take(places) for places in self.cohort.split(order, self._chunk_size)]

    def train_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Measure the received model, train, and measure again."""
        positions, device = [self.position_of[client_id] for client_id in batch.clients], self.cohort.device
        chunk, held_out = self.graph_chunk(positions, self.compact.of(positions)), self.held_out(positions)
        received = self.compact.received(batch, chunk.rows)
        shared = {name: value.clone() for name, value in received.items()}
        with state.rows(positions, device, self._worked_on) as own:
            self._initialise(own, chunk, state, positions)
            personal = self._personal(own, chunk)
            used = Used(batch.server_round, received)
            as_received = self.weights.effective(received, personal, chunk, used)
            validation_received, test_received = held_out.evaluate(self.outputs(as_received, chunk))
            loss = self.take_steps(Model(shared, personal, received), own, chunk, batch)
            effective = self.weights.effective(shared, personal, chunk, used)
            outputs = self.outputs(effective, chunk)
            validation, test = held_out.evaluate(outputs)
            alone: Uploads = {}
            if chunk.rows is not None and not self.compact.zero:
                alone = self._own_rows(shared, chunk.rows) if self.skips_absent(self.run) else {}
                shared, personal = self._completed(shared, personal, batch, own, chunk)
                chunk = replace(chunk, rows=None)
                used = replace(used, received=batch.tensors(device))
                effective = self.weights.effective(shared, personal, chunk, used)
            with torch.no_grad():
                uploads = self.compact.spread(self.weights.upload(shared, effective, chunk), chunk.rows) | dict(alone)
                uploads = uploads if self.skips_absent(self.run) else with_all_rows(uploads, batch)
                protection: dict[str, Tensor] = {}
                described, rows = effective, chunk.rows
                if self._protection is not None:
                    protected, protection = self._protection.of(uploads, batch)
                    uploads |= protected
                    described, rows = self._described(protected, len(positions)), None
                for description in self.descriptions:
                    read = chunk if self.compact.zero or not description.reads_graphs else self.graph_chunk(positions)
                    uploads |= description.of(described, replace(read, rows=rows), batch)
        self.keep_best(state, positions, effective, validation)
        if self._last is not None:
            self._last.keep(state, positions, effective)
        metrics = {
            "validation": validation,
            "test": test,
            "validation_as_received": validation_received,
            "test_as_received": test_received,
            "num_examples": self._num_examples(positions),
            **held_out.figures(outputs),
            **(protection if self._protection else {"train_loss": loss, **self.weights.figures(effective)}),
        }
        return Result(batch.clients, _arrays(uploads), metrics=_arrays(metrics))

    def protected_values(self, result: Result) -> np.ndarray | None:
        """Number of uploaded parameters, the same for all clients."""
        if self._protection is None:
            return None
        return np.full(len(result.clients), sum(math.prod(spec.shape) for spec in self.shared(self.run).values()))

    def _described(self, protected: Parameters, count: int) -> dict[str, Tensor]:
        """The models [C, ...] of `count` clients that others may know: personal parameters have their first values."""
        initial = {name: torch.from_numpy(value) for name, value in self.run.initial.items() if name not in protected}
        device = self.cohort.device
        return {**{name: value.to(device).expand(count, *value.shape) for name, value in initial.items()}, **protected}

    def take_steps(self, model: Model, state: Mapping[str, Tensor], chunk: GraphChunk, batch: Batch) -> Tensor:
        """Take a round's steps in place; the mean training loss of each client in the last epoch [C]."""
        return self.steps.take(model, state, self._epochs(chunk, batch), chunk, batch)

    def _epochs(self, chunk: GraphChunk, batch: Batch) -> Iterator[Epoch]:
        """The steps of each local epoch."""
        positions = [self.position_of[client_id] for client_id in batch.clients]
        if not self.cohort.task.samples:
            yield from ([(chunk, self.cohort.examples(positions), 1.0)] for _ in range(batch.local_epochs))
            return
        (position,), (rng,) = positions, generators(self.seed, chunk, batch.server_round, "minibatches")
        for _ in range(batch.local_epochs):
            sampled = self._minibatches.epoch(self._sampled_from[position], self.cohort.graphs[position], rng)
            yield ((replace(part, rows=chunk.rows), examples, share) for part, examples, share in sampled)

    def measure_chunk(self, batch: Batch, state: CohortState) -> Result:
        """Measure the received parameters together with the personal ones; the state does not change."""
        positions, device = [self.position_of[client_id] for client_id in batch.clients], self.cohort.device
        chunk, held_out = self.graph_chunk(positions, self.compact.of(positions)), self.held_out(positions)
        own = state.copied(positions, device, self._worked_on)
        self._initialise(own, chunk, state, positions)
        received = self.compact.received(batch, chunk.rows)
        used = Used(batch.server_round, received)
        effective = self.weights.effective(received, self._personal(own, chunk), chunk, used)
        outputs = self.outputs(effective, chunk)
        validation, test = held_out.evaluate(outputs)
        sampled = generators(self.seed, chunk, batch.server_round, "examples")
        loss = self.cohort.examples(positions).losses(outputs, sampled)
        metrics = {
            "validation": validation,
            "test": test,
            "train_loss": loss,
            "num_examples": self._num_examples(positions),
            **held_out.figures(outputs),
        }
        return Result(batch.clients, metrics=_arrays(metrics))

    def _num_examples(self, positions: Sequence[int]) -> Tensor:
        return torch.tensor([self.cohort.num_examples[position] for position in positions])

    @torch.no_grad()
    def outputs(self, effective: Parameters, chunk: GraphChunk) -> Tensor:
        """The measured outputs at clients' nodes: [C, width, outputs]."""
        return self.model(effective, chunk)

    def held_out(self, positions: Sequence[int]) -> Examples:
        """The examples on which a chunk's outputs are measured."""
        return self.cohort.examples(positions)

    # State ------------------------------------------------------------------------------------------------------------

    def _initialise(
        self, own: Mapping[str, Tensor], chunk: GraphChunk, state: CohortState, positions: Sequence[int]
    ) -> None:
        """Give clients without a state their first personal parameters, in their rows `own`."""
        fresh = [row for row, position in enumerate(positions) if state.is_fresh(position)]
        if fresh:
            initial = self.weights.initial_personal(chunk)
            initial = self.compact.gathered(initial, chunk.rows) if self.compact.zero else initial
            for name, values in initial.items():
                own[f"personal.{name}"][fresh] = values[fresh]

    def _personal(self, own: Mapping[str, Tensor], chunk: GraphChunk) -> dict[str, Tensor]:
        """The personal parameters in clients' rows `own` of the state, with the chunk's rows of the first layer."""
        personal = {name: own[f"personal.{name}"] for name in self.weights.personal_shapes}
        return personal if self.compact.zero else self.compact.gathered(personal, chunk.rows)

    def _own_rows(self, shared: Mapping[str, Tensor], rows: InputRows) -> Uploads:
        """The first layer as it is sent where rows that training does not reach are skipped."""
        return {name: rows.stack(value) for name, value in shared.items() if name in self.weights.by_input}

    def _completed(
        self,
        shared: Mapping[str, Tensor],
        personal: Mapping[str, Tensor],
        batch: Batch,
        own: Mapping[str, Tensor],
        chunk: GraphChunk,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Shared and personal parameters with all rows: those that training does not reach are as before."""
        sent = batch.tensors(self.cohort.device)
        whole = {name: sent[name].clone() if name in self.weights.by_input else value for name, value in shared.items()}
        kept = {name: own[f"personal.{name}"] for name in personal}
        self.compact.put(shared, whole, chunk.rows)
        self.compact.put(personal, kept, chunk.rows)
        return whole, kept

    def keep_best(
        self, state: CohortState, positions: Sequence[int], effective: Parameters, validation: Tensor
    ) -> None:
        """Remember the models of clients whose validation figure is a new maximum."""
        # Stored plus one, so that the zero of a new state is below any figure; rounded as stored, so that equals tie.
        scores = (1.0 + torch.nan_to_num(validation, nan=0.0).float()).tolist()
        for row, position in enumerate(positions):
            if scores[row] > float(state["best_validation"][position]):
                with state.replacing(position):
                    state["best_validation"][position] = scores[row]
                    for name, value in effective.items():
                        best = state.of_client(f"best.{name}", position)
                        best.copy_(value[row][: len(best)] if best.ndim else value[row])

    def last_model(self, client_id: int) -> Stack:
        """The client's model as it was used after its last training."""
        assert self._last is not None
        return self._last.of(self.open_state(), self.position_of[client_id])

    def test_outputs(self, models: Mapping[int, Stack]) -> dict[int, Stack]:
        """Outputs at clients' own test examples, on their local graphs."""
        assert self._last is not None
        return self._last.test_outputs(models)

    def trained_models(self, batch: Batch, result: Result) -> Stack:
        """Each client's trained model [A, ...]; rows that it does not send are as received."""
        models, received = super().trained_models(batch, result), batch.stack
        if not self.skips_absent(self.run) or self.compact.zero:
            return models
        rows = {name for name in self.weights.by_input if name in models}
        return models | {name: completed(models[name], received[name]) for name in rows}

    def best_state(self) -> CohortState:
        """The state that holds each client's best model."""
        return self.open_state()

    def models(self, batch: Batch) -> dict[int, dict[str, np.ndarray]]:
        """Each client's model at its best validation round, as used outside training, by client id."""
        state = self.best_state()
        return {
            client_id: {name: self._best_of(state, name, position) for name in self.model.tensor_shapes}
            for position, client_id in enumerate(state.client_ids)
            if not state.is_fresh(position)
        }

    def _best_of(self, state: CohortState, name: str, position: int) -> np.ndarray:
        best = self.compact.of_client(name, state.of_client(f"best.{name}", position), position)
        return best.cpu().numpy().copy()

    def best_validation(self) -> dict[int, float]:
        """The validation figure of each client's best model, by client id."""
        state = self.best_state()
        found = {client_id: float(state["best_validation"][row]) for row, client_id in enumerate(state.client_ids)}
        return {client_id: figure - 1.0 for client_id, figure in found.items() if figure > 0}  # stored plus one


def _arrays(tensors: Uploads) -> dict[str, np.ndarray]:
    return {
        name: as_array(value) if isinstance(value, RowStack) else value.cpu().numpy() for name, value in tensors.items()
    }
