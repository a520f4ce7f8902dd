from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from client_folders import by_hand, describe, small_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save

from subfl_flower.data.data_facts import DataFacts, ReadingSettings
from subfl_flower.data.datasets.custom_settings import GraphColumns
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.folders import described_folder
from subfl_flower.data.folders.subgraph_folder import ClientFolder, write_client_folder
from subfl_flower.data.graph import ClientGraph
from subfl_flower.errors import SubflError

KEY = bytes(range(32))
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def write(path: Path, graph: ClientGraph, **changes: Any) -> Path:
    said: dict[str, Any] = dict(dataset="toy", partition="0" * 16, num_clients=10, overlapping=True, key=KEY)
    write_client_folder(path, graph, **(said | changes))
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check_equal(found: ClientGraph, expected: ClientGraph) -> None:
    for field in fields(ClientGraph):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if sp.issparse(one):
            assert sp.issparse(other)
            one, other = one.toarray(), other.toarray()
        np.testing.assert_array_equal(one, other, err_msg=field.name)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SubflError) as found:
        ClientFolder.open(path).graph()
    assert all(word in str(found.value) for word in words), str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_folder_gives_back_what_was_written(tmp_path: Path, sparse: bool) -> None:
    graph = small_client(sparse)
    folder = ClientFolder.open(write(tmp_path / "partition" / "client-02", graph))
    check_equal(folder.graph(), graph)
    assert names(folder.path) == ["client.json", "clients.key", "graph.safetensors"]
    assert names(folder.path.parent) == ["client-02"]
    assert folder.key_path.read_bytes() == KEY
    assert folder.key_path.stat().st_mode & 0o777 == 0o600
    said = json.loads((folder.path / "client.json").read_text())
    size = (folder.path / "graph.safetensors").stat().st_size
    assert said.pop("files")["graph.safetensors"]["bytes"] == size
    assert said == {
        "schema": 5, "kind": "graph", "client": 2, "dataset": "toy", "partition": "0" * 16, "clients": 10,
        "overlapping": True, "num_nodes": 4, "num_edges": 6, "num_cross_edges": 3, "num_features": 3, "num_classes": 2,
        "train": 1, "validation": 1, "test": 1, "classes": None, "transform": None, "data": None,
        "reading": {
            "encoding": "utf-8", "unlabelled": None, "edge_weights": "ignore", "missing": [],
            "columns": {"id": None, "label": None, "source": None, "target": None, "weight": None},
        },
    }  # fmt: skip
    assert folder.names() is None


FACTS = DataFacts(
    classes=("died", "home"),
    transform=FeatureTransform(columns=("age", "city"), one_hot={"city": ("a", "b")}, mean=(5, 0, 0), scale=(2, 1, 1)),
    data="0f" * 32,
    reading=ReadingSettings(encoding="latin-1", columns=GraphColumns(id="patient"), unlabelled=("?", -1)),
)
IDS = np.array(["0007", "café", "b, c", "8"], dtype=object)


def test_names_of_nodes_and_classes_come_back_with_the_treatment_of_features(tmp_path: Path) -> None:
    folder = ClientFolder.open(write(tmp_path / "client-02", small_client(), facts=FACTS, names=IDS))
    assert names(folder.path) == ["client.json", "clients.key", "graph.safetensors", "names.json"]
    assert json.loads((folder.path / "names.json").read_text()) == ["0007", "café", "b, c", "8"]
    found = folder.names()
    assert found is not None and found.tolist() == IDS.tolist()
    said = json.loads((folder.path / "client.json").read_text())
    assert said["classes"] == ["died", "home"] and said["data"] == "0f" * 32
    assert said["transform"]["one_hot"] == {"city": ["a", "b"]} and said["transform"]["scale"] == [2, 1, 1]
    assert folder.description.facts == FACTS
    assert folder.description.of_partition[-1] == ("died", "home")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[", "does not hold a list of texts"),
        ("{}", "does not hold a list of texts"),
        ('["a", "b", "c", 4]', "does not hold a list of texts"),
        ('["a", "b", "c"]', "must name 4 nodes, each otherwise"),
        ('["a", "b", "c", "c"]', "must name 4 nodes, each otherwise"),
    ],
)
def test_names_that_are_not_those_of_the_nodes_are_refused(tmp_path: Path, content: str, words: str) -> None:
    folder = by_hand(tmp_path / "client", small_client())
    (folder / "names.json").write_text(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content.encode()).hexdigest()}
    files = json.loads((folder / "client.json").read_text())["files"]
    describe(folder, files=files | {"names.json": entry})
    with pytest.raises(SubflError, match=f"names.json.*{words}.*make the folder again"):
        ClientFolder.open(folder).names()
    (folder / "names.json").write_text(content.replace("a", "x") if "a" in content else " " * len(content))
    with pytest.raises(SubflError, match=r"names.json is damaged"):
        ClientFolder.open(folder).names()


