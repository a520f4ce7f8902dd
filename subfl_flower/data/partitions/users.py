"""Partition in which every user of a rating data set is a client."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from subfl_flower.data.graph import Graph
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.errors import SubflError


class UsersPartition(PartitionSettings):
    """One client a user, with the ratings that the user gave; clients share no rating.

    Attributes:
        clients: always None: the number of clients is the number of users.
        seed: drives the split of the ratings into training, validation and test.
    """

    kind: ClassVar[Literal["graph", "ratings"]] = "ratings"

    name: Literal["users"] = "users"
    clients: None = None

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Refuse any graph: it has no users.

        Raises:
            SubflError: always.
        """
        raise SubflError(
            "partition=users is for ratings, where every user is a client; "
            "choose another partition for a graph, for example partition=metis"
        )
