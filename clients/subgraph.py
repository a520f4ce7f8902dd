r"""A cohort of subgraph clients that train a graph network on their own nodes.

Each client minimises, over its own training nodes,

.. math:: L(\theta) + \lambda_2 \lVert \theta - \bar\theta_i \rVert^2,

with full-batch Adam whose state stays with the client. :math:`\bar\theta_i` is what the server sent; ``proximal`` = 0
leaves the plain local step of FedAvg (McMahan et al., 2017), ``proximal`` = µ/2 is FedProx (Li et al., 2020). Layers
named in ``personal_layers`` are trained and never leave the client: with the classifier alone that is FedPer
(Arivazhagan et al., 2019).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError
from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.chunk import GraphChunk
from subfl_flower.models.graph_models import graph_network, network_class
from subfl_flower.models.local_graph import LocalGraph
from subfl_flower.models.settings import GraphModelSettings, OptimizerSettings
from subfl_flower.models.stacked_gnn import Parameters, layer_parameters
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.runtime.cohort_client import CohortClient, Worked, merged_metrics, work_in_chunks
from subfl_flower.runtime.kept_arrays import Arrays
from subfl_flower.runtime.state import CohortState, StateStore
from subfl_flower.seeding import client_generator
from subfl_flower.tasks import Examples

Shapes = dict[str, tuple[int, ...]]
Value = TypeVar("Value")

# What was received is a read-only view of the message's bytes, and nothing writes to it.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


class SubgraphClient(CohortClient):
    """Trains a graph network on the graphs of a node's clients."""

    class Settings(CohortClient.Settings):
        """Knobs of the local objective.

        Attributes:
            proximal: weight of the squared distance to the received parameters, from round 2 on.
            personal_layers: layers that stay with the client.
            weight_decay: replaces the optimiser's; null keeps it.
        """

        proximal: float = Field(default=0.0, ge=0)
        personal_layers: tuple[str, ...] = ()
        weight_decay: float | None = Field(default=None, ge=0)

    settings: Settings

    networks: ClassVar[tuple[str, ...]] = ()
    """The networks that the family works with, by the name of their settings; none: all."""

    mended_by: ClassVar[str | None] = None
    """Under which name a client keeps what its graph is mended by; None: it trains on what it holds."""

    @classmethod
    def check_model(cls, model: Any, method: str) -> None:
        """It must be one of `networks`, and what it names must be there."""
        if cls.networks and model.name not in cls.networks:
            raise SubflError(f"method={method} is for model={' or '.join(cls.networks)}, not for model={model.name}")
        network_class(model).check(model)

    def __init__(
        self,
        cohort: Cohort,
        settings: CohortClient.Settings,
        model: GraphModelSettings,
        optimizer: OptimizerSettings,
        seed: int,
        store: StateStore,
    ) -> None:
        super().__init__(cohort, settings, model, optimizer, seed, store)
        if self.settings.weight_decay is not None:
            self.optimizer = optimizer.model_copy(update={"weight_decay": self.settings.weight_decay})
        self.model = graph_network(model, cohort.num_features, cohort.num_outputs)
        own = self.own_parameters()
        self.own_shapes = {**{name: self.model.shapes[name] for name in own}, **self.model.buffer_shapes}
        self.shared_shapes = {name: shape for name, shape in self.model.shapes.items() if name not in own}
        trainable = self._trainable({**self.shared_shapes, **self.personal_shapes()})
        worked_on: Shapes = {
            **adam_state_shapes(trainable),
            **{f"personal.{name}": shape for name, shape in self.personal_shapes().items()},
        }
        self._worked_on = tuple(worked_on)
        self._best_shapes: Shapes = {
            **{f"best.{name}": shape for name, shape in self.model.tensor_shapes.items()},
            "best_validation": (),
        }
        self._state_shapes: Shapes = {**worked_on, **self._best_shapes}
        self._chunks: dict[tuple[int, ...], tuple[tuple[int, ...], GraphChunk]] = {}
        self._chunk_size = cohort.chunk_size(
            sum(int(np.prod(shape)) for shape in trainable.values()), self.model.widest
        )

    @property
    def parameter_names(self) -> Sequence[str]:
        """Names of the model's parameters that are shared."""
        return tuple(self.shared_shapes)

    # What a method changes ------------------------------------------------------------------------------------------

    def own_parameters(self) -> tuple[str, ...]:
        """Names of the model's parameters that stay with the client."""
        return layer_parameters(self.model.shapes, self.settings.personal_layers)

    def personal_shapes(self) -> Shapes:
        """Per-client shapes of the parameters that are trained but never leave the client."""
        return dict(self.own_shapes)

    def initial_personal(self, chunk: GraphChunk) -> dict[str, Tensor]:
        """First values of the personal parameters, each [C, ...]: all clients' personal layers start alike."""
        if not self.own_shapes:
            return {}
        initial = {**self.model.initial_of(self.seed), **self.model.initial_buffers_of(self.seed)}
        return {
            name: torch.from_numpy(initial[name]).to(self.cohort.device).expand(len(chunk), *shape)
            for name, shape in self.own_shapes.items()
        }

    def effective(self, shared: Parameters, personal: Parameters, *, pruned: bool) -> Parameters:
        """The model's parameters as made from shared and personal ones; `pruned` as used outside training."""
        return {**shared, **{name: personal[name] for name in self.own_shapes}}

    def add_penalty_gradients(
        self,
        gradients: dict[str, Tensor],
        shared: Parameters,
        personal: Parameters,
        received: Parameters,
        chunk: GraphChunk,
        server_round: int,
    ) -> None:
        """Add the gradients of the local objective's penalties, in place."""
        if self.settings.proximal and server_round > 1:
            for name, value in shared.items():
                gradients[name].add_(value.detach() - received[name], alpha=2 * self.settings.proximal)

    def learning_rates(self) -> dict[str, float]:
        """Learning rates of single parameters that differ from the optimiser's."""
        return {}

    def uploads(
        self, shared: Parameters, personal: Parameters, effective: Parameters, chunk: GraphChunk
    ) -> dict[str, Tensor]:
        """What is sent to the server: the parameters, then `extra_uploads`. Zeros do not travel."""
        return dict(shared)

    def graph_version(self, position: int) -> int:
        """The round before which a client was told what its graph is mended by; 0 where it is not."""
        if self.mended_by is None:
            return 0
        return self.store.kept.round_of(self.cohort.client_ids[position], self.mended_by) or 0

    def local_graph(self, position: int) -> LocalGraph:
        """What a client's model is computed on: what it holds, as far as the task lets it be seen, mended or not."""
        own = self.cohort.visible[position]
        if self.mended_by is None or not self.graph_version(position):
            return self.model.local_graph(own)
        return self.mended_graph(own, self.store.kept.get(own.client_id, self.mended_by))

    def mended_graph(self, own: ClientGraph, kept: Arrays) -> LocalGraph:
        """What a client holds, mended by what it has kept under `mended_by`."""
        return self.model.local_graph(own)

    def mended(self, client_id: int) -> bool:
        """Whether a client's graph is mended."""
        return self.graph_version(self.cohort.client_ids.index(client_id)) > 0

    def graph_chunk(self, positions: Sequence[int]) -> GraphChunk:
        """The stacked local graphs of some clients, prepared where they are new or have changed."""
        key, versions = tuple(positions), tuple(self.graph_version(position) for position in positions)
        if key not in self._chunks or self._chunks[key][0] != versions:
            graphs = [self.local_graph(position) for position in positions]
            self._chunks[key] = versions, self.model.stacked(graphs, self.cohort.device)
        return self._chunks[key][1]

    # A round --------------------------------------------------------------------------------------------------------

    def fit(
        self, parameters: list[np.ndarray], config: Mapping[str, Any]
    ) -> tuple[list[np.ndarray], int, dict[str, Any]]:
        """One round of local training; see `CohortClient.fit`."""
        positions = {client_id: position for position, client_id in enumerate(self.cohort.client_ids)}
        self.announced = config
        received = self._received(parameters, len(config["clients"]))
        row_of = {positions[client_id]: row for row, client_id in enumerate(config["clients"])}
        state = self.store.open(self.cohort.client_ids, self._state_shapes)
        parts, failures = work_in_chunks(
            list(self.cohort.split(sorted(row_of), self._chunk_size)),
            lambda chosen: self._train_chunk(chosen, _rows(received, [row_of[p] for p in chosen]), state, config),
            self.cohort.client_ids,
        )
        self.store.commit(state)
        names = (*self.parameter_names, *self.extra_uploads)
        arrays = [_joined([part.uploads[name] for part in parts]) for name in names] if parts else []
        merged = merged_metrics(parts, failures, self.cohort.client_ids)
        return arrays, int(sum(merged.get("num_examples", []))), merged

    def _received(self, parameters: list[np.ndarray], num_clients: int) -> dict[str, np.ndarray]:
        """The received parameters by name; a fused step on a wrong shape would bring the whole process down."""
        received = dict(zip(self.parameter_names, parameters, strict=True))
        for name, values in received.items():
            expected = (num_clients, *self.shared_shapes[name])
            if values.shape != expected:
                raise SubflError(f"the server sent {name} with the shape {values.shape}, where {expected} belongs")
        return received

    def _train_chunk(
        self, positions: Sequence[int], received: dict[str, Tensor], state: CohortState, config: Mapping[str, Any]
    ) -> Worked:
        """Evaluate what was received, train, evaluate again: uploads and metrics of a chunk."""
        device = self.cohort.device
        chunk, examples = self.graph_chunk(positions), self.cohort.examples(positions)
        held_out = self._held_out(positions)
        fresh = [row for row, position in enumerate(positions) if state.is_fresh(position)]
        with state.rows(positions, device, self._worked_on) as personal_state:
            if fresh:
                self._initialise(personal_state, chunk, fresh)
            shared = {name: value.to(device, copy=True) for name, value in received.items()}
            received = {name: value.to(device) for name, value in received.items()}
            personal = {name: personal_state[f"personal.{name}"] for name in self.personal_shapes()}
            as_received = self.effective(shared, personal, pruned=True)
            validation_received, test_received = held_out.evaluate(self._outputs(as_received, chunk))
            loss = self._train(shared, personal, received, personal_state, chunk, examples, config)
            effective = self.effective(shared, personal, pruned=True)
            outputs = self._outputs(effective, chunk)
            validation, test = held_out.evaluate(outputs)
            with torch.no_grad():
                uploads = self.uploads(shared, personal, effective, chunk)
        self._keep_best(state, positions, effective, validation)
        arrays = {name: value.cpu().numpy() for name, value in uploads.items()}
        metrics = {
            "validation": validation,
            "test": test,
            "validation_as_received": validation_received,
            "test_as_received": test_received,
            "train_loss": loss,
            "num_examples": torch.tensor([self.cohort.num_examples[position] for position in positions]),
            **held_out.figures(outputs),
            **self.extra_metrics(effective),
        }
        measured = {name: value.cpu().numpy() for name, value in metrics.items()}
        return Worked(list(positions), arrays, {}, measured)

    def _train(
        self,
        shared: dict[str, Tensor],
        personal: dict[str, Tensor],
        received: Parameters,
        state: dict[str, Tensor],
        chunk: GraphChunk,
        examples: Examples,
        config: Mapping[str, Any],
    ) -> Tensor:
        """`local_epochs` full-batch steps in place; the last training loss [C]."""
        server_round = int(config["round"])
        dropped, sampled = (
            [client_generator(self.seed, client_id, server_round, purpose) for client_id in chunk.client_ids]
            for purpose in ("dropout", "examples")
        )
        trainable = self._trainable({**shared, **personal})
        losses = torch.zeros(len(chunk))
        for _ in range(int(config["local_epochs"])):
            draws = self.model.training_draws(chunk, dropped, self.cohort.device)
            leaves = {name: value.detach().requires_grad_() for name, value in trainable.items()}
            effective = self.effective(
                {name: leaves[name] for name in shared},
                {name: leaves.get(name, personal[name]) for name in personal},
                pruned=False,
            )
            losses = examples.losses(self.model(effective, chunk, draws), sampled)
            if not bool(torch.isfinite(losses).all()):
                bad = [chunk.client_ids[row] for row in torch.nonzero(~torch.isfinite(losses)).flatten().tolist()]
                raise FloatingPointError(f"the training loss of client {bad[0]} is not finite")
            found = torch.autograd.grad(losses.sum(), list(leaves.values()), materialize_grads=True)
            gradients = dict(zip(leaves, found, strict=True))
            with torch.no_grad():
                self.add_penalty_gradients(gradients, shared, personal, received, chunk, server_round)
                adam_step(trainable, gradients, state, self.optimizer, self.learning_rates())
        return losses.detach()

    def _trainable(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """What of the shared and personal values is trained: all but the network's buffers."""
        return {name: value for name, value in values.items() if name not in self.model.buffer_shapes}

    def extra_metrics(self, effective: Parameters) -> dict[str, Tensor]:
        """Further metrics of a chunk, each [C]."""
        return {}

    @torch.no_grad()
    def _outputs(self, effective: Parameters, chunk: GraphChunk) -> Tensor:
        """The model's outputs at clients' nodes, which are measured: [C, width, outputs]."""
        return self.model(effective, chunk)

    def _held_out(self, positions: Sequence[int]) -> Examples:
        """The examples that a chunk's outputs are measured on."""
        return self.cohort.examples(positions)

    def _initialise(self, state: dict[str, Tensor], chunk: GraphChunk, fresh: Sequence[int]) -> None:
        for name, values in self.initial_personal(chunk).items():
            state[f"personal.{name}"][fresh] = values[fresh]

    def _keep_best(
        self, state: CohortState, positions: Sequence[int], effective: Parameters, validation: Tensor
    ) -> None:
        """Remember the models of clients whose validation figure is higher than ever."""
        # Stored plus one, so that the zero of a new state is below any figure; rounded as stored, so that equals tie.
        scores = (1.0 + torch.nan_to_num(validation, nan=0.0).float()).tolist()
        for row, position in enumerate(positions):
            if scores[row] > float(state["best_validation"][position]):
                with state.replacing(position):
                    state["best_validation"][position] = scores[row]
                    for name, value in effective.items():
                        state[f"best.{name}"][position].copy_(value[row])

    def best_models(self) -> dict[int, dict[str, np.ndarray]]:
        """Each client's model at its best validation round, as used outside training, by client id."""
        return self._models_in(self.store.open(self.cohort.client_ids, self._state_shapes))

    def best_validation(self) -> dict[int, float]:
        """The validation figure of each client's best model, by client id."""
        return self._validation_in(self.store.open(self.cohort.client_ids, self._state_shapes))

    def _validation_in(self, state: CohortState) -> dict[int, float]:
        # A figure is stored plus one.
        return {
            client_id: float(state["best_validation"][position]) - 1.0
            for position, client_id in enumerate(state.client_ids)
            if float(state["best_validation"][position]) > 0
        }

    def _models_in(self, state: CohortState) -> dict[int, dict[str, np.ndarray]]:
        return {
            client_id: {name: state[f"best.{name}"][position].cpu().numpy().copy() for name in self.model.tensor_shapes}
            for position, client_id in enumerate(state.client_ids)
            if not state.is_fresh(position)
        }


def _rows(stack: Mapping[str, np.ndarray], rows: list[int]) -> dict[str, Tensor]:
    """Some rows of a stack as tensors, without a copy where they lie side by side."""
    adjacent = rows == list(range(rows[0], rows[0] + len(rows)))
    chosen: Any = slice(rows[0], rows[0] + len(rows)) if adjacent else rows
    return {name: torch.from_numpy(values[chosen]) for name, values in stack.items()}


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
