"""Base of a kind of data, with everything that depends on it: preparation, folders, cohort and model.

All other parts of a federation are the same for all kinds.
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
    from subfl_flower.subgraphs.models.graph_network import GraphNetwork

Folder = ClientFolder | UserFolder


class Prepared(Protocol):
    """All clients' data, prepared for a simulation."""

    @property
    def key(self) -> str:
        """Key that identifies the prepared data."""

    @property
    def num_clients(self) -> int:
        """Number of clients."""

    @property
    def data(self) -> dict[str, Any]:
        """Facts on the data, with fingerprints; the content of `data.json`."""


@dataclass(frozen=True)
class NodeSecrets:
    """Settings that only the node's operator knows.

    Attributes:
        run_id: of the run.
        places: each client's writable folder, by client id.
        matcher_key: the matcher's public key; None: the key that the server sends.
        keep_embeddings: never send the server an embedding to be clustered by.
    """

    run_id: str
    places: Mapping[int, Path]
    matcher_key: bytes | None = None
    keep_embeddings: bool = False


class ClientModel(Protocol):
    """One client's trained model, which can write itself."""

    def write(self, path: Path) -> None:
        """Write it as one file."""

    def write_with_card(self, path: Path) -> None:
        """Write it as one file, and its card beside it, to look at."""


class UsersModel(Protocol):
    """A trained model of some users, which can write itself."""

    @property
    def clients(self) -> np.ndarray:
        """The users, int64 `[U]`."""

    def of_users(self, client_ids: Sequence[int]) -> UsersModel:
        """The model of some of the users, without data of the others."""

    def write(self, path: Path) -> None:
        """Write it as one file."""


class ModelWriter(Protocol):
    """A node's part that writes its clients' models."""

    config: Config
    run_id: str

    def write_model(self, client_id: int, model: ClientModel) -> None:
        """Write a client's model to its place."""

    def write_recommender(self, trained: UsersModel) -> None:
        """Write a recommender and its users to their place."""


class Domain(ABC):
    """One kind of data that clients hold: subgraphs, or users' ratings."""

    example_method: ClassVar[str | None] = None
    """A method for this kind, where that of `conf/config.yaml` is for another kind."""

    @abstractmethod
    def prepare(self, config: Config) -> Prepared:
        """Prepare all clients' data for a simulation."""

    def inspect(self, config: Config) -> tuple[dict[str, Any], str | None]:
        """Facts on the data of a run, and the reason for which the run would be refused; None where it would not.

        Raises:
            SubflError: the data cannot be read or described.
        """
        return self.prepare(config).data, None

    @abstractmethod
    def about(self, prepared: Any) -> dict[str, Any]:
        """Facts on prepared data for the roster, without the data set's name."""

    @abstractmethod
    def schema_sizes(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Sizes of a schema, by the names of its fields, from the facts of `about`."""

    def remarks_for_site(self, prepared: Any) -> list[str]:
        """Remarks on steps that a site takes on its data alone: none by default."""
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
        """Read a folder's content; SubflError where it is damaged."""

    @abstractmethod
    def facts(self, folder: Any) -> dict[str, Any]:
        """Facts on a folder's content, without a fingerprint; the content of a node's `data.json`."""

    @abstractmethod
    def about_folders(self, folders: Sequence[Any]) -> dict[str, Any]:
        """Facts on the data in folders for the roster, without the data set's name."""

    @abstractmethod
    def cohort_of_folders(
        self, config: Config, folders: Sequence[Any], device: torch.device, secrets: NodeSecrets
    ) -> Hosted:
        """The clients of these folders, with their data read."""

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
            own_id: the client's id where a site writes the folder from its own data; None: its position.
        """

    @abstractmethod
    def described(self, path: Path) -> dict[str, int]:
        """Sizes of a folder's content, by the heading of a table's column."""

    def expansion_sizes(self, config: Config) -> tuple[int, int] | None:
        """Length of a neighbour's embedding and largest number of a user's neighbours, where graphs can be expanded."""
        return None

    def network(self, config: Config, shape: Shape) -> GraphNetwork[Any] | None:
        """The network that the clients train; None for data that are not graphs."""
        return None

    @abstractmethod
    def initial_parameters(self, config: Config, shape: Shape) -> Mapping[str, np.ndarray]:
        """Initial model of a federation, by name, without a client axis.

        Args:
            config: of the run.
            shape: of the clients' data.

        Raises:
            SubflError: the model needs data that the clients do not have.
        """

    @abstractmethod
    def export(self, node: ModelWriter, client: CohortClient, last: Batch) -> None:
        """Have a node write its clients' best models.

        Args:
            node: writes the models.
            client: the object that trained them.
            last: the clients, the last trained round, and the part of their models that the server has.
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

    Its partition, task, model and client family have the same domain; `registry.validate` ensures this.
    """
    found = domain_named(config.dataset.kind)
    assert found is not None
    return found
