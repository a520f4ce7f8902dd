"""The kinds of data that clients hold: each has its own preparation, folders, cohort and model.

Everything else of a federation is the same for all of them. A configuration's data set, partition, task, model and
client family are of one kind; `config.validate` sees to that.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from subfl_flower.config import Config
from subfl_flower.data.client_folder import ClientFolder, open_client_folders, write_client_folder
from subfl_flower.data.datasets import DatasetSettings
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.prepared import PreparedPartition, prepare
from subfl_flower.data.ratings.prepared import PreparedRatings, prepare_ratings
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.data.ratings.user_folder import UserFolder, open_user_folders, write_user_folder
from subfl_flower.models.exported import ModelCard
from subfl_flower.models.gcn import StackedGCN
from subfl_flower.models.recommender import StackedRecommender
from subfl_flower.models.recommender_file import Recommender, RecommenderCard
from subfl_flower.models.settings import ModelSettings, RecommenderSettings
from subfl_flower.runtime.cohort import Cohort
from subfl_flower.runtime.cohort_client import CohortClient, Hosted
from subfl_flower.runtime.messages import Stack
from subfl_flower.runtime.shared_key import SharedKey
from subfl_flower.runtime.user_cohort import UserCohort
from subfl_flower.tasks import GraphTask, LinkPrediction, NodeClassification

Folder = ClientFolder | UserFolder


class Prepared(Protocol):
    """All clients' data, prepared for a simulation."""

    @property
    def key(self) -> str:
        """What tells it from others."""

    @property
    def num_clients(self) -> int:
        """How many clients it is for."""


@dataclass(frozen=True)
class Trusted:
    """What a machine of its own knows beside its clients' folders.

    Attributes:
        run_id: of the run.
        places: a folder of each client's own that can be written to, by client id.
        matcher_key: the matcher's public key; None: what the server says.
    """

    run_id: str
    places: Mapping[int, Path]
    matcher_key: bytes | None = None


class ModelWriter(Protocol):
    """A node, as far as its clients' models are concerned."""

    config: Config
    run_id: str

    def write_model(self, client_id: int, tensors: dict[str, np.ndarray], card: ModelCard) -> None:
        """Write a client's model where it belongs."""

    def write_recommender(self, trained: Recommender) -> None:
        """Write a recommender and its users where they belong."""


class Kind(ABC):
    """One kind of data."""

    @abstractmethod
    def prepare(self, config: Config) -> Prepared:
        """All clients' data, as a simulation needs them."""

    @abstractmethod
    def about(self, prepared: Any) -> dict[str, Any]:
        """What the roster says of prepared data, but for the data set's name."""

    @abstractmethod
    def cohort(
        self, config: Config, prepared: Any, client_ids: Sequence[int], device: torch.device, key: SharedKey
    ) -> Hosted:
        """Some clients of a simulation, with their data read."""

    @abstractmethod
    def open_folders(self, paths: Sequence[Path]) -> Sequence[Folder]:
        """The folders of clients that one node hosts, by ascending client id."""

    @abstractmethod
    def read_folder(self, folder: Any) -> None:
        """Read what a folder holds; SubflError where it is damaged."""

    @abstractmethod
    def about_folders(self, folders: Sequence[Any]) -> dict[str, Any]:
        """What the roster says of the data in folders, but for the data set's name."""

    @abstractmethod
    def cohort_of_folders(
        self, config: Config, folders: Sequence[Any], device: torch.device, trusted: Trusted
    ) -> Hosted:
        """The clients whose folders these are, with their data read."""

    @abstractmethod
    def write_folder(
        self, path: Path, config: Config, prepared: Any, position: int, key: bytes, own_id: int | None
    ) -> None:
        """Write one client's folder.

        Args:
            path: of the folder; must not exist.
            config: names the data set.
            prepared: all clients' data.
            position: of the client.
            key: the clients' shared key.
            own_id: the client's id where a site makes the folder of its own data; None: its position.
        """

    @abstractmethod
    def described(self, path: Path) -> dict[str, int]:
        """The sizes of what a folder holds, by the heading of a table's column."""

    @abstractmethod
    def initial_parameters(self, config: Config, num_features: int, num_classes: int) -> Mapping[str, np.ndarray]:
        """What a federation starts from, each without a client axis."""

    @abstractmethod
    def export(self, node: ModelWriter, client: CohortClient, last_round: int, received: Stack) -> None:
        """Have a node write its clients' best models.

        Args:
            node: where they are to be written.
            client: who trained them.
            last_round: the last that was trained.
            received: what of them the server has, without a client axis.
        """


