from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from subfl_flower.data.datasets import (
    CustomDataset,
    DatasetSettings,
    DigitsDataset,
    Protocol,
    StochasticBlockModelDataset,
)
from subfl_flower.data.graph_file import GraphCard, read_graph
from subfl_flower.data.partitions import (
    DirichletPartition,
    GivenPartition,
    ImbalancedPartition,
    LouvainPartition,
    MetisPartition,
    OverlappingPartition,
    OverlapRatePartition,
    PartitionSettings,
    RandomPartition,
)
from subfl_flower.data.prepared.partition import PreparedPartition, prepare
from subfl_flower.errors import SubflError
from subfl_flower.storage.tensor_file import write_tensor_file

SMALL = StochasticBlockModelDataset(nodes_per_community=30, p_class=0.3, features=8)
METIS = MetisPartition(clients=4)
SCRIPT = """
import resource, sys
from pathlib import Path
from subfl_flower.data.datasets import StochasticBlockModelDataset
from subfl_flower.data.partitions import MetisPartition
from subfl_flower.data.prepared.partition import prepare
if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
prepared = prepare(
    StochasticBlockModelDataset(nodes_per_community=30, p_class=0.3, features=8), MetisPartition(clients=4),
    Path("nowhere"), Path(sys.argv[1]),
)
print(prepared.directory, (prepared.directory / "metadata.json").stat().st_ino)
"""


def made(tmp_path: Path, dataset: DatasetSettings = SMALL, partition: PartitionSettings = METIS) -> PreparedPartition:
    return prepare(dataset, partition, tmp_path / "root", tmp_path / "cache")


def entries(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").iterdir() if path.is_dir())


def contents(prepared: PreparedPartition) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in prepared.directory.iterdir()}


@pytest.mark.parametrize("dataset", [SMALL, SMALL.model_copy(update={"features": 400, "signal": 0.0})])
def test_what_is_read_is_what_was_divided(tmp_path: Path, dataset: StochasticBlockModelDataset) -> None:
    prepared = made(tmp_path, dataset)
    original = dataset.load(tmp_path)
    graph, roles = prepared.graph()
    np.testing.assert_array_equal(graph.features, original.features)
    np.testing.assert_array_equal(graph.edge_index, original.edge_index)
    np.testing.assert_array_equal(graph.labels, original.labels)
    np.testing.assert_array_equal(roles, METIS.roles(original, 0.2))
    assert (prepared.num_clients, prepared.num_features, prepared.num_classes) == (4, dataset.features, 10)
    for client_id, nodes in enumerate(METIS.assign(original)):
        client = prepared.client(client_id)
        np.testing.assert_array_equal(client.node_ids, nodes)
        np.testing.assert_array_equal(client.features, original.features[nodes])
        assert prepared.metadata["clients"][client_id] == {
            "nodes": nodes.size,
            "edges": client.edge_index.shape[1],
            "train": client.num_train,
            "validation": int((client.roles == 1).sum()),
            "test": int((client.roles == 2).sum()),
        }
    with pytest.raises(SubflError, match=r"has the clients 0\.\.3, not 4"):
        prepared.client(4)


def test_sparse_features_survive_the_disk(tmp_path: Path) -> None:
    with (tmp_path / "nodes.csv").open("w") as nodes:
        print("id,label," + ",".join(f"f{i}" for i in range(20)), file=nodes)
        for node in range(12):
            print(f"{node},{node % 2}," + ",".join(str(int(i == node)) for i in range(20)), file=nodes)
    (tmp_path / "edges.csv").write_text("source,target\n" + "".join(f"{i},{i + 1}\n" for i in range(11)))
    dataset = CustomDataset(path=tmp_path, train_fraction=0.8)
    prepared = made(tmp_path, dataset, RandomPartition(clients=2))
    client = prepared.client(1)
    assert not isinstance(client.features, np.ndarray) and client.features.shape == (6, 20)
    np.testing.assert_array_equal(client.features.toarray(), np.eye(12, 20)[client.node_ids])
    np.testing.assert_array_equal(prepared.graph()[0].features.toarray(), np.eye(12, 20))


