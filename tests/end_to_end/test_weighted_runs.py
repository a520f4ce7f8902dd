"""Whole runs on a graph whose edges have weights: who uses them, and who refuses them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from run_outcomes import SMALL_GENERATOR, Outcome

from subfl_flower.cli import main
from subfl_flower.composition import composed_config
from subfl_flower.data.folders.subgraph_folder import ClientFolder, write_client_folder
from subfl_flower.data.graph import Graph
from subfl_flower.data.prepared.partition import PreparedPartition
from subfl_flower.data.prepared.partition_files import write_partition
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import NodeSecrets
from subfl_flower.subgraphs import domain as graph_kind
from subfl_flower.subgraphs.domain import Subgraphs

NODES, CLASSES, CLIENTS = 120, 3, 3
METRICS = ("train_loss", "validation", "test", "validation_as_received", "test_as_received")
SMALL = (
    *("dataset=digits", f"partition.clients={CLIENTS}", "model.hidden=8", "federation.rounds=2"),
    *("federation.local_epochs=2", "optimizer.lr=0.05"),
)
USERS = {
    "fedavg": ("method=fedavg",),
    "sage": ("method=fedavg", "model=sage"),
    "appnp": ("method=fedavg", "model=appnp", "model.hops=3"),
    "gcnii": ("method=fedpub", "model=gcnii", "model.layers=2"),
    "fedsage": ("method=fedsage",),
    "fedpub": ("method=fedpub", "method.random_blocks=2", "method.random_block_nodes=20"),
    "subpfed": ("method=subpfed",),
    "fedsg": ("method=fedsg", "method.random_blocks=2", "method.random_block_nodes=20"),
    "fedgcn": ("method=fedgcn",),
    "fedgcn, masked": ("method=fedgcn", "method.masking=true"),
    "fedgcn, one hop": ("method=fedgcn", "method.hops=1"),
    "links": ("method=fedgcn", "task=link_prediction"),
    "whole graph": ("method=fedavg_whole_graph",),
    "oracle": ("method=oracle",),
}
REFUSERS = {"fedsage_plus": SMALL_GENERATOR, "fedgnn_subgraph": ()}


def graph(kind: str) -> Graph:
    """Three loose communities, a class each; ``weighted``: an edge within one weighs ten times as much as others."""
    network = nx.random_partition_graph([NODES // CLASSES] * CLASSES, 0.12, 0.05, seed=1)
    edge_index = np.array(nx.to_numpy_array(network).nonzero(), dtype=np.int64)
    labels = np.repeat(np.arange(CLASSES), NODES // CLASSES)
    features = np.random.default_rng(0).standard_normal((NODES, 6)).astype(np.float32)
    features[np.arange(NODES), labels] += 1
    made = Graph(features, edge_index, labels, CLASSES)
    if kind == "plain":
        return made
    inside = labels[edge_index[0]] == labels[edge_index[1]]
    weight = np.where(inside, 2.5, 0.25) if kind == "weighted" else np.ones(edge_index.shape[1])
    return replace(made, edge_weight=weight.astype(np.float32))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, PreparedPartition]:
    """By kind of graph; clients share some nodes."""
    made = {}
    for number, kind in enumerate(("plain", "ones", "weighted")):
        folder = tmp_path_factory.mktemp(kind) / f"{number:016x}"
        folder.mkdir()
        nodes = np.random.default_rng(3).permutation(NODES)
        parts = [np.sort(np.concatenate([part, nodes[:6]])) for part in np.split(nodes[6:], CLIENTS)]
        roles = np.random.default_rng(4).integers(0, 3, NODES).astype(np.int8)
        dataset = {"name": "toy", "row_normalize": False}
        described = {"schema": PreparedPartition.schema, "dataset": dataset, "overlapping": True}
        write_partition(folder, graph(kind), roles, parts, described)
        made[kind] = PreparedPartition.open(folder)
    return made


Run = Callable[..., Outcome]


@pytest.fixture
def run(
    prepared: dict[str, PreparedPartition], inline_run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """A run on the clients of a kind of graph."""

    def on(kind: str, *overrides: str) -> Outcome:
        monkeypatch.setattr(graph_kind, "prepare", lambda *settings: prepared[kind])
        outcome = inline_run(*SMALL, *overrides)
        assert outcome.summary["status"] == "completed"
        assert np.isfinite(outcome.values("train_loss")).all()
        return outcome

    return on


@pytest.mark.parametrize("name", USERS)
def test_weights_of_one_give_the_run_without_weights(name: str, run: Run) -> None:
    """To the last bit of every figure, and of every model."""
    plain, ones = (run(kind, *USERS[name]) for kind in ("plain", "ones"))
    for metric in METRICS:
        np.testing.assert_array_equal(ones.values(metric), plain.values(metric), err_msg=metric)
    for key in ("bytes_up", "bytes_down"):
        assert ones.summary[key] == plain.summary[key]
    found, expected = ones.models(), plain.models()
    assert sorted(found) == sorted(expected) == list(range(CLIENTS))
    for client, model in expected.items():
        for parameter, values in model.items():
            np.testing.assert_array_equal(found[client][parameter], values)


@pytest.mark.parametrize("name", USERS)
def test_weights_change_what_is_learnt(name: str, run: Run) -> None:
    plain, weighted = (run(kind, *USERS[name]) for kind in ("plain", "weighted"))
    assert np.abs(weighted.values("train_loss") - plain.values("train_loss")).max() > 1e-3


@pytest.mark.parametrize("masking", [False, True])
def test_fedgcn_on_a_weighted_graph_is_fedavg_on_the_whole_of_it(masking: bool, run: Run) -> None:
    """Every node is held by somebody, and both have the same nodes in the same order: even dropout is the same."""
    whole = run("weighted", *USERS["whole graph"], "runtime.nodes=2")
    mended = run("weighted", *USERS["fedgcn"], f"method.masking={masking}".lower())
    for metric in METRICS:
        np.testing.assert_allclose(mended.values(metric), whole.values(metric), atol=1e-4, err_msg=metric)


@pytest.mark.parametrize("method", REFUSERS)
def test_a_method_without_use_for_weights_refuses_them(
    method: str,
    run: Run,
    prepared: dict[str, PreparedPartition],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    overrides = (f"method={method}", *REFUSERS[method])
    run("plain", *overrides)
    monkeypatch.setattr(graph_kind, "prepare", lambda *settings: prepared["weighted"])
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*SMALL, *overrides, f"hydra.run.dir={tmp_path}/refused"])
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.strip().splitlines()
    sentence = f"method={method} does not use edge weights; dataset.edge_weights=ignore leaves them out"
    assert line == f"subfl: {sentence}"
    assert not (tmp_path / "refused").exists() or not any((tmp_path / "refused").iterdir())


def test_a_machine_of_its_own_refuses_them_too(prepared: dict[str, PreparedPartition], tmp_path: Path) -> None:
    folder = tmp_path / "client"
    said = dict(dataset="digits", partition="", num_clients=None, overlapping=True, key=bytes(range(32)))
    write_client_folder(folder, prepared["weighted"].client(1), **said)  # type: ignore[arg-type]
    folders, secrets = [ClientFolder.open(folder)], NodeSecrets("run-1", {})
    config, _ = composed_config([*SMALL, "method=fedgnn_subgraph"])
    with pytest.raises(SubflError, match=r"^method=fedgnn_subgraph does not use edge weights; dataset.edge_weights"):
        Subgraphs().cohort_of_folders(config, folders, torch.device("cpu"), secrets)
    config, _ = composed_config([*SMALL, "method=fedavg"])
    (found,) = Subgraphs().cohort_of_folders(config, folders, torch.device("cpu"), secrets).graphs
    assert found.edge_weight is not None and set(found.edge_weight.tolist()) == {2.5, 0.25}
    for network, said_of_it in (("gat", "GAT of 2 layers"), ("gin", "GIN of 2 layers"), ("mlp", "MLP of 2 layers")):
        config, _ = composed_config([*SMALL, "method=fedavg", f"model={network}"])
        with pytest.raises(SubflError, match=rf"^model={said_of_it} does not use edge weights; dataset\."):
            Subgraphs().cohort_of_folders(config, folders, torch.device("cpu"), secrets)
    for target, uses in (("torch_geometric.nn.GAT", False), ("torch_geometric.nn.GCN", True)):
        depth = ("+model.hidden_channels=4", "+model.num_layers=2")
        config, _ = composed_config(
            ["dataset=digits", "method=fedavg", "model=module", f"model._target_={target}", *depth]
        )
        if uses:
            assert len(Subgraphs().cohort_of_folders(config, folders, torch.device("cpu"), secrets).graphs) == 1
        else:
            with pytest.raises(SubflError, match=rf"^model={re.escape(target)} does not use edge weights; dataset\."):
                Subgraphs().cohort_of_folders(config, folders, torch.device("cpu"), secrets)
