"""A simulation's run, in which every client predicts the nodes of its graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from subfl_flower.commands.predictions.nodes import NodePredictions, labels_as_trained, model_outputs, node_predictions
from subfl_flower.commands.tables import with_progress
from subfl_flower.data.data_facts import DataFacts
from subfl_flower.data.description import class_names
from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.prepared.partition import PreparedPartition
from subfl_flower.errors import SubflError
from subfl_flower.registry import stored_config
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.storage.fingerprints import require_same_data
from subfl_flower.subgraphs.domain import Subgraphs, graph_sections
from subfl_flower.subgraphs.models.exported import ModelCard, read_model


@dataclass(frozen=True, eq=False)
class PredictedClient:
    """A client's graph, its model's card and the model's predictions."""

    graph: ClientGraph
    card: ModelCard
    predictions: NodePredictions


@dataclass(frozen=True, eq=False)
class RunToPredict:
    """A run on a graph, together with its data, prepared again.

    Attributes:
        directory: the run directory.
        prepared: the data.
        models: the file of each client's model, by client id.
    """

    directory: RunDirectory
    prepared: PreparedPartition
    models: Mapping[int, Path]

    @classmethod
    def open(cls, path: Path) -> RunToPredict:
        """Open a run directory of a simulation, and prepare its data.

        Raises:
            SubflError: it is no run on a graph, wrote no models, does not classify nodes, or its data cannot be
                prepared or have changed since.
        """
        directory = RunDirectory(path)
        config = stored_config(path)
        sections = graph_sections(config)
        if sections is None:
            raise SubflError(f"{path} is a run on ratings; use subfl recommend {path} client=ID")
        if not sections.task.classifies_nodes:
            raise SubflError(
                f"{path} is a run of task={config.task.name}; name a client's model, {path}/clients/0000.safetensors, "
                "its graph, and --pairs"
            )
        models = directory.client_models()
        if not models:
            raise SubflError(
                f"{path} holds no models: it has not ended, record.client_models is false, or it is a "
                "deployment, whose clients keep theirs on their own machines"
            )
        prepared, before = Subgraphs().prepare(config), directory.data()
        if before is not None:
            require_same_data(prepared.data, before, str(path), "predict")
        return cls(directory, prepared, models)

    @property
    def num_nodes(self) -> int:
        """Number of nodes of all clients with a model; a node that two clients hold counts twice."""
        return sum(client["nodes"] for number, client in enumerate(self._clients) if number in self.models)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Remarks on clients that are left out."""
        lacking = [str(client) for client in range(self.prepared.num_clients) if client not in self.models]
        return (f"no row for clients without a model: {', '.join(lacking)}",) if lacking else ()

    def clients(self) -> Iterator[PredictedClient]:
        """Every client with a model, with its predictions, by client id.

        Raises:
            SubflError: a model cannot be read, or was trained on other data than the present ones.
        """
        names, facts = self.prepared.node_names(), DataFacts.of(self.prepared)
        for client_id in with_progress(sorted(self.models), "clients"):
            parameters, card = read_model(self.models[client_id])
            if card.data != facts.data:
                raise SubflError(
                    f"the data are not those of {self.directory.path}: {self.models[client_id]} was trained on others"
                )
            graph = self.prepared.client(client_id)
            called = class_names(graph.num_classes, facts.classes)
            labels = labels_as_trained(graph.labels, called, card, str(self.prepared.directory))
            outputs = model_outputs(parameters, card, graph)
            ids = graph.node_ids if names is None else names[graph.node_ids]
            yield PredictedClient(graph, card, node_predictions(outputs, card, ids, labels))

    @property
    def _clients(self) -> list[dict[str, int]]:
        clients: list[dict[str, int]] = self.prepared.metadata["clients"]
        return clients
