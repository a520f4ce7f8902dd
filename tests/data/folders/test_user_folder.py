from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from client_folders import by_hand as graph_by_hand
from client_folders import small_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rating_tables import check_equal, check_same_attributes, genres, three_users
from safetensors.numpy import load_file, save

from subfl_flower.data.folders.described_folder import open_folders
from subfl_flower.data.folders.subgraph_folder import ClientFolder
from subfl_flower.data.folders.user_folder import UserFolder, write_user_folder
from subfl_flower.data.ratings.attributes import Attributes
from subfl_flower.data.ratings.table import Ratings
from subfl_flower.errors import SubflError

KEY = bytes(range(32))
TITLES = ["One", "Two: the sequel", "Drei", "Ψ", "", "Six"]
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def user(position: int = 0, **changes: Any) -> Ratings:
    return replace(three_users().of_users([position]), **changes)


def write(path: Path, ratings: Ratings, **changes: Any) -> Path:
    said: dict[str, Any] = dict(
        dataset="toy", partition="0" * 16, num_clients=3, center=3.0, spread=1.5, titles=None, key=KEY
    )
    write_user_folder(path, ratings, **(said | changes))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def change_description(folder: Path, **changes: Any) -> None:
    """With the right size and checksum of whatever files are there."""
    said = json.loads((folder / "client.json").read_text())
    for name in said["files"]:
        content = (folder / name).read_bytes()
        said["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "client.json").write_text(json.dumps(said | changes))


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SubflError) as found:
        folder = UserFolder.open(path)
        folder.ratings()
        folder.titles()
        folder.attributes()
    assert all(word in str(found.value) for word in words), str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("titles", [None, TITLES])
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_folder_gives_back_what_was_written(tmp_path: Path, position: int, titles: list[str] | None) -> None:
    folder = UserFolder.open(write(tmp_path / "users" / "client-00", user(position), titles=titles))
    check_equal(folder.ratings(), user(position))
    assert folder.titles() == titles
    optional = [] if titles is None else ["titles.json"]
    assert names(folder.path) == ["client.json", "clients.key", "ratings.safetensors", *optional]
    assert names(folder.path.parent) == ["client-00"]
    assert folder.key_path.read_bytes() == KEY and folder.key_path.stat().st_mode & 0o777 == 0o600
    assert folder.description.of_partition == ("toy", "0" * 16, 3, 6, (1.0, 5.0), 3.0, 1.5, None, [], [])
    assert folder.attributes() == (None, None)
    assert (folder.description.user_values, folder.description.item_values) == ((), ())


def test_what_the_description_says(tmp_path: Path) -> None:
    said = json.loads((write(tmp_path / "client-00", user()) / "client.json").read_text())
    content = (tmp_path / "client-00" / "ratings.safetensors").read_bytes()
    assert said == {
        "schema": 5, "kind": "ratings", "client": 0, "dataset": "toy", "partition": "0" * 16, "clients": 3,
        "num_items": 6, "scale": [1.0, 5.0], "center": 3.0, "spread": 1.5, "train": 1, "validation": 1, "test": 1,
        "user_attributes": {}, "item_attributes": {}, "data": None,
        "files": {"ratings.safetensors": {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}},
    }  # fmt: skip


IDS = ["i-1", "007", "NA", "ü", "a b", ""]


def test_a_folder_holds_the_ids_of_the_user_and_of_items(tmp_path: Path) -> None:
    print_ = "ab" * 32
    path = write(tmp_path / "client-00", user(), user_name="ann", item_names=IDS, fingerprint=print_)
    folder = UserFolder.open(path)
    found = folder.names()
    assert found is not None and (found.user, found.items) == ("ann", IDS)
    assert folder.description.data == print_ and "names.json" in names(path)
    assert UserFolder.open(write(tmp_path / "client-01", user(1))).names() is None
    other = write(tmp_path / "client-02", user(2), user_name="bob", item_names=IDS, fingerprint="cd" * 32)
    with pytest.raises(SubflError, match="are not of one partition"):
        open_folders(UserFolder, [path, other])
    opened = UserFolder.open(path)
    (path / "names.json").write_text((path / "names.json").read_text().replace("ann", "eve"))
    with pytest.raises(SubflError, match=r"names\.json is damaged"):
        opened.names()
    with pytest.raises(SubflError, match="there are 5 ids for 6 items; every item needs one"):
        write(tmp_path / "client-03", user(), user_name="ann", item_names=IDS[:5])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"user": "ann", "items": ["a"]}', "has 1 ids for 6 items"),
        ('{"user": 3, "items": ["a"]}', "does not hold the ids of a user and of items"),
        ("[]", "does not hold the ids of a user and of items"),
        ("{", "does not hold the ids of a user and of items"),
    ],
)
def test_ids_that_do_not_fit_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path / "client-00", user(), user_name="ann", item_names=IDS)
    (path / "names.json").write_text(content)
    change_description(path)
    with pytest.raises(SubflError, match=words):
        UserFolder.open(path).names()


