"""FedSage+'s clients (Zhang et al., NeurIPS 2021): graphs that are mended by generated neighbours.

Before the first round a client hides some of its nodes and trains a generator to restore them (``query.generator``).
Between these steps it exchanges gradients (``query.gradients``): it tells other clients how far what they generate is
from its nodes, and is told how far its generator's output is from theirs. Then it generates the neighbours that its
nodes may have elsewhere, and trains on the graph together with these. Generated nodes have no label and no role.

A client knows the ids of the nodes elsewhere that its own are tied to (``cross_edges``). FedSage+ does not use them; a
simulation measures generated neighbours by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.data.graph import ClientGraph, FeatureMatrix
from subfl_flower.models.adam import adam_state_shapes, adam_step
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.node.kept_arrays import Arrays
from subfl_flower.seeding import client_generator
from subfl_flower.subgraphs.mending.hidden_neighbours import hide_neighbours, missing_elsewhere
from subfl_flower.subgraphs.mending.mending_example import MendingExample, ScaledFeatures, feature_unit
from subfl_flower.subgraphs.mending.neighbour_generator import NeighbourGenerator, NeighbourGeneratorSettings
from subfl_flower.subgraphs.models.local_graph import LocalGraph
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Question

GENERATOR, GRADIENTS = "generator", "gradients"
"""The phases: a step of the client's generator; gradients of other clients' generators."""

_IN_TRAINING, _TRAINED = "generator-in-training", "generator"


class FedSagePlusClient(SubgraphClient):
    """Train a generator in answer to the server's questions, and then the model on the graph that it mends."""

    protects_uploads = False

    class Settings(SubgraphClient.Settings):
        """Knobs of the generator and its training.

        Attributes:
            weighting: as in FedAvg.
            exchanges: steps of the generators with gradients of all other clients; 0: every client trains its generator
                alone.
            generator: its widths and the weights of its loss.
            hidden_share: share of a client's nodes that are hidden for training, other nodes in every step.
            generator_epochs: full-batch steps on the client's own hidden nodes, before the exchange of gradients.
            generator_lr, generator_weight_decay: Adam's, for the generator.
            cross_weight: α, the weight of other clients' gradients.
        """

        weighting: Literal["examples", "uniform"] = "examples"
        exchanges: int = Field(default=10, ge=0)
        generator: NeighbourGeneratorSettings = NeighbourGeneratorSettings()
        hidden_share: float = Field(default=0.5, gt=0, lt=1)
        generator_epochs: int = Field(default=50, ge=0)
        generator_lr: float = Field(default=1e-3, gt=0)
        generator_weight_decay: float = Field(default=1e-3, ge=0)
        cross_weight: float = Field(default=1.0, ge=0)

    settings: Settings

    uses_edge_weights = False
    """Edges to generated neighbours have no weights."""

    # The mended graph -----------------------------------------------------------------------------------------------

    phases = (GENERATOR, GRADIENTS)
    graph_patch_name = _TRAINED

    def patched_graph(self, own: ClientGraph, kept: Arrays) -> LocalGraph:
        """The client's graph with generated neighbours."""
        return self.model.local_graph(self.with_generated(own, kept), num_own=own.num_nodes)

    def with_generated(self, own: ClientGraph, kept: Arrays) -> ClientGraph:
        """A client's graph with generated neighbours after its own nodes: the same at every call."""
        rng = client_generator(self.seed, own.client_id, 0, "generated neighbours")
        return self._generator.mend(own, self._tensors(kept), rng)

    # Answers --------------------------------------------------------------------------------------------------------

    def answer_of(self, client_id: int, question: Question) -> Stack:
        """One client's answer on its generator, or on the generators of others."""
        if question.phase == GENERATOR:
            return self._improved(question, client_id)
        return self._judged(question.received[client_id], client_id)

    def _improved(self, question: Question, client_id: int) -> Stack:
        """Train the generator, and send what others need to judge it; the last time, its quality."""
        progress = self._progress(client_id)
        cross = self._tensors(question.received[client_id])
        if not float(progress["steps"]):
            for _ in range(self.settings.generator_epochs):
                self._step(progress, client_id, {})
        if cross:
            self._step(progress, client_id, cross)
        parameters = {name: progress[f"parameter.{name}"] for name in self._generator.shapes}
        if question.about["last"]:
            self._keep(_TRAINED, question, client_id, parameters)
            self._keep(_IN_TRAINING, question, client_id, {})
            return self._measured(parameters, client_id)
        self._keep(_IN_TRAINING, question, client_id, progress)
        step = int(progress["steps"])
        rng = client_generator(self.seed, client_id, step, "outgoing embeddings")
        noisy, counts = self._generator.outgoing(parameters, self._example(client_id, step).surroundings, rng)
        return {
            **{name: parameters[name].cpu().numpy() for name in self._generator.decoder_names},
            "noisy": noisy.cpu().numpy(),
            "counts": counts.cpu().numpy().astype(np.uint8),
            "unit": np.array([feature_unit(self._own(client_id).features)], dtype=np.float32),
        }

    def _step(self, progress: dict[str, Tensor], client_id: int, cross: Mapping[str, Tensor]) -> None:
        """Take one Adam step, in place, on the client's own loss and other clients' gradients."""
        parameters = {name: progress[f"parameter.{name}"] for name in self._generator.shapes}
        step = int(progress["steps"])
        rng = client_generator(self.seed, client_id, step, "generator noise")
        _, gradients = self._generator.local_gradients(parameters, self._example(client_id, step), rng)
        for name, gradient in cross.items():
            gradients[name] = gradients[name] + self.settings.cross_weight * gradient
        state = {name: progress[name].unsqueeze(0) for name in adam_state_shapes(self._generator.shapes)}
        adam_step(
            {name: value.unsqueeze(0) for name, value in parameters.items()},
            {name: value.unsqueeze(0) for name, value in gradients.items()},
            state,
            OptimizerSettings(
                name="adam", lr=self.settings.generator_lr, weight_decay=self.settings.generator_weight_decay
            ),
        )

    def _judged(self, received: Stack, client_id: int) -> Stack:
        """Gradients of other clients' decoders, by the distance of what each generates from this client's nodes."""
        features = self._own(client_id).features
        found: Stack = {}
        for other in dict.fromkeys(name.partition("/")[0] for name in received):
            decoder = self._tensors({name: received[f"{other}/{name}"] for name in self._generator.decoder_names})
            noisy, counts = (torch.from_numpy(received[f"{other}/{name}"].copy()) for name in ("noisy", "counts"))
            gradients = self._generator.cross_gradients(
                decoder,
                noisy.to(self.cohort.device),
                counts.long().to(self.cohort.device),
                ScaledFeatures.of(features, float(received[f"{other}/unit"][0]), self.cohort.device),
            )
            found |= {f"{other}/{name}": gradient for name, gradient in gradients.items()}
        return found

    def _measured(self, parameters: Mapping[str, Tensor], client_id: int) -> Stack:
        """Number of generated neighbours; in a simulation also their distance from the true ones."""
        own = self._own(client_id)
        kept = self.store.kept.get(client_id, _TRAINED)
        added = self.with_generated(own, kept).num_nodes - own.num_nodes
        if self._all_features is None:
            return {"figures": np.array([0, np.nan, np.nan, np.nan, added])}
        rng = client_generator(self.seed, client_id, 0, "measured neighbours")
        found = self._generator.distance_to_hidden(parameters, missing_elsewhere(own), self._all_features, rng)
        return {"figures": np.array([found.vectors, found.generated, found.mean_feature, found.neighbour_mean, added])}

    @cached_property
    def _all_features(self) -> FeatureMatrix | None:
        """Features of all nodes of the whole graph, where the node has it."""
        return None if self.cohort.whole is None else self.cohort.whole()[0].features

    # What they are made of ------------------------------------------------------------------------------------------

    @property
    def _generator(self) -> NeighbourGenerator:
        classes = self.cohort.num_classes if self.cohort.task.needs_labels else 0
        return NeighbourGenerator(self.settings.generator, self.cohort.num_features, classes)

    def _own(self, client_id: int) -> ClientGraph:
        return self.cohort.visible[self.position_of[client_id]]

    def _example(self, client_id: int, step: int) -> MendingExample:
        own = self._own(client_id)
        rng = client_generator(self.seed, client_id, step, "hidden nodes")
        return MendingExample.of(own, hide_neighbours(own, self.settings.hidden_share, rng), self.cohort.device)

    def _progress(self, client_id: int) -> dict[str, Tensor]:
        """Parameters and Adam's state; initial ones where training has not begun."""
        if self.store.kept.round_of(client_id, _IN_TRAINING) is not None:
            return self._tensors(self.store.kept.get(client_id, _IN_TRAINING))
        rng = client_generator(self.seed, client_id, 0, "initial generator")
        initial = self._generator.initial(rng, self._own(client_id).features)
        state = {name: np.zeros(shape, np.float32) for name, shape in adam_state_shapes(self._generator.shapes).items()}
        return self._tensors({**{f"parameter.{name}": value for name, value in initial.items()}, **state})

    def _keep(self, name: str, question: Question, client_id: int, tensors: Mapping[str, Tensor]) -> None:
        arrays = {key: value.cpu().numpy() for key, value in tensors.items()}
        self.store.kept.put(client_id, name, question.server_round, arrays)

    def _tensors(self, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.array(values)).to(self.cohort.device) for name, values in arrays.items()}