def test_a_sites_own_folder_does_not_know_the_others(tmp_path: Path) -> None:
    alone = np.empty((2, 0), dtype=np.int64)
    graph = small_client(labels=None, num_classes=0, roles=np.full(4, -1, dtype=np.int8), cross_edges=alone)
    folder = ClientFolder.open(write(tmp_path / "client-02", graph, partition="", num_clients=None))
    said = folder.description
    assert (said.num_clients, said.partition, said.train, said.num_cross_edges) == (None, "", 0, 0)
    check_equal(folder.graph(), graph)


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "client-02").mkdir()
    (tmp_path / "client-02" / "mine").write_text("precious")
    with pytest.raises(SubflError, match="client-02 exists already"):
        write(tmp_path / "client-02", small_client())
    assert (tmp_path / "client-02" / "mine").read_text() == "precious" and names(tmp_path) == ["client-02"]


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes, mode: int = 0) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(described_folder, "write_durably", full)
    with pytest.raises(SubflError, match="client-02 cannot be written: No space left on device"):
        write(tmp_path / "client-02", small_client())
    assert names(tmp_path) == []


def test_an_unsound_graph_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="the graph of client 2: features must be finite"):
        write(tmp_path / "client-02", small_client(features=np.full((4, 3), np.nan, dtype=np.float32)))
    assert names(tmp_path) == []


