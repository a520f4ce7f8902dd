"""Clients that are users with ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from subfl_flower.config import Config
from subfl_flower.data.description import DATA_SCHEMA
from subfl_flower.data.folders.described_folder import open_folders
from subfl_flower.data.folders.user_folder import UserDescription, UserFolder, write_user_folder
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.prepared.ratings import PreparedRatings, prepare_ratings
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import UserModelSettings
from subfl_flower.node.client import CohortClient
from subfl_flower.node.domain import Domain, ModelWriter, NodeSecrets
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.choices import stacked_user_model
from subfl_flower.recommendation.models.ranker_file import Ranker, RankerCard
from subfl_flower.recommendation.models.recommender_file import Recommender, RecommenderCard
from subfl_flower.tasks.choices import UserTask
from subfl_flower.wire.batch import Batch
from subfl_flower.wire.roster import Shape


class RatingSections(NamedTuple):
    """Sections of a configuration for data that are ratings."""

    dataset: RatingDatasetSettings
    task: UserTask
    model: UserModelSettings


def rating_sections(config: Config) -> RatingSections | None:
    """Sections of a configuration for data that are ratings; None for other data."""
    dataset, task, model = config.dataset, config.task, config.model
    if not isinstance(dataset, RatingDatasetSettings) or not isinstance(task, UserTask):
        return None
    return RatingSections(dataset, task, model) if isinstance(model, UserModelSettings) else None


def prepared_ratings(config: Config) -> PreparedRatings:
    """The ratings that a configuration for such data names.

    Raises:
        SubflError: they cannot be prepared, or their kind or split does not suit the task.
    """
    (dataset, task, _), partition = _sections(config), config.partition
    if not isinstance(partition, UsersPartition):
        raise SubflError(f"partition={partition.name}: every user of ratings is a client; use partition=users")
    cache = config.data.cache
    prepared = prepare_ratings(dataset, partition, config.data.root, cache, task.needs_ratings, task.candidates)
    task.require_split(prepared.data["split"])
    return prepared


class Recommendation(Domain):
    """Ratings: every user is a client. The roster's features are items, and there are no classes."""

    example_method = "fedgnn"

    def prepare(self, config: Config) -> PreparedRatings:
        """Prepare all users' ratings."""
        return prepared_ratings(config)

    def about(self, prepared: PreparedRatings) -> dict[str, Any]:
        """Number of items, and number of values of attributes."""
        return _about(prepared, prepared.key, prepared.num_clients)

    def schema_sizes(self, about: Mapping[str, Any]) -> dict[str, Any]:
        """Numbers of items and of attributes' values."""
        values = {key: tuple(about[key]) for key in ("user_values", "item_values")}
        return {"items": about["num_features"], **values}

    def cohort(
        self, config: Config, prepared: PreparedRatings, client_ids: Sequence[int], device: torch.device, key: SharedKey
    ) -> UserCohort:
        """The users' ratings and attributes."""
        return UserCohort(
            ratings=prepared.ratings(client_ids),
            center=prepared.center,
            spread=prepared.spread,
            device=device,
            chunk=config.runtime.chunk,
            task=config.task,
            shared_key=key,
            whole=prepared.whole,
            user_attributes=prepared.user_attributes(client_ids),
            item_attributes=prepared.item_attributes(),
            fingerprint=prepared.fingerprint,
        )

    def open_folders(self, paths: Sequence[Path]) -> Sequence[UserFolder]:
        """Open folders with a user's ratings."""
        return open_folders(UserFolder, paths)

    def read_folder(self, folder: UserFolder) -> None:
        """Read the folder's ratings and attributes."""
        folder.ratings()
        folder.attributes()

    def facts(self, folder: UserFolder) -> dict[str, Any]:
        """Sizes, scale and roles of the folder's ratings."""
        said, ratings = folder.description, folder.ratings()
        return {
            "schema": DATA_SCHEMA,
            "kind": "ratings",
            "client": said.client_id,
            "users": 1,
            "items": said.num_items,
            "ratings": len(ratings),
            "scale": list(said.scale),
            **ratings.role_counts(),
            "dropped": [],
            "warnings": [],
        }

    def about_folders(self, folders: Sequence[UserFolder]) -> dict[str, Any]:
        """Number of items, and number of values of attributes."""
        first = folders[0].description
        return _about(first, first.partition, first.num_clients or 0)

    def cohort_of_folders(
        self, config: Config, folders: Sequence[UserFolder], device: torch.device, secrets: NodeSecrets
    ) -> UserCohort:
        """The users' ratings and attributes; private draws come from a secret of the node."""
        first = folders[0]
        attributes = [folder.attributes() for folder in folders]
        own = [users for users, _ in attributes if users is not None]
        return UserCohort(
            ratings=Ratings.joined([folder.ratings() for folder in folders]),
            center=first.description.center,
            spread=first.description.spread,
            device=device,
            chunk=config.runtime.chunk,
            task=config.task,
            shared_key=SharedKey(first.key_path),
            secrets={client: SharedKey(path / "own.key", create=True) for client, path in secrets.places.items()},
            run=secrets.run_id,
            trusted_matcher=secrets.matcher_key,
            keep_embeddings=secrets.keep_embeddings,
            user_attributes=Attributes.joined(own) if own else None,
            item_attributes=attributes[0][1],
            fingerprint=first.description.data,
        )

    def write_folder(
        self, path: Path, config: Config, prepared: PreparedRatings, position: int, key: bytes, own_id: int | None
    ) -> None:
        """Write the user's ratings, attributes and id, and the items' ids, titles and attributes."""
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
            user_attributes=prepared.user_attributes([position]),
            item_attributes=prepared.item_attributes(),
            user_name=prepared.user_names()[position],
            item_names=prepared.item_names(),
            fingerprint=prepared.fingerprint,
        )

    def described(self, path: Path) -> dict[str, int]:
        """Numbers of ratings by role."""
        said = UserFolder.open(path).description
        return {"client": said.client_id, "train": said.train, "validation": said.validation, "test": said.test}

    def initial_parameters(self, config: Config, shape: Shape) -> Mapping[str, np.ndarray]:
        """Initial parameters of the user model."""
        sizes = shape.num_features, shape.user_values, shape.item_values
        return stacked_user_model(_sections(config).model, *sizes).initial_of(config.seed)

    def expansion_sizes(self, config: Config) -> tuple[int, int] | None:
        """Length of the model's embeddings, and the number of neighbours."""
        model = _sections(config).model
        return model.dim, model.neighbours

    def export(self, node: ModelWriter, client: CohortClient, last: Batch) -> None:
        """Write the trained recommender with its users; no file where the method has no such model."""
        config, cohort = node.config, client.cohort
        model = _sections(config).model
        if not last.sent.values:
            return
        about: dict[str, Any] = {
            "model": model,
            "num_items": cohort.ratings.num_items,
            "center": cohort.center,
            "spread": cohort.spread,
            "dataset": config.dataset.name,
            "data": cohort.fingerprint,
            "method": config.method.name,
            "run": node.run_id,
            "round": last.server_round,
        }
        if model.ranks:
            if mixture := client.best_mixture(last):
                node.write_recommender(Ranker(RankerCard(**about), mixture))
            return
        users = client.models(last)
        if not users:
            return
        ids = sorted(users)
        card = RecommenderCard(scale=cohort.ratings.scale, **about)
        shared = {name: values[0] for name, values in last.sent.values.items()}
        personal = {name: np.stack([users[client_id][name] for client_id in ids]) for name in users[ids[0]]}
        node.write_recommender(Recommender(card, shared, np.array(ids), personal))


def _about(sizes: PreparedRatings | UserDescription, partition: str, num_clients: int) -> dict[str, Any]:
    return {
        "partition": partition,
        "num_clients": num_clients,
        "num_features": sizes.num_items,
        "num_classes": 0,
        "overlapping": False,
        "user_values": list(sizes.user_values),
        "item_values": list(sizes.item_values),
    }


def _sections(config: Config) -> RatingSections:
    sections = rating_sections(config)
    if sections is None:  # `registry.validate` has found all to be for ratings, as a class of somebody else's says
        raise SubflError(f"task={config.task.name}: a task on ratings must be a subclass of UserTask")
    return sections
