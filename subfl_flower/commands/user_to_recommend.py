"""The user that items are recommended to: a client of a simulation's run, or the one whose folder it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from subfl_flower.config import validate
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.ratings.prepared import PreparedRatings, prepare_ratings
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.data.ratings.user_folder import UserDescription, UserFolder
from subfl_flower.errors import SubflError
from subfl_flower.models.exported import TENSORS
from subfl_flower.models.ranker_file import Ranker, read_trained
from subfl_flower.models.recommender_file import Recommender
from subfl_flower.runtime.run_directory import RunDirectory


@dataclass(frozen=True, eq=False)
class UserToRecommend:
    """A user, and the recommender that knows the user.

    Attributes:
        recommender: with this user alone.
        ratings: of this user alone.
        item_names: the source's id of each item; None where it is not at hand.
        titles: of each item; None where the data set has none.
    """

    recommender: Recommender | Ranker
    ratings: Ratings
    item_names: list[str] | None
    titles: list[str] | None

    @property
    def client_id(self) -> int:
        """The user as a client."""
        return int(self.ratings.user_ids[0])


def open_user(model: Path, client: int | None = None, data: Path | None = None) -> UserToRecommend:
    """Find a user's ratings and the recommender.

    Args:
        model: a run directory of a simulation; or a user's folder, of whose runs the newest counts; or a folder or
            file with a recommender.
        client: id of the user; None for the one whose folder it is.
        data: the user's folder; None: `model` is it, or a run whose configuration names the data.

    Raises:
        SubflError: one of these is missing, damaged or malformed, there is no recommender, it does not know the user,
            or it was trained on other data.
    """
    if not model.exists():
        raise SubflError(f"{model} does not exist; a model is a run directory or a user's folder")
    if data is not None or (model / "client.json").exists():
        return _of_folder(model, client, UserFolder.open(model if data is None else data))
    if not RunDirectory.is_run(model):
        raise SubflError(f"{model} is neither a run directory nor a user's folder; data= names the user's folder")
    if client is None:
        raise SubflError("client: a number is required, for instance client=0")
    recommender = _recommender_of_run(model, client)
    prepared = _prepared(model)
    _require_same_data(recommender, prepared, str(prepared.directory))
    return UserToRecommend(recommender, prepared.ratings([client]), prepared.item_names(), prepared.titles())


def _of_folder(model: Path, client: int | None, folder: UserFolder) -> UserToRecommend:
    said = folder.description
    if client not in (None, said.client_id):
        raise SubflError(f"client: {folder.path} is the folder of client {said.client_id}, not of {client}")
    if RunDirectory.is_run(model):
        recommender = _recommender_of_run(model, said.client_id)
    else:
        recommender = read_trained(_newest(model)).of_users([said.client_id])
    _require_same_data(recommender, said, str(folder.path))
    return UserToRecommend(recommender, folder.ratings(), None, folder.titles())


def _recommender_of_run(path: Path, client_id: int) -> Recommender | Ranker:
    """What a simulation knows of a client. Of files for several numbers of nodes the one of the last round counts."""
    files = sorted(RunDirectory(path).recommender_folder.glob("node-*.safetensors"))
    if not files:
        raise SubflError(
            f"{path} holds no recommender: it is a run on graphs, has not come to its end, left what it learnt of "
            "users on their own machines, or its method leaves none"
        )
    found = [read_trained(file) for file in files]
    knowing = [recommender for recommender in found if client_id in recommender.clients]
    if not knowing:
        ids = np.concatenate([recommender.clients for recommender in found])
        raise SubflError(f"client: {path} knows no client {client_id}; its clients lie between 0 and {ids.max()}")
    return max(knowing, key=lambda recommender: recommender.card.round).of_users([client_id])


def _newest(path: Path) -> Path:
    """The file of a recommender: `path` itself, or in this folder, or of the last of its runs that was written."""
    if path.is_file():
        return path
    if (path / TENSORS).is_file():
        return path / TENSORS
    files = list(path.glob(f"runs/*/{TENSORS}"))
    if not files:
        raise SubflError(f"{path} holds no recommender yet; a run leaves it at its end, as runs/<run>/{TENSORS}")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def _prepared(path: Path) -> PreparedRatings:
    config = validate(RunDirectory(path).config())
    dataset, partition = config.dataset, config.partition
    if not isinstance(dataset, RatingDatasetSettings) or not isinstance(partition, UsersPartition):
        raise SubflError(f"{path} is a run on dataset={dataset.name}, partition={partition.name}; it has no ratings")
    return prepare_ratings(dataset, partition, config.data.root, config.data.cache)


def _require_same_data(recommender: Recommender | Ranker, data: PreparedRatings | UserDescription, source: str) -> None:
    card = recommender.card
    for name in ("num_items", "center", "spread"):
        trained, found = getattr(card, name), getattr(data, name)
        if trained != found:
            raise SubflError(
                f"{source} holds other ratings than {card.run} was trained on: its {name} is {found:g}, not {trained:g}"
            )