def test_missing_files_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "absent", "absent", "no such folder")
    folder = by_hand(tmp_path / "client", small_client())
    (folder / "client.json").rename(folder / "elsewhere")
    refused(folder, "client.json cannot be read", "No such file")
    (folder / "elsewhere").rename(folder / "client.json")
    (folder / "graph.safetensors").unlink()
    refused(folder, "graph.safetensors cannot be read", "No such file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is not JSON"]),
        (b"\xff{}", ["is not JSON"]),
        (b"[" * 100_000, ["is not JSON"]),
        (b"[]", ["must be a JSON object with 'schema'"]),
        (b"{}", ["must be a JSON object with 'schema'"]),
        (b'{"schema": 3}', ["has the schema 3, this version reads 5; make the folder again with subfl partition"]),
        (b'{"schema": 6}', ["has the schema 6, this version reads 5"]),
        (b'{"schema": 5}', ["describes a client with kind None, and one with 'graph' is needed here"]),
        (b'{"schema": 5, "kind": "graph"}', ["client: Field required"]),
    ],
)
def test_a_file_that_describes_nothing_is_refused(tmp_path: Path, content: bytes, words: list[str]) -> None:
    folder = by_hand(tmp_path / "client", small_client())
    (folder / "client.json").write_bytes(content)
    refused(folder, "client.json", *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": True}, ["has the schema True, this version reads 5"]),
        ({"schema": 5.0}, ["schema", "integer"]),
        ({"client": "2"}, ["client", "integer"]),
        ({"client": 2.0}, ["client", "integer"]),
        ({"client": -1}, ["client", "greater than or equal to 0"]),
        ({"client": 10}, ["client 10 is none of the clients 0..9"]),
        ({"overlapping": 1}, ["overlapping", "boolean"]),
        ({"partition": "../../etc"}, ["partition"]),
        ({"num_nodes": 0}, ["num_nodes"]),
        ({"owner": "me"}, ["owner", "not permitted"]),
        ({"files": {}}, ["files must speak of graph.safetensors"]),
        ({"files": {"../graph.safetensors": {"bytes": 1, "sha256": "0" * 64}}}, ["names.json and of nothing"]),
        ({"client": 3}, ["client_id is 2, where client.json says 3"]),
        ({"num_edges": 8}, ["num_edges is 6, where client.json says 8"]),
        ({"num_cross_edges": 6}, ["num_cross_edges is 3, where client.json says 6"]),
        ({"num_cross_edges": -1}, ["num_cross_edges", "greater than or equal to 0"]),
        ({"num_features": 4}, ["num_features is 3", "says 4"]),
        ({"train": 2}, ["train is 1", "says 2"]),
        ({"classes": ["a", "b", "c"]}, ["classes must be 2 different names"]),
        ({"classes": ["a", "a"]}, ["classes must be 2 different names"]),
        ({"classes": [1, 2]}, ["classes", "string"]),
        ({"transform": {"scale": [0.0], "mean": [0.0]}}, ["transform", "scale must be positive"]),
        ({"data": "short"}, ["data", "pattern"]),
        ({"reading": {"encoding": "klingon"}}, ["reading.encoding", "an encoding that Python knows"]),
    ],
)
def test_a_description_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], words: list[str]) -> None:
    refused(by_hand(tmp_path / "client", small_client(), **change), *words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(node_ids=np.array([5, 8, 7, 11])), "node_ids must be ascending"),
        (dict(node_ids=np.array([-5, 7, 8, 11])), "node_ids must be ascending"),
        (dict(node_ids=np.array([5, 7, 8, 11], dtype=np.int32)), "node_ids is int32"),
        (dict(node_ids=np.array([5, 7, 8])), "features is float32 [4, 3], where float32 [3, 3] belongs"),
        (dict(features=np.ones((4, 3))), "features is float64"),
        (dict(features=np.full((4, 3), np.inf, dtype=np.float32)), "features must be finite"),
        (dict(edge_index=np.array([[0, 4], [4, 0]])), "edge_index names the nodes 0..4 of 0..3"),
        (dict(edge_index=np.array([[-1, 0], [0, -1]])), "edge_index names the nodes -1..0"),
        (dict(edge_index=np.array([[0, 1], [0, 0]])), "joins a node with itself"),
        (dict(edge_index=np.array([[1, 0], [0, 1]])), "must be sorted"),
        (dict(edge_index=np.array([[0, 0, 1], [1, 1, 0]])), "every edge once"),
        (dict(edge_index=np.array([[0, 1], [1, 2]])), "both directions"),
        (dict(edge_index=np.array([[0.0, 1.0], [1.0, 0.0]])), "edge_index is float64"),
        (dict(edge_index=np.array([0, 1])), "edge_index is int64 [2], where int64 [2, 0] belongs"),
        (dict(labels=np.array([0, 1, 2, -1])), "labels run from -1 to 2; allowed are 0..1"),
        (dict(labels=np.array([0, 1, -2, -1])), "labels run from -2 to 1"),
        (dict(labels=None), "num_classes is 2 without labels"),
        (dict(num_classes=0), "num_classes is 0 with labels"),
        (dict(roles=np.array([0, 1, 3, -1], dtype=np.int8)), "roles run from -1 to 3"),
        (dict(roles=np.array([0, 1, 2, 2], dtype=np.int8)), "a node without a label has a role"),
        (dict(roles=np.array([0, 1, 2, -1])), "roles is int64"),
        (dict(shareable=np.zeros(4, dtype=np.int8)), "shareable is int8"),
        (dict(shareable=np.zeros(3, dtype=bool)), "shareable is bool [3]"),
        (dict(cross_edges=np.array([[0], [3]], dtype=np.int32)), "cross_edges is int32 [2, 1], where int64 [2, 1]"),
        (dict(cross_edges=np.array([0, 3])), "cross_edges is int64 [2], where int64 [2, 0] belongs"),
        (dict(cross_edges=np.array([[0, 3]])), "cross_edges is int64 [1, 2], where int64 [2, 2] belongs"),
        (dict(cross_edges=np.array([[0, 4], [3, 3]])), "cross_edges name the client's nodes 0..4 of 0..3"),
        (dict(cross_edges=np.array([[-1, 0], [3, 3]])), "cross_edges name the client's nodes -1..0 of 0..3"),
        (dict(cross_edges=np.array([[0, 1], [-3, 3]])), "cross_edges lead to the node -3"),
        (dict(cross_edges=np.array([[0, 1], [3, 8]])), "cross_edges lead to the node 8, which the client holds itself"),
        (dict(cross_edges=np.array([[2, 0], [3, 6]])), "cross_edges must be sorted"),
        (dict(cross_edges=np.array([[2, 2], [6, 3]])), "cross_edges must be sorted"),
        (dict(cross_edges=np.array([[2, 2], [6, 6]])), "every edge once"),
    ],
)
def test_a_hand_made_graph_that_is_none_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    refused(by_hand(tmp_path / "client", small_client(**change)), "graph.safetensors: ", words)


