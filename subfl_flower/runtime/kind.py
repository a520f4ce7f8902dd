"""What a kind of data has of its own: preparation, folders, cohort and model.

Everything else of a federation is the same for all kinds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch

from subfl_flower.config import Config
from subfl_flower.data.client_folder import ClientFolder
from subfl_flower.data.ratings.user_folder import UserFolder
from subfl_flower.models.exported import ModelCard
from subfl_flower.models.graph_network import GraphNetwork
from subfl_flower.models.trained_users import TrainedUsers
from subfl_flower.runtime.batch import Batch
from subfl_flower.runtime.cohort_client import CohortClient, Hosted
from subfl_flower.runtime.roster import Shape
from subfl_flower.runtime.shared_key import SharedKey

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
class Trusted:
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


class Kind(ABC):
    """One kind of data."""

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
