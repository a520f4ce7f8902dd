"""Attributes of users and items reach the node in a simulation and from folders, and their sizes the server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from subfl_flower.composition import composed_config
from subfl_flower.config import Config
from subfl_flower.data.prepared.ratings import PreparedRatings
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import NodeSecrets
from subfl_flower.node.shared_key import SharedKey
from subfl_flower.recommendation.domain import Recommendation
from subfl_flower.wire.roster import Roster

CPU = torch.device("cpu")
KIND = Recommendation()
ROWS = "user,item,rating\nann,x,1\nann,y,2\nbob,x,3\nbob,z,5\ncid,y,4\ncid,z,1\n"
USERS = "user,age\nann,old\ncid,new|old\n"
ITEMS = "item,genre,colour\nx,War,\nz,War|Art,red\n"


def configured(folder: Path, *overrides: str, with_attributes: bool = True) -> Config:
    (folder / "ratings.csv").write_text(ROWS)
    tables = {"users": USERS, "items": ITEMS} if with_attributes else {}
    for name, content in tables.items():
        (folder / f"{name}.csv").write_text(content)
    paths = [f"dataset.{name}={folder / name}.csv" for name in tables]
    return composed_config(
        ["method=fedgnn", "dataset=custom_ratings", f"dataset.path={folder / 'ratings.csv'}", *paths, *overrides]
    )[0]


def codes(attributes: Attributes | None) -> list[list[str]]:
    """The values of each entity."""
    assert attributes is not None
    named = np.array([value for vocabulary in attributes.values for value in vocabulary])
    return [named[attributes.of([position]).codes].tolist() for position in range(len(attributes))]


def folders(folder: Path, config: Config, prepared: PreparedRatings, *positions: int) -> list[Path]:
    paths = [folder / f"client-{position}" for position in positions]
    for path, position in zip(paths, positions, strict=True):
        KIND.write_folder(path, config, prepared, position, bytes(32), None)
    return paths


def test_a_node_has_the_attributes_of_its_users_and_of_all_items(tmp_path: Path) -> None:
    config = configured(tmp_path)
    prepared = KIND.prepare(config)
    simulated = KIND.cohort(config, prepared, [2, 0], CPU, SharedKey(tmp_path / "key", create=True))
    assert codes(simulated.user_attributes) == [["new", "old"], ["old"]]
    opened = KIND.open_folders(folders(tmp_path, config, prepared, 2, 1))
    for one in opened:
        KIND.read_folder(one)
    own = KIND.cohort_of_folders(config, opened, CPU, NodeSecrets("run", {}))
    assert own.client_ids == (1, 2) and codes(own.user_attributes) == [[], ["new", "old"]]
    for cohort in (simulated, own):
        assert codes(cohort.item_attributes) == [["War"], [], ["Art", "War", "red"]]
        assert cohort.item_attributes is not None and cohort.item_attributes.fields == ("genre", "colour")


def test_the_server_is_told_how_many_values_there_are(tmp_path: Path) -> None:
    config = configured(tmp_path)
    prepared = KIND.prepare(config)
    about = KIND.about(prepared)
    assert (about["user_values"], about["item_values"], about["num_features"]) == ([2], [2, 1], 3)
    assert KIND.about_folders(KIND.open_folders(folders(tmp_path, config, prepared, 0))) == about


def test_without_attributes_there_are_none(tmp_path: Path) -> None:
    config = configured(tmp_path, with_attributes=False)
    prepared = KIND.prepare(config)
    opened = KIND.open_folders(folders(tmp_path, config, prepared, 0, 1))
    simulated = KIND.cohort(config, prepared, [0], CPU, SharedKey(tmp_path / "key", create=True))
    for cohort in (simulated, KIND.cohort_of_folders(config, opened, CPU, NodeSecrets("run", {}))):
        assert cohort.user_attributes is None and cohort.item_attributes is None
    for about in (KIND.about(prepared), KIND.about_folders(opened)):
        assert about["user_values"] == about["item_values"] == []


def test_a_damaged_file_of_attributes_is_found_when_a_folder_is_read(tmp_path: Path) -> None:
    config = configured(tmp_path)
    [path] = folders(tmp_path, config, KIND.prepare(config), 0)
    [folder] = KIND.open_folders([path])
    content = (path / "attributes.safetensors").read_bytes()
    (path / "attributes.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(SubflError, match=r"attributes\.safetensors is damaged \(its checksum differs\)"):
        KIND.read_folder(folder)


def test_the_first_model_is_of_the_rosters_items(tmp_path: Path) -> None:
    sizes = np.ones(1)
    roster = Roster((0,), (None,), sizes, sizes, sizes, 17, 0, False, None, (2,), (2, 1))
    initial = KIND.initial_parameters(configured(tmp_path, "model.dim=5"), roster)
    assert initial["items"].shape == (17, 6)  # with a bias