@pytest.mark.parametrize(
    ("part", "values", "words"),
    [
        ("features.indices", np.array([0, 1, 2, 0, 3], dtype=np.int32), ""),
        ("features.indices", np.array([0, 1, 2, 0, -1], dtype=np.int32), ""),
        ("features.indices", np.array([0, 1, 2, 0, 2], dtype=np.float32), "are float32 and int32, not integers"),
        ("features.indptr", np.array([0, 1, 5, 3, 5], dtype=np.int32), ""),
        ("features.indptr", np.array([0, 1, 2, 3], dtype=np.int32), "does not hold a client's graph: "),
        ("features.indptr", np.array([0, 1, 2, 3, 9], dtype=np.int32), "does not hold a client's graph: "),
        ("features.indptr", np.array([0.5, 1, 2, 3, 5]), "features.indptr are int32 and float64, not integers"),
        ("features.data", np.array([1, 2, 3, 4, np.nan], dtype=np.float32), "features must be finite"),
        ("features.data", np.array([1, 2, 3], dtype=np.float32), "does not hold a client's graph: "),
        ("features.data", None, "does not hold a client's graph: 'features.data' is missing"),
        ("roles", None, "does not hold a client's graph: 'roles' is missing"),
        ("cross_edges", None, "does not hold a client's graph: 'cross_edges' is missing"),
        ("features", np.ones(4, dtype=np.float32), "features"),
        ("features", np.ones((4, 0), dtype=np.float32), "features"),
        ("features", np.float32(1), "features"),
    ],
)
def test_tensors_that_are_no_graph_are_refused(
    tmp_path: Path, part: str, values: np.ndarray | None, words: str
) -> None:
    folder = by_hand(tmp_path / "client", small_client(sparse=True))
    file = folder / "graph.safetensors"
    tensors = load_file(file)
    tensors.pop(part, None)
    if values is not None:
        tensors[part] = np.asarray(values)
    file.write_bytes(save(tensors, {"card": json.dumps(CARD)}))
    describe(folder)
    refused(folder, "graph.safetensors", words)


CARD = {"kind": "client_graph", "schema": 1, "num_nodes": 4, "num_features": 3, "num_classes": 2, "client_id": 2}


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ("[]", "card: Input should be an object"),
        ("3", "card: Input should be an object"),
        ("{", "card: Invalid JSON"),
        ("[" * 5000, "card: Invalid JSON"),
        ("{}", "its card states no kind, where 'client_graph' belongs"),
        ('{"schema": 1}', "its card states no kind, where 'client_graph' belongs"),
        ({**CARD, "kind": "graph"}, "its card is of the kind 'graph', where 'client_graph' belongs"),
        ('{"kind": "client_graph"}', "its card does not state a schema"),
        ({**CARD, "schema": 2}, "a newer version wrote it (schema 2, this version reads the schema 1)"),
        ({**CARD, "schema": True}, "card.schema: Input should be a valid integer"),
        ({**CARD, "client_id": "2"}, "card.client_id: Input should be a valid integer"),
        ({**CARD, "client_id": 2.0}, "card.client_id: Input should be a valid integer"),
        ({**CARD, "client_id": True}, "card.client_id: Input should be a valid integer"),
        ({**CARD, "client_id": -2}, "card.client_id: Input should be greater than or equal to 0"),
        ({**CARD, "num_classes": None}, "card.num_classes: Input should be a valid integer"),
        ({name: value for name, value in CARD.items() if name != "client_id"}, "card.client_id: Field required"),
        ({**CARD, "more": 1}, "card.more: Extra inputs are not permitted"),
    ],
)
def test_a_card_that_is_none_is_refused(tmp_path: Path, card: str | dict[str, Any], words: str) -> None:
    folder = by_hand(tmp_path / "client", small_client())
    tensors = load_file(folder / "graph.safetensors")
    text = card if isinstance(card, str) else json.dumps(card)
    (folder / "graph.safetensors").write_bytes(save(tensors, {"card": text}))
    describe(folder)
    refused(folder, "graph.safetensors", words)