class Graphs(Kind):
    """Subgraphs."""

    def prepare(self, config: Config) -> PreparedPartition:
        """A partition of the graph."""
        dataset, task = config.dataset, _graph_task(config)
        assert isinstance(dataset, DatasetSettings)
        return prepare(dataset, config.partition, config.data.root, config.data.cache, task.needs_labels)

    def about(self, prepared: PreparedPartition) -> dict[str, Any]:
        """Width, classes, and whether subgraphs may share nodes."""
        return {
            "partition": prepared.key,
            "num_clients": prepared.num_clients,
            "num_features": prepared.num_features,
            "num_classes": prepared.num_classes,
            "overlapping": prepared.overlapping,
        }

    def cohort(
        self,
        config: Config,
        prepared: PreparedPartition,
        client_ids: Sequence[int],
        device: torch.device,
        key: SharedKey,
    ) -> Cohort:
        """Their subgraphs."""
        return Cohort.load(prepared, client_ids, device, config.runtime.chunk, _graph_task(config), key)

    def open_folders(self, paths: Sequence[Path]) -> Sequence[ClientFolder]:
        """Folders with a graph."""
        return open_client_folders(paths)

    def read_folder(self, folder: ClientFolder) -> None:
        """Its graph."""
        folder.graph()

    def about_folders(self, folders: Sequence[ClientFolder]) -> dict[str, Any]:
        """Width, classes, and whether subgraphs may share nodes."""
        first = folders[0].description
        return {
            "partition": first.partition,
            "num_clients": first.num_clients or 0,
            "num_features": first.num_features,
            "num_classes": first.num_classes,
            "overlapping": any(folder.description.overlapping for folder in folders),
        }

    def cohort_of_folders(
        self, config: Config, folders: Sequence[ClientFolder], device: torch.device, trusted: Trusted
    ) -> Cohort:
        """Their subgraphs."""
        return Cohort(
            graphs=tuple(folder.graph() for folder in folders),
            num_features=folders[0].description.num_features,
            num_classes=folders[0].description.num_classes,
            device=device,
            chunk=config.runtime.chunk,
            task=_graph_task(config),
            shared_key=SharedKey(folders[0].key_path),
        )

    def write_folder(
        self, path: Path, config: Config, prepared: PreparedPartition, position: int, key: bytes, own_id: int | None
    ) -> None:
        """Its graph."""
        graph = prepared.client(position)
        write_client_folder(
            path,
            graph if own_id is None else replace(graph, client_id=own_id),
            dataset=config.dataset.name,
            partition=prepared.key if own_id is None else "",
            num_clients=prepared.num_clients if own_id is None else None,
            overlapping=prepared.overlapping,
            key=key,
        )

    def described(self, path: Path) -> dict[str, int]:
        """Nodes, edges and roles."""
        said = ClientFolder.open(path).description
        sizes = {"client": said.client_id, "nodes": said.num_nodes, "directed edges": said.num_edges}
        return {**sizes, "train": said.train, "validation": said.validation, "test": said.test}

    def initial_parameters(self, config: Config, num_features: int, num_classes: int) -> Mapping[str, np.ndarray]:
        """A GCN's."""
        assert isinstance(config.model, ModelSettings)
        return StackedGCN(config.model, num_features, _graph_task(config).num_outputs(num_classes)).initial_of(
            config.seed
        )

    def export(self, node: ModelWriter, client: CohortClient, last_round: int, received: Stack) -> None:
        """A file a client: its GCN and a card."""
        config, cohort, task = node.config, client.cohort, _graph_task(node.config)
        assert isinstance(config.dataset, DatasetSettings) and isinstance(config.model, ModelSettings)
        assert isinstance(task, NodeClassification | LinkPrediction)
        validation = client.best_validation()
        for client_id, tensors in client.best_models().items():
            card = ModelCard(
                model=config.model,
                task=task,
                num_features=cohort.num_features,
                num_classes=cohort.num_classes,
                dataset=config.dataset.name,
                client=client_id,
                method=config.method.name,
                run=node.run_id,
                round=last_round,
                validation=validation.get(client_id),
                row_normalize=config.dataset.row_normalize,
            )
            node.write_model(client_id, tensors, card)


