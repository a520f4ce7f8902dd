"""Clients that hold subgraphs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from subfl_flower.config import Config
from subfl_flower.data.data_facts import DataFacts
from subfl_flower.data.datasets import DatasetSettings
from subfl_flower.data.description import describe_client_graph
from subfl_flower.data.folders.described_folder import open_folders
from subfl_flower.data.folders.subgraph_folder import ClientDescription, ClientFolder, write_client_folder
from subfl_flower.data.graph import ClientGraph
from subfl_flower.data.partitions import WholePartition
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import GraphModel
from subfl_flower.node.client import CohortClient
from subfl_flower.node.domain import Domain, ModelWriter, NodeSecrets
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.registry import client_class
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.models.choices import graph_network, network_class
from subfl_flower.subgraphs.models.exported import ExportedModel, ModelCard
from subfl_flower.subgraphs.models.graph_network import GraphNetwork
from subfl_flower.tasks.choices import GraphTask
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.roster import Shape


class GraphSections(NamedTuple):
    """Sections of a configuration for data that are a graph."""

    dataset: DatasetSettings
    task: GraphTask
    model: GraphModel


def graph_sections(config: Config) -> GraphSections | None:
    """Sections of a configuration for data that are a graph; None for other data."""
    dataset, task, model = config.dataset, config.task, config.model
    if not isinstance(dataset, DatasetSettings) or not isinstance(task, GraphTask):
        return None
    if not isinstance(model, GraphModel):
        return None
    return GraphSections(dataset, task, model)


class Subgraphs(Domain):
    """Subgraphs."""

    def prepare(self, config: Config) -> PreparedPartition:
        """Prepare a partition of the graph.

        Raises:
            SubflError: it cannot be prepared, or its edges have weights that the method does not use.
        """
        dataset, task, _ = _sections(config)
        prepared = prepare(
            dataset, config.partition, config.data.root, config.data.cache, task.needs_labels, config.disturbance
        )
        _require_use_of_weights(config, map(prepared.client, range(1)))  # all of a partition have weights, or none
        task.require_measurable(map(prepared.client, range(prepared.num_clients)))
        return prepared

    def inspect(self, config: Config) -> tuple[dict[str, Any], str | None]:
        """Facts on the graph and its partition; on the graph as one client where it cannot be partitioned."""
        dataset, root, cache = _sections(config).dataset, config.data.root, config.data.cache
        try:
            return self.prepare(config).data, None
        except SubflError as error:
            problem = str(error)
        for partition in (config.partition, WholePartition()):
            try:
                return prepare(dataset, partition, root, cache, require_labels=False).data, problem
            except SubflError:
                continue
        raise SubflError(problem)

    def about(self, prepared: PreparedPartition) -> dict[str, Any]:
        """Width, classes, and whether subgraphs may share nodes."""
        names = DataFacts.of(prepared).names_digest
        return _about(prepared, prepared.key, prepared.num_clients, prepared.overlapping, names)

    def schema_sizes(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers of features and classes."""
        return {"features": about["num_features"], "classes": about["num_classes"]}

    def remarks_for_site(self, prepared: PreparedPartition) -> list[str]:
        """Remarks on missing values that a site fills from its data alone, and on columns that are not scaled there."""
        transform = prepared.transform
        if transform is None:
            return []
        graph, _ = prepared.graph()
        filled = []
        if transform.fill is not None:
            filled.append("missing numbers are filled by this site's own nodes; another site fills in other numbers")
        names = transform.feature_names
        if names is None or transform.scale is not None or transform.row_normalize:
            return filled
        features = sp.csc_array(graph.features)
        columns = np.repeat(np.arange(len(names)), np.diff(features.indptr))[features.data != 1]
        if not columns.size:
            return filled
        named = ", ".join(names[column] for column in np.unique(columns))
        return [
            *filled,
            f"{named} are not scaled: common means would need sums over all sites, which others would see. Where all "
            "sites know common means and scales, apply them to the tables",
        ]

    def cohort(
        self,
        config: Config,
        prepared: PreparedPartition,
        client_ids: Sequence[int],
        device: torch.device,
        key: SharedKey,
    ) -> Cohort:
        """The clients' subgraphs."""
        return Cohort.load(prepared, client_ids, device, config.runtime.chunk, _sections(config).task, key)

    def open_folders(self, paths: Sequence[Path]) -> Sequence[ClientFolder]:
        """Open folders with a graph."""
        return open_folders(ClientFolder, paths)

    def read_folder(self, folder: ClientFolder) -> None:
        """Read the folder's graph."""
        folder.graph()

    def facts(self, folder: ClientFolder) -> dict[str, Any]:
        """Sizes, classes and roles of the folder's graph."""
        return describe_client_graph(folder.graph(), folder.description.classes)

    def about_folders(self, folders: Sequence[ClientFolder]) -> dict[str, Any]:
        """Width, classes, and whether subgraphs may share nodes."""
        first = folders[0].description
        overlapping = any(folder.description.overlapping for folder in folders)
        return _about(first, first.partition, first.num_clients or 0, overlapping, first.names_digest)

    def cohort_of_folders(
        self, config: Config, folders: Sequence[ClientFolder], device: torch.device, secrets: NodeSecrets
    ) -> Cohort:
        """The subgraphs in the folders.

        Raises:
            SubflError: they have edge weights, and the method does not use them.
        """
        graphs = tuple(folder.graph() for folder in folders)
        _require_use_of_weights(config, graphs)
        return Cohort(
            graphs=graphs,
            num_features=folders[0].description.num_features,
            num_classes=folders[0].description.num_classes,
            device=device,
            chunk=config.runtime.chunk,
            task=_sections(config).task,
            shared_key=SharedKey(folders[0].key_path),
            facts=folders[0].description.facts,
        )

    def write_folder(
        self, path: Path, config: Config, prepared: PreparedPartition, position: int, key: bytes, own_id: int | None
    ) -> None:
        """Write the client's graph."""
        graph, names = prepared.client(position), prepared.node_names()
        write_client_folder(
            path,
            graph if own_id is None else replace(graph, client_id=own_id),
            dataset=config.dataset.name,
            partition=prepared.key if own_id is None else "",
            num_clients=prepared.num_clients if own_id is None else None,
            overlapping=prepared.overlapping,
            key=key,
            facts=DataFacts.of(prepared),
            names=None if names is None else names[graph.node_ids],
        )

    def described(self, path: Path) -> dict[str, int]:
        """Numbers of nodes, edges and roles in a folder."""
        said = ClientFolder.open(path).description
        sizes = {"client": said.client_id, "nodes": said.num_nodes, "directed edges": said.num_edges}
        return {**sizes, "train": said.train, "validation": said.validation, "test": said.test}

    def network(self, config: Config, shape: Shape) -> GraphNetwork[Any]:
        """The graph network that the clients train."""
        _, task, model = _sections(config)
        return graph_network(model, shape.num_features, task.num_outputs(shape.num_classes))

    def initial_parameters(self, config: Config, shape: Shape) -> Mapping[str, np.ndarray]:
        """Initial parameters of the graph network."""
        return self.network(config, shape).initial_of(config.seed)

    def export(self, node: ModelWriter, client: CohortClient, last: Batch) -> None:
        """Write a file for each client: its network and a card."""
        config, cohort = node.config, client.cohort
        _, task, model = _sections(config)
        validation = client.best_validation()
        for client_id, tensors in client.models(last).items():
            card = ModelCard(
                model=model,
                task=task,
                num_features=cohort.num_features,
                num_classes=cohort.num_classes,
                dataset=config.dataset.name,
                client=client_id,
                method=config.method.name,
                run=node.run_id,
                round=last.server_round,
                validation=validation.get(client_id),
                mended=client.mended(client_id),
                **dict(cohort.facts),
            )
            node.write_model(client_id, ExportedModel(tensors, card))


def _about(
    sizes: PreparedPartition | ClientDescription, partition: str, num_clients: int, overlapping: bool, names: str
) -> dict[str, Any]:
    return {
        "partition": partition,
        "num_clients": num_clients,
        "num_features": sizes.num_features,
        "num_classes": sizes.num_classes,
        "overlapping": overlapping,
        "names": names,
        "user_values": [],
        "item_values": [],
    }


def _sections(config: Config) -> GraphSections:
    sections = graph_sections(config)
    if sections is None:  # `registry.validate` has found all to be for graphs, as a class of somebody else's says
        raise SubflError(f"task={config.task.name}: a task on graphs must be a subclass of GraphTask")
    return sections


def _require_use_of_weights(config: Config, graphs: Iterable[ClientGraph]) -> None:
    """Raise SubflError where graphs have edge weights and the method's clients or their network would not use them."""
    model = _sections(config).model
    idle = None if client_class(config.method).uses_edge_weights else f"method={config.method.name}"
    if idle is None and not network_class(model).reads_edge_weights(model):
        idle = f"model={model}"
    if idle is not None and any(graph.edge_weight is not None for graph in graphs):
        raise SubflError(f"{idle} does not use edge weights; dataset.edge_weights=ignore leaves them out")