@pytest.mark.parametrize(("name", "value"), [("num_nodes", 10**30), ("num_features", 1)])
def test_sizes_that_are_not_the_matrix_are_refused(tmp_path: Path, name: str, value: int) -> None:
    folder = by_hand(tmp_path / "client", small_client(sparse=True))
    tensors = load_file(folder / "graph.safetensors")
    (folder / "graph.safetensors").write_bytes(save(tensors, {"card": json.dumps({**CARD, name: value})}))
    describe(folder)
    refused(folder, "graph.safetensors")


def test_the_card_says_the_sizes(tmp_path: Path) -> None:
    folder = write(tmp_path / "client", small_client(sparse=True))
    with safe_open(folder / "graph.safetensors", framework="numpy") as file:
        assert json.loads(file.metadata()["card"]) == CARD


def test_damage_is_found_out_by_size_and_by_checksum(tmp_path: Path) -> None:
    folder = write(tmp_path / "client", small_client())
    file = folder / "graph.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    refused(folder, f"has {len(whole) - 1} bytes, where client.json says {len(whole)}")
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(folder, "its checksum differs")


@FUZZ
@given(changes=st.dictionaries(st.sampled_from(["schema", "client", "clients", "num_nodes", "files", "x"]), JSON))
def test_any_description_is_valid_or_refused_in_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    graph = small_client()
    folder = by_hand(tmp_path_factory.mktemp("fuzz") / "client", graph, **changes)
    try:
        check_equal(ClientFolder.open(folder).graph(), graph)
    except SubflError:
        return
    assert json.loads((folder / "client.json").read_text())["client"] == 2


@FUZZ
@given(content=st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_instead_of_a_description_are_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = by_hand(tmp_path_factory.mktemp("fuzz") / "client", small_client())
    (folder / "client.json").write_bytes(content)
    refused(folder, "client.json")


@FUZZ
@given(
    sparse=st.booleans(), flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 7)), min_size=1, max_size=3)
)
def test_a_flipped_bit_is_noticed_or_leaves_a_sound_graph(
    tmp_path_factory: pytest.TempPathFactory, sparse: bool, flips: list[tuple[int, int]]
) -> None:
    original = small_client(sparse)
    folder = by_hand(tmp_path_factory.mktemp("fuzz") / "client", original)
    file = folder / "graph.safetensors"
    whole = file.read_bytes()
    content = bytearray(whole)
    for place, bit in flips:
        content[place % len(content)] ^= 1 << bit
    file.write_bytes(content)
    if bytes(content) != whole:
        refused(folder, "checksum")
    describe(folder)  # whoever makes a file by hand also makes its checksum
    try:
        found = ClientFolder.open(folder).graph()
    except SubflError:
        return
    # Whatever is let through is a graph of the same size that checks again as sound.
    check_equal(ClientFolder.open(by_hand(folder.parent / "again", found)).graph(), found)
    assert found.num_nodes == 4 and found.edge_index.shape == (2, 6) and found.cross_edges.shape == (2, 3)


@FUZZ
@given(length=st.integers(0, 10**6))
def test_a_shortened_graph_file_is_refused(tmp_path_factory: pytest.TempPathFactory, length: int) -> None:
    folder = by_hand(tmp_path_factory.mktemp("fuzz") / "client", small_client())
    file = folder / "graph.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[: length % len(whole)])
    refused(folder, "bytes, where client.json says")
    describe(folder)
    refused(folder, "graph.safetensors")


def test_a_graph_of_another_client_is_not_taken_for_this_one(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "client", replace(small_client(), client_id=4))
    refused(folder, "client_id is 4, where client.json says 2")