def test_no_file_needs_pickle_and_a_second_call_writes_nothing(tmp_path: Path) -> None:
    first = made(tmp_path)
    assert {path.suffix for path in first.directory.iterdir()} == {".json", ".safetensors"}
    stamps = {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    assert made(tmp_path).directory == first.directory
    assert {path.name: path.stat().st_mtime_ns for path in first.directory.iterdir()} == stamps


def test_the_key_follows_every_setting_that_shapes_the_data(tmp_path: Path) -> None:
    variations: list[tuple[DatasetSettings, PartitionSettings]] = [(SMALL, METIS)]
    changes: dict[str, Any] = {
        "variant": "overlapping", "communities": 4, "nodes_per_community": 31, "classes_per_community": 1,
        "overlap": 0.5, "p_class": 0.4, "p_community": 0.05, "p_out": 0.01, "features": 9, "signal": 0.5,
        "graph_seed": 1, "train_fraction": 0.3, "largest_component": False, "row_normalize": True,
    }  # fmt: skip
    assert set(changes) | {"name", "protocol"} == set(StochasticBlockModelDataset.model_fields)
    variations += [(SMALL.model_copy(update={field: value}), METIS) for field, value in changes.items()]
    variations += [(DigitsDataset(), METIS), (DigitsDataset(neighbours=9), METIS)]
    variations += [(SMALL, MetisPartition(clients=3)), (SMALL, MetisPartition(clients=4, seed=1))]
    variations += [(SMALL, RandomPartition(clients=4)), (SMALL, OverlappingPartition(clients=5))]
    variations += [(SMALL, ImbalancedPartition(clients=4, parts=n)) for n in (None, 8)]
    variations += [(SMALL, ImbalancedPartition(clients=2, groups=groups)) for groups in ([[0, 1], [2]], [[0], [1, 2]])]
    variations += [(SMALL, OverlapRatePartition(clients=5, rate=rate)) for rate in (0.0, 0.1, 0.2)]
    variations += [(SMALL, LouvainPartition(clients=4, resolution=resolution)) for resolution in (1.0, 2.0)]
    variations += [(SMALL, DirichletPartition(clients=4, alpha=alpha)) for alpha in (1.0, 2.0)]
    variations += [(SMALL, DirichletPartition(clients=4, min_nodes=5))]
    directories = {
        prepare(dataset, partition, tmp_path, tmp_path / "cache", require_labels=False).directory
        for dataset, partition in variations
    }
    assert len(directories) == len(variations) == len(entries(tmp_path))


def test_the_key_does_not_follow_the_protocol(tmp_path: Path) -> None:
    longer = SMALL.model_copy(update={"protocol": Protocol(rounds=7, local_epochs=3)})
    assert made(tmp_path).directory == made(tmp_path, longer).directory


def test_the_key_follows_the_content_of_the_users_files(tmp_path: Path) -> None:
    (tmp_path / "nodes.csv").write_text("id,label,f\na,0,1\nb,1,2\nc,0,3\nd,1,4\n")
    (tmp_path / "edges.csv").write_text("source,target\na,b\n")
    np.savez(
        tmp_path / "given.npz",
        split=np.zeros(4, np.int8),
        client_0=np.array([0, 1]),
        client_1=np.array([2, 3]),
    )
    dataset, partition = CustomDataset(path=tmp_path), GivenPartition(file=tmp_path / "given.npz", by="row")
    first = made(tmp_path, dataset, partition).directory
    (tmp_path / "edges.csv").write_text("source,target\na,c\n")
    second = made(tmp_path, dataset, partition)
    assert second.directory != first and second.cross_edges().tolist() == [[0, 2], [2, 0]]
    np.savez(
        tmp_path / "given.npz",
        split=np.zeros(4, np.int8),
        client_0=np.array([0, 2]),
        client_1=np.array([1, 3]),
    )
    third = made(tmp_path, dataset, partition)
    assert third.directory not in (first, second.directory) and third.cross_edges().shape == (2, 0)


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["client-0002.safetensors", "global.safetensors", "metadata.json"])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
def test_a_damaged_entry_is_made_anew(tmp_path: Path, name: str, damage: Any) -> None:
    first = made(tmp_path)
    whole = contents(first)
    damage(first.directory / name)
    if name == "metadata.json" and damage is flip_a_bit:
        (first.directory / name).write_text(json.dumps({"schema": 1, "files": []}))
    assert contents(made(tmp_path)) == whole
    assert len(entries(tmp_path)) == 1