class RatingsOfUsers(Kind):
    """Ratings: every user is a client. The roster's features are items, and there are no classes."""

    def prepare(self, config: Config) -> PreparedRatings:
        """All users' ratings."""
        assert isinstance(config.dataset, RatingDatasetSettings) and isinstance(config.partition, UsersPartition)
        return prepare_ratings(config.dataset, config.partition, config.data.root, config.data.cache)

    def about(self, prepared: PreparedRatings) -> dict[str, Any]:
        """How many items there are."""
        return {
            "partition": prepared.key,
            "num_clients": prepared.num_clients,
            "num_features": prepared.num_items,
            "num_classes": 0,
            "overlapping": False,
        }

    def cohort(
        self, config: Config, prepared: PreparedRatings, client_ids: Sequence[int], device: torch.device, key: SharedKey
    ) -> UserCohort:
        """Their ratings."""
        return UserCohort(
            ratings=prepared.ratings(client_ids),
            center=prepared.center,
            spread=prepared.spread,
            device=device,
            chunk=config.runtime.chunk,
            shared_key=key,
            whole=prepared.whole,
        )

    def open_folders(self, paths: Sequence[Path]) -> Sequence[UserFolder]:
        """Folders with a user's ratings."""
        return open_user_folders(paths)

    def read_folder(self, folder: UserFolder) -> None:
        """Its ratings."""
        folder.ratings()

    def about_folders(self, folders: Sequence[UserFolder]) -> dict[str, Any]:
        """How many items there are."""
        first = folders[0].description
        return {
            "partition": first.partition,
            "num_clients": first.num_clients or 0,
            "num_features": first.num_items,
            "num_classes": 0,
            "overlapping": False,
        }

    def cohort_of_folders(
        self, config: Config, folders: Sequence[UserFolder], device: torch.device, trusted: Trusted
    ) -> UserCohort:
        """Their ratings; what a user draws to hide them comes from a secret of the machine's own."""
        first = folders[0]
        return UserCohort(
            ratings=Ratings.joined([folder.ratings() for folder in folders]),
            center=first.description.center,
            spread=first.description.spread,
            device=device,
            chunk=config.runtime.chunk,
            shared_key=SharedKey(first.key_path),
            secrets={client: SharedKey(path / "own.key", create=True) for client, path in trusted.places.items()},
            run=trusted.run_id,
            trusted_matcher=trusted.matcher_key,
        )

    def write_folder(
        self, path: Path, config: Config, prepared: PreparedRatings, position: int, key: bytes, own_id: int | None
    ) -> None:
        """Its ratings, and the items' titles."""
        write_user_folder(
            path,
            prepared.ratings([position]),
            dataset=config.dataset.name,
            partition=prepared.key,
            num_clients=prepared.num_clients,
            center=prepared.center,
            spread=prepared.spread,
            titles=prepared.titles(),
            key=key,
        )

    def described(self, path: Path) -> dict[str, int]:
        """Ratings by role."""
        said = UserFolder.open(path).description
        return {"client": said.client_id, "train": said.train, "validation": said.validation, "test": said.test}

    def initial_parameters(self, config: Config, num_features: int, num_classes: int) -> Mapping[str, np.ndarray]:
        """A recommender's."""
        assert isinstance(config.model, RecommenderSettings)
        return StackedRecommender(config.model, num_features).initial_of(config.seed)

    def export(self, node: ModelWriter, client: CohortClient, last_round: int, received: Stack) -> None:
        """What the server and the users know, together; nothing where the method has no such model."""
        config, cohort = node.config, client.cohort
        assert isinstance(config.model, RecommenderSettings)
        users = client.best_models()
        if not received or not users:
            return
        ids = sorted(users)
        card = RecommenderCard(
            model=config.model,
            num_items=cohort.ratings.num_items,
            scale=cohort.ratings.scale,
            center=cohort.center,
            spread=cohort.spread,
            dataset=config.dataset.name,
            method=config.method.name,
            run=node.run_id,
            round=last_round,
        )
        names = list(users[ids[0]])
        personal = {name: np.stack([users[client_id][name] for client_id in ids]) for name in names}
        node.write_recommender(Recommender(card, dict(received), np.array(ids), personal))


KINDS: dict[str, Kind] = {"graph": Graphs(), "ratings": RatingsOfUsers()}


def kind_of(config: Config) -> Kind:
    """The kind of data that a run is about."""
    return KINDS[config.dataset.kind]


def _graph_task(config: Config) -> GraphTask:
    assert isinstance(config.task, GraphTask)
    return config.task
