"""A user's own data, good and bad, through the whole command."""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from run_outcomes import Outcome
from torch_geometric.data import Data

from subfl_flower.cli import main

Train = Callable[..., Outcome]
CLASSES, SIZE = 3, 20


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Train:
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)
    runs: list[Path] = []

    def run(*overrides: str) -> Outcome:
        runs.append(tmp_path / f"run-{len(runs)}")
        fixed = ("method=fedavg", "model.hidden=8", "federation.rounds=2", f"hydra.run.dir={runs[-1]}")
        with pytest.raises(SystemExit) as ended:
            main([*fixed, *overrides])
        out, err = capfd.readouterr()
        return Outcome(runs[-1], int(ended.value.code or 0), out, err)

    return run


def refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith("subfl: ") and all(word in line for word in words), line
    assert not outcome.directory.exists() or not any(outcome.directory.iterdir())


def graph(seed: int = 0) -> Data:
    """Three rings of 20 nodes, one a class, tied to one another by single edges."""
    rng = np.random.default_rng(seed)
    ring = [(c * SIZE + k, c * SIZE + (k + 1) % SIZE) for c in range(CLASSES) for k in range(SIZE)]
    ring += [(0, SIZE), (SIZE, 2 * SIZE)]
    labels = np.repeat(np.arange(CLASSES), SIZE)
    features = rng.standard_normal((CLASSES * SIZE, 5)).astype(np.float32)
    features[np.arange(len(labels)), labels] += 3
    edges = np.array([*ring, *((b, a) for a, b in ring)]).T
    return Data(x=torch.from_numpy(features), edge_index=torch.from_numpy(edges), y=torch.from_numpy(labels))


def custom(data: Data, name: str = "graph.pt", clients: int = 3) -> list[str]:
    torch.save(data, name)
    return ["dataset=custom", f"dataset.path={name}", "dataset.train_fraction=0.5", f"partition.clients={clients}"]


def test_a_sound_graph_is_learnt(train: Train) -> None:
    outcome = train(*custom(graph()), "partition=random", "federation.rounds=30", "optimizer.lr=0.05")
    assert outcome.code == 0, outcome.stderr
    assert outcome.summary["test_last"] > 0.8
    assert sum(outcome.rounds[0]["clients"]["num_examples"]) == 30


def test_tables_give_the_run_that_the_tensors_give(train: Train, tmp_path: Path) -> None:
    data = graph()
    folder = tmp_path / "tables"
    folder.mkdir()
    nodes = pd.DataFrame({"id": [f"n{k}" for k in range(60)], "label": [f"class {int(y)}" for y in data.y]})
    for column in range(5):
        nodes[f"f{column}"] = data.x[:, column].numpy().astype(str)
    nodes.to_csv(folder / "nodes.csv", index=False)
    pd.DataFrame(
        {"source": [f"n{k}" for k in data.edge_index[0]], "target": [f"n{k}" for k in data.edge_index[1]]}
    ).to_csv(folder / "edges.csv", index=False)
    tensors = train(*custom(data))
    tables = train(*custom(data), "dataset.path=tables", "dataset.features.standardize=false")
    np.testing.assert_allclose(tables.values("train_loss"), tensors.values("train_loss"), atol=1e-5)


def test_self_loops_and_duplicate_and_one_way_edges_change_nothing(train: Train) -> None:
    clean, dirty = graph(), graph()
    loops = torch.arange(0, 60, 7).repeat(2, 1)
    one_way = clean.edge_index[:, clean.edge_index[0] < clean.edge_index[1]]
    dirty.edge_index = torch.cat([one_way, loops, one_way[:, :30], loops], dim=1)
    outcomes = [train(*custom(data, name)) for data, name in ((clean, "clean.pt"), (dirty, "dirty.pt"))]
    assert [outcome.code for outcome in outcomes] == [0, 0]
    np.testing.assert_allclose(outcomes[1].values("train_loss"), outcomes[0].values("train_loss"), atol=1e-6)
    np.testing.assert_allclose(outcomes[1].values("test"), outcomes[0].values("test"), atol=1e-6)


@pytest.mark.parametrize("keep", [True, False])
def test_isolated_nodes_train_on_their_own_features(train: Train, keep: bool) -> None:
    data = graph()
    lonely = Data(
        x=torch.cat([data.x, torch.full((12, 5), 0.5)]),
        edge_index=data.edge_index,
        y=torch.cat([data.y, torch.arange(12) % CLASSES]),
    )
    outcome = train(*custom(lonely), f"dataset.largest_component={str(not keep).lower()}")
    assert outcome.code == 0, outcome.stderr
    assert sum(outcome.rounds[-1]["clients"]["num_examples"]) == (36 if keep else 30)
    assert np.isfinite(outcome.values("train_loss")).all()


