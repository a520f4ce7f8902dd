"""The users to recommend items to: all users of a simulation's run, or the user of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from subfl_flower.data.folders.user_folder import UserDescription, UserFolder
from subfl_flower.data.prepared.ratings import PreparedRatings
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError
from subfl_flower.recommendation.domain import prepared_ratings, rating_sections
from subfl_flower.recommendation.models.ranker_file import read_trained
from subfl_flower.recommendation.models.trained_users import TrainedUsers
from subfl_flower.registry import stored_config
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.storage.tensor_file import MODEL_FILE

_SCORES_AT_ONCE = 2**24
_MOST_COMPARED = 50_000


@dataclass(frozen=True, eq=False)
class UserToRecommend:
    """A user, and the recommender trained with this user.

    Attributes:
        recommender: with this user alone.
        ratings: of this user alone.
        item_names: the source's id of each item; None where it is not available.
        titles: title of each item; None where the data set has none.
        name: the source's id of the user; None where it is not available.
    """

    recommender: TrainedUsers
    ratings: Ratings
    item_names: list[str] | None
    titles: list[str] | None
    name: str | None = None

    @property
    def client_id(self) -> int:
        """Client id of the user."""
        return int(self.ratings.user_ids[0])


def open_user(
    model: Path, client: int | None = None, data: Path | None = None, user: str | None = None
) -> UserToRecommend:
    """Find a user's ratings and the recommender.

    Args:
        model: a run directory of a simulation; or a user's folder, whose newest run counts; or a folder or file with
            a recommender.
        client: client id of the user; None for the user of the folder, or `user`.
        data: the user's folder; None: `model` is it, or a run whose configuration names the data.
        user: the source's id of the user; None for `client`.

    Raises:
        SubflError: one of these is missing, damaged or malformed, there is no recommender, it was not trained with the
            user, or it was trained on other data.
    """
    _require_model(model)
    if data is not None or (model / "client.json").exists():
        return _of_folder(model, client, user, UserFolder.open(model if data is None else data))
    _require_run(model)
    if client is None and user is None:
        raise SubflError("client: a number is required, for instance client=0; or user=ID, as the data call the user")
    prepared = None
    if user is not None:
        prepared = _prepared(model)
        number = _number_of(user, prepared.user_names(), prepared.source)
        if client not in (None, number):
            raise SubflError(f"client: the user {user} is client {number}, not {client}; state one of them")
        client = number
    assert client is not None
    recommender = _knowing(_recommenders(model), client, model).of_users([client])
    prepared = prepared or _prepared(model)
    _require_same_data(recommender, prepared, str(prepared.directory), prepared.source)
    name = prepared.user_names()[client]
    return UserToRecommend(recommender, prepared.ratings([client]), prepared.item_names(), prepared.titles(), name)


@dataclass(frozen=True, eq=False)
class UsersOfRun:
    """All users of a run that its recommenders were trained with.

    Attributes:
        recommenders: recommenders of the run's nodes, those of the last round first.
        prepared: the ratings of all users.
        client_ids: int64, ascending: the users of the recommenders.
    """

    recommenders: list[TrainedUsers]
    prepared: PreparedRatings
    client_ids: np.ndarray

    @classmethod
    def open(cls, run: Path) -> UsersOfRun:
        """The users of a run directory of a simulation.

        Raises:
            SubflError: it is no such run, holds no recommender, or the ratings have changed since.
        """
        _require_model(run)
        if (run / "client.json").exists():
            raise SubflError(f"{run} is the folder of one user; all=true is for a run of a simulation")
        _require_run(run)
        recommenders, prepared = _recommenders(run), _prepared(run)
        for recommender in recommenders:
            _require_same_data(recommender, prepared, str(prepared.directory), prepared.source)
        known = np.unique(np.concatenate([recommender.clients for recommender in recommenders]))
        return cls(recommenders, prepared, known)

    @property
    def num_blocks(self) -> int:
        """Number of blocks."""
        return -(-len(self.client_ids) // self._users_a_block)

    @property
    def _users_a_block(self) -> int:
        return max(1, _SCORES_AT_ONCE // self.prepared.num_items)

    def blocks(self) -> Iterator[list[tuple[TrainedUsers, Ratings]]]:
        """Users in ascending order, in blocks whose scores take a small part of the memory.

        Each block consists of parts: some users, with their recommender.

        Raises:
            SubflError: the prepared ratings are damaged.
        """
        size = self._users_a_block
        owner = np.full(int(self.client_ids[-1]) + 1, -1)
        for position in reversed(range(len(self.recommenders))):
            owner[self.recommenders[position].clients] = position
        for start in range(0, len(self.client_ids), size):
            block = self.client_ids[start : start + size]
            parts = []
            for position in np.unique(owner[block]).tolist():
                own = block[owner[block] == position]
                parts.append((self.recommenders[position].of_users(own), self.prepared.ratings(own.tolist())))
            yield parts


def _require_model(model: Path) -> None:
    if not model.exists():
        raise SubflError(f"{model} does not exist; a model is a run directory or a user's folder")


def _require_run(model: Path) -> None:
    if not RunDirectory.is_run(model):
        raise SubflError(f"{model} is neither a run directory nor a user's folder; data= names the user's folder")


def _number_of(user: str, names: Sequence[str], source: str) -> int:
    if user in names:
        return names.index(user)
    near = [name for name in names if name.lower() == user.lower().strip()]
    alike = [name for name in names if abs(len(name) - len(user)) <= 2][:_MOST_COMPARED]
    near = near or get_close_matches(user, alike, n=1)
    advice = f"; the nearest is {near[0]}" if near else f"; it has {len(names)} users, such as {names[0]}"
    raise SubflError(f"user: {source} has no user {user}{advice}")


def _of_folder(model: Path, client: int | None, user: str | None, folder: UserFolder) -> UserToRecommend:
    said, names = folder.description, folder.names()
    if client not in (None, said.client_id):
        raise SubflError(f"client: {folder.path} is the folder of client {said.client_id}, not of {client}")
    if user is not None and (names is None or user != names.user):
        whose = f"client {said.client_id}, and does not say the user's id" if names is None else f"user {names.user}"
        raise SubflError(f"user: {folder.path} is the folder of {whose}; leave user out")
    if RunDirectory.is_run(model):
        recommender = _knowing(_recommenders(model), said.client_id, model).of_users([said.client_id])
    else:
        recommender = read_trained(_newest(model)).of_users([said.client_id])
    _require_same_data(recommender, said, str(folder.path), str(folder.path))
    own, items = (None, None) if names is None else (names.user, names.items)
    return UserToRecommend(recommender, folder.ratings(), items, folder.titles(), own)


def _recommenders(path: Path) -> list[TrainedUsers]:
    """Recommenders of a simulation's nodes; with files for several numbers of nodes, the last round first."""
    files = sorted(RunDirectory(path).recommender_folder.glob("node-*.safetensors"))
    if not files:
        raise SubflError(
            f"{path} holds no recommender: it is a run on graphs, has not come to its end, left what it learnt of "
            "users on their own machines, or its method leaves none"
        )
    return sorted((read_trained(file) for file in files), key=lambda found: found.card.round, reverse=True)