def test_a_damaged_file_is_refused_when_it_is_read(tmp_path: Path) -> None:
    directory = made(tmp_path).directory
    flip_a_bit(directory / "client-0001.safetensors")
    reopened = PreparedPartition.open(directory)
    assert reopened.client(0).client_id == 0
    with pytest.raises(SubflError, match=r"client-0001\.safetensors is damaged \(its checksum differs\)"):
        reopened.client(1)
    truncate(directory / "cross_edges.safetensors")
    with pytest.raises(SubflError, match=r"cross_edges\.safetensors has \d+ bytes, where metadata\.json says \d+"):
        PreparedPartition.open(directory)
    with pytest.raises(SubflError, match=r"metadata\.json is missing or damaged"):
        PreparedPartition.open(tmp_path)


def test_an_entry_of_another_schema_is_refused_and_made_anew(tmp_path: Path) -> None:
    first = made(tmp_path)
    whole = contents(first)
    metadata = first.directory / "metadata.json"
    metadata.write_text(json.dumps(first.metadata | {"schema": 5}))
    with pytest.raises(SubflError, match="has the schema 5, this version reads 7"):
        PreparedPartition.open(first.directory)
    assert contents(made(tmp_path)) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"roles": None}, "does not hold a prepared graph: 'roles' is missing; prepare the partition again"),
        ({"features.indptr": np.array([0, 1, 9])}, "does not hold a prepared graph: "),
        ({"features.indptr": np.array([0, 0.5, 1])}, "features.indptr are int64 and float64, not integers"),
    ],
)
def test_arrays_that_make_no_graph_are_refused_in_a_sentence(
    tmp_path: Path, change: dict[str, np.ndarray | None], words: str
) -> None:
    path, parts = tmp_path / "global.safetensors", ("data", "indices", "indptr")
    matrix = sp.csr_array(np.array([[0, 1], [0, 0]], dtype=np.float32))
    sound = {f"features.{part}": np.asarray(getattr(matrix, part)) for part in parts} | {
        "features.indices": np.array([1]), "edge_index": np.empty((2, 0), dtype=np.int64),
        "roles": np.zeros(2, dtype=np.int8),
    }  # fmt: skip
    card = GraphCard(num_nodes=2, num_features=2, num_classes=0)
    write_tensor_file(path, sound, card)
    np.testing.assert_array_equal(read_graph(path)[0].features.toarray(), matrix.toarray())
    arrays = {name: array for name, array in (sound | change).items() if array is not None}
    write_tensor_file(path, arrays, card)
    with pytest.raises(SubflError) as error:
        read_graph(path)
    assert str(error.value).startswith(f"{path} ") and words in str(error.value) and "\n" not in str(error.value)


def test_concurrent_processes_make_one_entry(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    printed = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 4
    assert len(printed) == 1  # the same directory and the same file: it was written once
    assert len(entries(tmp_path)) == 1


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cache"), "6000"]  # no file above 6,000 bytes
    failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert failed.returncode != 0 and "SubflError: a prepared graph cannot be written to" in failed.stderr
    assert "global.safetensors: File too large" in failed.stderr
    assert entries(tmp_path) == []


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    name = made(tmp_path).directory.name
    whole = contents(made(tmp_path))
    left = tmp_path / "cache" / f".{name}.4711.0a0b0c0d.unfinished"
    (tmp_path / "cache" / name).rename(left)
    (left / "metadata.json").unlink()
    assert contents(made(tmp_path)) == whole
    assert entries(tmp_path) == [name]


def test_a_client_without_a_training_node_is_named_and_nothing_is_kept(tmp_path: Path) -> None:
    split = np.full(150, 2, np.int8)
    split[:10] = 0
    dataset = SMALL.model_copy(update={"largest_component": False})
    np.savez(tmp_path / "given.npz", split=split, client_0=np.arange(60), client_1=np.arange(60, 150))
    partition = GivenPartition(file=tmp_path / "given.npz")
    with pytest.raises(SubflError, match=r"^client 1 has no training node"):
        made(tmp_path, dataset, partition)
    assert entries(tmp_path) == []
    prepared = prepare(dataset, partition, tmp_path, tmp_path / "cache", require_labels=False)
    assert prepared.client(1).num_train == 0
    with pytest.raises(SubflError, match=r"^client 1 has no training node"):
        made(tmp_path, dataset, partition)
    np.savez(tmp_path / "given.npz", split=split, client_0=np.arange(60), client_1=np.arange(0))
    with pytest.raises(SubflError, match="client 1 gets no node"):
        made(tmp_path, dataset, partition)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    with pytest.raises(SubflError, match=r"cannot be written to .*cache"):
        made(tmp_path)