def test_a_graph_without_a_single_edge_is_trained(train: Train) -> None:
    data = graph()
    data.edge_index = torch.zeros((2, 0), dtype=torch.long)
    outcome = train(*custom(data), "partition=random")
    assert outcome.code == 0, outcome.stderr
    assert np.isfinite(outcome.values("train_loss")).all()


def test_unlabelled_nodes_take_no_role(train: Train) -> None:
    data = graph()
    data.y[::2] = -1
    outcome = train(*custom(data))
    assert outcome.code == 0 and sum(outcome.rounds[0]["clients"]["num_examples"]) == 15


def test_missing_and_damaged_files_are_named(train: Train, tmp_path: Path) -> None:
    refused(train("dataset=custom", "dataset.path=absent.pt"), "absent.pt", "does not exist")
    arguments = custom(graph())
    whole = (tmp_path / "graph.pt").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"not a graph"):
        (tmp_path / "graph.pt").write_bytes(damaged)
        refused(train(*arguments), "graph.pt")
    refused(train("partition=given", "partition.file=absent.npz"), "absent.npz")
    (tmp_path / "parts.npz").write_bytes(b"not an archive")
    refused(train("partition=given", "partition.file=parts.npz"), "parts.npz")


def test_a_file_that_changes_is_read_again(train: Train) -> None:
    first = train(*custom(graph()))
    data = graph()
    data.x = data.x[:, [1, 2, 0, 3, 4]] * 2
    second = train(*custom(data))
    assert np.abs(first.values("train_loss") - second.values("train_loss")).max() > 1e-3


def test_features_that_are_no_numbers_are_refused(train: Train) -> None:
    data = graph()
    data.x[17, 2] = float("nan")
    data.x[40, 0] = float("inf")
    refused(train(*custom(data)), "2 feature values are NaN or infinite", "node 17")


def test_edges_to_nowhere_are_refused(train: Train) -> None:
    data = graph()
    data.edge_index[1, 3] = 60
    refused(train(*custom(data)), "outside 0..59", "edge 3")


def test_a_graph_without_labels_is_refused(train: Train) -> None:
    data = graph()
    del data.y
    refused(train(*custom(data)), "no labels")
    data.y = torch.full((60,), -1)
    refused(train(*custom(data)), "no labels")


def test_a_client_without_a_training_node_is_named(train: Train, tmp_path: Path) -> None:
    split = np.repeat([0, 1, 2], SIZE)
    np.savez(tmp_path / "parts.npz", split=split, client_0=np.arange(0, 60, 2), client_1=np.arange(41, 60))
    refused(
        train(*custom(graph()), "~partition.clients", "partition=given", "partition.file=parts.npz"),
        "client 1 has no training node",
    )


def test_more_clients_than_nodes_is_refused(train: Train) -> None:
    refused(train(*custom(graph(), clients=61)), "61", "60 nodes")


def test_without_a_network_the_missing_files_and_their_place_are_named(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*arguments: object, **options: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for dataset, file, place in (
        ("cora", "ind.cora.allx", "Planetoid/Cora/raw"),
        ("photo", "amazon_electronics_photo.npz", "Amazon/Photo/raw"),
    ):
        refused(train(f"dataset={dataset}", f"data.root={tmp_path}/root"), file, f"{tmp_path}/root/{place}")


def test_a_damaged_benchmark_file_is_named(train: Train, cora_root: Path) -> None:
    file = cora_root / "Planetoid/Cora/raw/ind.cora.allx"
    file.write_bytes(file.read_bytes()[:1000])
    refused(train("dataset=cora", f"data.root={cora_root}"), "ind.cora.allx")


def test_cora_trains_from_its_raw_files_with_sparse_features(train: Train, cora_root: Path) -> None:
    outcome = train("dataset=cora", f"data.root={cora_root}", "method=fedpub", "model.hidden=32", "optimizer.lr=0.02")
    assert outcome.code == 0, outcome.stderr
    assert len(outcome.rounds) == 2 and outcome.summary["test_last"] > 0.3
    # Masks, and rows of words that a client never reads, make the upload smaller than plain floats.
    whole = 4 * (1433 * 32 + 32 + 32 * 32 + 32 + 32 * 7 + 7)
    assert max(outcome.rounds[0]["clients"]["bytes_up"]) < whole