OWN = Attributes(("age",), (("new", "old"),), np.array([0, 1]), np.array([1]))


@pytest.mark.parametrize("own", [None, OWN])
@pytest.mark.parametrize("items", [None, genres()])
def test_a_folder_holds_the_users_attributes_and_all_items(
    tmp_path: Path, own: Attributes | None, items: Attributes | None
) -> None:
    folder = UserFolder.open(write(tmp_path / "client-00", user(), user_attributes=own, item_attributes=items))
    for found, expected in zip(folder.attributes(), (own, items), strict=True):
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            check_same_attributes(found, expected)
    assert ("attributes.safetensors" in names(folder.path)) == (own is not None or items is not None)
    assert folder.description.user_values == (() if own is None else (2,))
    assert folder.description.item_values == (() if items is None else (3, 1))


def test_a_folder_that_says_nothing_of_attributes_still_opens(tmp_path: Path) -> None:
    folder = write(tmp_path / "client-00", user())
    said = json.loads((folder / "client.json").read_text())
    del said["user_attributes"], said["item_attributes"], said["data"]
    (folder / "client.json").write_text(json.dumps(said))
    assert UserFolder.open(folder).attributes() == (None, None)


def test_folders_with_other_attributes_are_of_another_partition(tmp_path: Path) -> None:
    mine = write(tmp_path / "mine", user(0), item_attributes=genres())
    swapped = replace(genres(), fields=("colour", "genre"), values=genres().values[::-1])
    for number, attributes in enumerate((None, swapped, replace(genres(), values=(("D", "N", "W"), ("grey",))))):
        other = write(tmp_path / f"other-{number}", user(2), item_attributes=attributes)
        with pytest.raises(SubflError, match="are not of one partition"):
            open_folders(UserFolder, [mine, other])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"item_attributes": {}}, ["attributes.safetensors does not hold the attributes of each user and nothing"]),
        ({"user_attributes": {}, "item_attributes": {}}, ["attributes.safetensors and user_attributes or item_attr"]),
        ({"user_attributes": {"age": ["old", "new"]}}, ["must be different, in ascending order"]),
        ({"user_attributes": {"age": ["new", "new"]}}, ["must be different, in ascending order"]),
        ({"user_attributes": {"age": []}}, ["user_attributes.age", "at least 1 item"]),
        ({"user_attributes": {str(field): ["x"] for field in range(65)}}, ["user_attributes", "at most 64 items"]),
        ({"user_attributes": {"age": ["new"]}}, ["attributes.safetensors: codes of attributes must lie within 0..0"]),
        ({"user_attributes": [["age", ["new", "old"]]]}, ["user_attributes", "object"]),
        ({"user_attributes": {"age": [1, 2]}}, ["user_attributes.age.0", "string"]),
        ({"num_items": 7}, ["attributes.safetensors: offsets of attributes must rise from 0 to 6 over 7 entities"]),
    ],
)
def test_attributes_that_are_not_as_described_are_refused(
    tmp_path: Path, change: dict[str, Any], words: list[str]
) -> None:
    folder = write(tmp_path / "client-00", user(), user_attributes=OWN, item_attributes=genres())
    change_description(folder, **change)
    refused(folder, *words)


def test_attributes_of_others_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=r"the attributes of the user: .* over 1 entities"):
        write(tmp_path / "client-00", user(), user_attributes=genres())
    with pytest.raises(SubflError, match=r"the attributes of items: .* over 6 entities"):
        write(tmp_path / "client-00", user(), item_attributes=OWN)
    assert names(tmp_path) == []


