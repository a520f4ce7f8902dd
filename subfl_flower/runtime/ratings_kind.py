"""Clients that are users with ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subfl_flower.config import Config
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.ratings.prepared import PreparedRatings, prepare_ratings
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.data.ratings.user_folder import UserFolder, open_user_folders, write_user_folder
from subfl_flower.models.recommender import StackedRecommender
from subfl_flower.models.recommender_file import Recommender, RecommenderCard
from subfl_flower.models.settings import RecommenderSettings
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.kind import Kind, ModelWriter, Trusted
from subfl_flower.runtime.messages import Stack
from subfl_flower.runtime.shared_key import SharedKey
from subfl_flower.runtime.user_cohort import UserCohort


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
