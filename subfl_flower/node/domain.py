"""What a kind of data has of its own: preparation, folders, cohort and model.

Everything else of a federation is the same for all kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import torch

from subfl_flower.config import Config
from subfl_flower.data.folders.subgraph_folder import ClientFolder
from subfl_flower.data.folders.user_folder import UserFolder
from subfl_flower.doors import load_class
from subfl_flower.node.client import CohortClient, Hosted
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.roster import Shape

if TYPE_CHECKING:
    from subfl_flower.recommendation.models.trained_users import TrainedUsers
    from subfl_flower.subgraphs.models.exported import ModelCard
    from subfl_flower.subgraphs.models.graph_network import GraphNetwork

Folder = ClientFolder | UserFolder


class Prepared(Protocol):
    """All clients' data, prepared for a simulation."""

    @property
    def key(self) -> str:
        """What tells it from others."""

    @property
    def num_clients(self) -> int:
        """How many clients it is for."""

    @property
    def data(self) -> dict[str, Any]:
        """Facts on the data, with fingerprints; the content of `data.json`."""


@dataclass(frozen=True)
class NodeSecrets:
    """What a machine of its own knows beside its clients' folders.

    Attributes:
        run_id: of the run.
        places: a folder of each client's own that can be written to, by client id.
        matcher_key: the matcher's public key; None: what the server says.
        keep_embeddings: never tell the server an embedding to cluster users by.
    """

    run_id: str
    places: Mapping[int, Path]
    matcher_key: bytes | None = None
    keep_embeddings: bool = False


class ModelWriter(Protocol):
    """A node, as far as its clients' models are concerned."""

    config: Config
    run_id: str

    def write_model(self, client_id: int, tensors: dict[str, np.ndarray], card: ModelCard) -> None:
        """Write a client's model where it belongs."""

    def write_recommender(self, trained: TrainedUsers) -> None:
        """Write a recommender and its users where they belong."""


class Domain(ABC):
    """One kind of data that clients hold: subgraphs, or users' ratings."""

    example_method: ClassVar[str | None] = None
    """A method for it, where that of `conf/config.yaml` is not."""

    @abstractmethod
    def prepare(self, config: Config) -> Prepared:
        """All clients' data, as a simulation needs them."""

    def inspect(self, config: Config) -> tuple[dict[str, Any], str | None]:
        """Facts on the data of a run, and why it would be refused nevertheless; None where it would not.

        Raises:
            SubflError: nothing can be said of the data.
        """
        return self.prepare(config).data, None

    @abstractmethod
    def about(self, prepared: Any) -> dict[str, Any]:
        """What the roster says of prepared data, but for the data set's name."""

    @abstractmethod
    def schema_sizes(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """The sizes of a schema, by the names of its fields, from what `about` says."""

    def remarks_for_site(self, prepared: Any) -> list[str]:
        """Remarks on what a site does alone that prepares nothing but its own data: nothing."""
        return []

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
    def facts(self, folder: Any) -> dict[str, Any]:
        """Facts on what a folder holds, without a fingerprint; the content of a node's `data.json`."""

    @abstractmethod
    def about_folders(self, folders: Sequence[Any]) -> dict[str, Any]:
        """What the roster says of the data in folders, but for the data set's name."""

    @abstractmethod
    def cohort_of_folders(
        self, config: Config, folders: Sequence[Any], device: torch.device, secrets: NodeSecrets
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

    def expansion_sizes(self, config: Config) -> tuple[int, int] | None:
        """Length of a neighbour's embedding and the most neighbours of a user, where users' graphs can be expanded."""
        return None

    def network(self, config: Config, shape: Shape) -> GraphNetwork[Any] | None:
        """The network that the clients train, where it is one on graphs."""
        return None

    @abstractmethod
    def initial_parameters(self, config: Config, shape: Shape) -> Mapping[str, np.ndarray]:
        """The model that a federation starts from, by name, without a client axis.

        Args:
            config: of the run.
            shape: of the clients' data.

        Raises:
            SubflError: the model needs what the clients' data do not have.
        """

    @abstractmethod
    def export(self, node: ModelWriter, client: CohortClient, last: Batch) -> None:
        """Have a node write its clients' best models.

        Args:
            node: where they are to be written.
            client: the object that trained them.
            last: the clients, the last round that was trained, and the part of their models that the server has.
        """


_DOMAINS = {
    "graph": "subfl_flower.subgraphs.domain.Subgraphs",
    "ratings": "subfl_flower.recommendation.domain.Recommendation",
}


@cache
def domain_named(kind: str) -> Domain | None:
    """The domain of a kind of data, ``graph`` or ``ratings``; None for another word."""
    if kind not in _DOMAINS:
        return None
    found: Domain = load_class(_DOMAINS[kind], Domain, "dataset.kind")()
    return found


def domain_of(config: Config) -> Domain:
    """The domain of a run's data set.

    Its partition, task, model and client family are of the same; `registry.validate` sees to that.
    """
    found = domain_named(config.dataset.kind)
    assert found is not None
    return found