def test_a_sites_own_folder_does_not_know_the_others(tmp_path: Path) -> None:
    folder = UserFolder.open(write(tmp_path / "client-00", user(), partition="", num_clients=None))
    assert (folder.description.num_clients, folder.description.partition) == (None, "")


def test_other_kinds_of_clients_are_refused_in_words(tmp_path: Path) -> None:
    mine, graph = write(tmp_path / "user", user()), graph_by_hand(tmp_path / "graph", small_client())
    with pytest.raises(SubflError, match=r"client\.json describes a client with kind 'ratings', and one with 'graph'"):
        ClientFolder.open(mine)
    with pytest.raises(SubflError, match=r"client\.json describes a client with kind 'graph', and one with 'ratings'"):
        UserFolder.open(graph)


def test_a_node_hosts_users_of_one_data_set_each_once(tmp_path: Path) -> None:
    two, zero = write(tmp_path / "two", user(2)), write(tmp_path / "zero", user(0))
    assert [folder.description.client_id for folder in open_folders(UserFolder, [two, zero])] == [0, 2]
    with pytest.raises(SubflError, match="again holds client 2, and so does"):
        open_folders(UserFolder, [two, zero, write(tmp_path / "again", user(2))])
    with pytest.raises(SubflError, match="are not of one partition; a node needs folders of one"):
        open_folders(UserFolder, [zero, write(tmp_path / "other", user(2), center=2.0)])


@pytest.mark.parametrize(
    ("ratings", "titles", "message"),
    [
        (three_users(), None, "a user's folder holds the ratings of one user, not of 3"),
        (user(), TITLES[1:], "there are 5 titles for 6 items; every item needs one"),
        (user(items=np.array([0, 2, 6])), None, r"the ratings of client 0: items must be different numbers in 0\.\.5"),
    ],
)
def test_what_is_unsound_is_not_written(
    tmp_path: Path, ratings: Ratings, titles: list[str] | None, message: str
) -> None:
    with pytest.raises(SubflError, match=message):
        write(tmp_path / "client-00", ratings, titles=titles)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "films"}, ["kind 'films'", "'ratings' is needed"]),
        ({"schema": 1}, ["has the schema 1, this version reads 5"]),
        ({"client": 3}, ["client 3 is none of the clients 0..2"]),
        ({"num_items": 3}, ["items must be different numbers in 0..2"]),
        ({"num_items": 7}, ["titles.json has 6 titles for 7 items"]),
        ({"scale": [2, 5]}, ["every rating must be within 2..5"]),
        ({"scale": [1]}, ["scale"]),
        ({"scale": [1, float("inf")]}, ["scale", "finite"]),
        ({"center": float("nan")}, ["center", "finite"]),
        ({"center": "3"}, ["center", "number"]),
        ({"spread": 0}, ["spread", "greater than 0"]),
        ({"train": 2}, ["ratings.safetensors: train is 1, where client.json says 2"]),
        ({"owner": "me"}, ["owner", "not permitted"]),
        ({"files": {}}, ["files must speak of ratings.safetensors and perhaps titles.json and perhaps attr"]),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    folder = write(tmp_path / "client-00", user(), titles=TITLES)
    change_description(folder, **change)
    refused(folder, *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"items": np.array([0, 3, 2])}, "items must be different numbers in 0..5, ascending"),
        ({"items": np.array([0, 2, 2])}, "items must be different"),
        ({"items": np.array([-1, 2, 3])}, "items must be different"),
        ({"items": np.array([0, 2])}, "must have one entry a rating"),
        ({"items": np.array([[0], [2], [3]])}, "must have one entry a rating"),
        ({"items": np.array([0, 2, 3], dtype=np.int32)}, "it must hold items (int64), values (float32), roles (int8)"),
        ({"values": np.array([5, np.nan, 3], dtype=np.float32)}, "every rating must be within 1..5"),
        ({"values": np.array([5, 0.5, 3], dtype=np.float32)}, "every rating must be within 1..5"),
        ({"values": None}, "does not hold a user's ratings"),
        ({"users": np.zeros(3)}, "does not hold a user's ratings"),
        ({"roles": np.array([0, 1, 3], dtype=np.int8)}, "roles must be 0 train, 1 validation or 2 test"),
        ({"roles": np.array([0, -1, 2], dtype=np.int8)}, "roles must be"),
        ({"roles": np.array([0, 0, 2], dtype=np.int8)}, "train is 2, where client.json says 1"),
    ],
)
def test_a_hand_made_file_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = write(tmp_path / "client-00", user())
    file = folder / "ratings.safetensors"
    tensors = {name: array for name, array in (load_file(file) | change).items() if array is not None}
    file.write_bytes(save(tensors, {"card": '{"kind": "ratings", "schema": 1}'}))
    change_description(folder)
    refused(folder, "ratings.safetensors", words)