def _knowing(recommenders: Sequence[TrainedUsers], client_id: int, path: Path) -> TrainedUsers:
    """The first of some recommenders that was trained with a client."""
    for recommender in recommenders:
        if client_id in recommender.clients:
            return recommender
    ids = np.concatenate([recommender.clients for recommender in recommenders])
    raise SubflError(f"client: {path} knows no client {client_id}; its clients lie between 0 and {ids.max()}")


def _newest(path: Path) -> Path:
    """The file of a recommender: `path` itself, or in this folder, or that of the folder's newest run."""
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    files = list(path.glob(f"runs/*/{MODEL_FILE}"))
    if not files:
        raise SubflError(f"{path} holds no recommender yet; a run leaves it at its end, as runs/<run>/{MODEL_FILE}")
    return max(files, key=lambda file: file.stat().st_mtime_ns)


def _prepared(path: Path) -> PreparedRatings:
    config = stored_config(path)
    dataset, partition = config.dataset, config.partition
    if rating_sections(config) is None:
        raise SubflError(f"{path} is a run on dataset={dataset.name}, partition={partition.name}; it has no ratings")
    return prepared_ratings(config)


def _require_same_data(
    recommender: TrainedUsers, data: PreparedRatings | UserDescription, source: str, called: str
) -> None:
    """Raise SubflError unless a recommender was trained on these ratings.

    Args:
        recommender: recommender of the run.
        data: facts on the ratings.
        source: location of the ratings.
        called: name of the ratings' source.
    """
    card, fingerprint = recommender.card, data.fingerprint
    if card.data is not None and fingerprint is not None and card.data != fingerprint:
        raise SubflError(
            f"the ratings have changed since the run: the content of {called} (ids, ratings, titles or attributes) is "
            f"not what {card.run} was trained on, and its numbers of users and items may mean others; train again"
        )
    for name in ("num_items", "center", "spread"):
        trained, found = getattr(card, name), getattr(data, name)
        if trained != found:
            raise SubflError(
                f"{source} holds other ratings than {card.run} was trained on: its {name} is {found:g}, not {trained:g}"
            )