@pytest.mark.parametrize(
    ("card", "words"),
    [
        (None, "ratings.safetensors does not hold ratings: it does not say what it is"),
        ("[" * 5000, "ratings.safetensors: card: Invalid JSON"),
        ("{", "ratings.safetensors: card: Invalid JSON"),
        ('{"kind": "ratings"}', "ratings.safetensors does not hold ratings: its card does not state a schema"),
        (
            '{"schema": 1}',
            "ratings.safetensors does not hold ratings: its card states no kind, where 'ratings' belongs",
        ),
        ('{"kind": "cross_edges", "schema": 1}', "its card is of the kind 'cross_edges', where 'ratings' belongs"),
        (
            '{"kind": "ratings", "schema": 2}',
            "ratings.safetensors does not hold ratings: a newer version wrote it (schema 2, this",
        ),
        (
            '{"kind": "ratings", "schema": 1, "client_id": 0}',
            "ratings.safetensors: card.client_id: Extra inputs are not permitted",
        ),
    ],
)
def test_a_card_that_is_none_is_refused(tmp_path: Path, card: str | None, words: str) -> None:
    folder = write(tmp_path / "client-00", user())
    tensors = load_file(folder / "ratings.safetensors")
    (folder / "ratings.safetensors").write_bytes(save(tensors, None if card is None else {"card": card}))
    change_description(folder)
    refused(folder, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[1, 2]", "titles.json does not hold titles"),
        (b'{"0": "One"}', "titles.json does not hold titles"),
        (b"\xff", "titles.json does not hold titles"),
        (b'["One"]', "titles.json has 1 titles for 6 items"),
    ],
)
def test_titles_that_are_none_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    folder = write(tmp_path / "client-00", user(), titles=TITLES)
    (folder / "titles.json").write_bytes(content)
    change_description(folder)
    refused(folder, words)


@pytest.mark.parametrize("name", ["ratings.safetensors", "titles.json", "attributes.safetensors"])
def test_damage_is_found_out_by_size_and_by_checksum(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "client-00", user(), titles=TITLES, item_attributes=genres())
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    refused(folder, f"{name} has {len(whole) - 1} bytes, where client.json says {len(whole)}")
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(folder, f"{name} is damaged (its checksum differs)")
    (folder / name).unlink()
    refused(folder, f"{name} cannot be read: No such file")


@FUZZ
@given(
    changes=st.dictionaries(st.sampled_from(["schema", "kind", "scale", "center", "spread", "num_items", "x"]), JSON)
)
def test_any_description_is_valid_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    folder = write(tmp_path_factory.mktemp("fuzz") / "client", user())
    change_description(folder, **changes)
    try:
        found = UserFolder.open(folder).ratings()
    except SubflError:
        return
    np.testing.assert_array_equal(found.values, user().values)


@FUZZ
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=3))
def test_a_flipped_bit_is_noticed_or_leaves_sound_ratings(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]]
) -> None:
    folder = write(tmp_path_factory.mktemp("fuzz") / "client", user())
    file = folder / "ratings.safetensors"
    whole = file.read_bytes()
    content = bytearray(whole)
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)
    if bytes(content) != whole:
        refused(folder, "checksum")
    change_description(folder)  # whoever makes a file by hand also makes its checksum
    try:
        found = UserFolder.open(folder).ratings()
    except SubflError:
        return
    again = UserFolder.open(write(folder.parent / "again", found)).ratings()
    check_equal(again, found)
    assert len(found) == 3 and np.all((found.values >= 1) & (found.values <= 5))
