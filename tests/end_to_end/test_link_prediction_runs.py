"""Link prediction from the data to the summary: what is learnt, recorded and kept, wherever clients run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from run_outcomes import Outcome, run_inline
from torch_geometric.data import Data

from subfl_flower.composition import composed_config
from subfl_flower.data.graph import TRAIN
from subfl_flower.data.prepared.partition import prepare
from subfl_flower.errors import SubflError
from subfl_flower.tasks.choices import LinkPrediction

LINKS = ("dataset=digits", "task=link_prediction", "model.hidden=16", "federation.local_epochs=3")
METHODS = {
    "local": (),
    "fedavg": (),
    "fedpub": ("method.random_blocks=2", "method.random_block_nodes=20"),
    "subpfed": ("partition=overlap_rate",),
    "oracle": (),
}
ROUNDS = 4
Runs = tuple[str, Outcome, Outcome]


@pytest.fixture(scope="module", params=METHODS)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A method, its run on one node, and the same on three."""
    folder, method = tmp_path_factory.mktemp(request.param), request.param
    overrides = (*LINKS, f"federation.rounds={ROUNDS}", f"method={method}", *METHODS[method])
    one = run_inline(folder / "one", *overrides, "runtime.nodes=1", "runtime.chunk=1")
    return method, one, run_inline(folder / "three", *overrides, "runtime.nodes=3", "runtime.chunk=all")


def test_every_method_learns_to_tell_edges(runs: Runs) -> None:
    """A convolution alone makes neighbours alike: random parameters reach 0.78."""
    _, one, _ = runs
    assert one.summary["metric"] == "roc_auc" and one.summary["task"] == "link_prediction"
    assert {record["metric"] for record in one.rounds} == {"roc_auc"}
    assert 0.7 < one.rounds[0]["test_as_received"] < one.summary["test_at_best_validation"] - 0.01 <= 0.99
    assert one.summary["test_at_best_validation"] == one.rounds[one.summary["best_round"] - 1]["test"]


def test_placement_changes_nothing(runs: Runs) -> None:
    """A figure is a rank statistic: a rounding error moves it by a pair or not at all."""
    _, one, three = runs
    for name, tolerance in (("train_loss", 1e-3), ("validation", 3e-3), ("test", 3e-3), ("test_as_received", 3e-3)):
        assert one.values(name).shape == (ROUNDS, 10)
        np.testing.assert_allclose(three.values(name), one.values(name), atol=tolerance, err_msg=name)


def test_examples_are_each_clients_training_edges(runs: Runs) -> None:
    method, one, three = runs
    config, _ = composed_config([*LINKS, *METHODS[method]])
    assert isinstance(config.task, LinkPrediction)
    partition = prepare(config.dataset, config.partition, config.data.root, config.data.cache, require_labels=False)
    expected = [config.task.edges(partition.client(client), TRAIN).shape[1] for client in range(10)]
    for record in (*one.rounds, *three.rounds):
        assert record["clients"]["num_examples"] == expected


def test_models_have_outputs_as_wide_as_the_task_says(runs: Runs) -> None:
    _, one, _ = runs
    models = one.models()
    assert sorted(models) == list(range(10))
    assert {model["classifier.weight"].shape for model in models.values()} == {(16, 64)}


def test_clients_without_validation_edges_have_no_validation_figure(inline_run: Callable[..., Outcome]) -> None:
    outcome = inline_run(*LINKS, "method=fedavg", "federation.rounds=2", "task.validation_fraction=1e-9")
    for record in outcome.rounds:
        assert record["clients"]["validation"] == [None] * 10 and record["validation"] is None
        assert record["test"] == pytest.approx(np.mean(record["clients"]["test"]))
    assert outcome.summary["status"] == "completed" and outcome.summary["best_round"] is None
    assert outcome.summary["test_last"] == outcome.rounds[-1]["test"]


def communities(seed: int = 0) -> Data:
    """Four groups of 25 nodes whose edges are inside; features tell the group, nobody tells a class."""
    network = nx.planted_partition_graph(4, 25, 0.3, 0.0, seed=seed)
    edges = torch.tensor(sorted({*network.edges, *((v, u) for u, v in network.edges)})).T
    noise = torch.randn(100, 6, generator=torch.Generator().manual_seed(seed))
    return Data(x=0.1 * noise + torch.eye(4, 6).repeat_interleave(25, dim=0), edge_index=edges)


def test_links_of_a_graph_without_labels_can_be_predicted_and_its_classes_cannot(
    tmp_path: Path, inline_run: Callable[..., Outcome]
) -> None:
    torch.save(communities(), tmp_path / "graph.pt")
    custom = ("dataset=custom", f"dataset.path={tmp_path / 'graph.pt'}", "partition=random", "partition.clients=2")
    learning = ("method=fedavg", "model.hidden=16", "federation.rounds=4", "federation.local_epochs=10")
    outcome = inline_run(*custom, *learning, "task=link_prediction", "optimizer.lr=0.05")
    assert outcome.summary["test_last"] > 0.8
    with pytest.raises(SubflError, match="dataset=custom has no labels, and this task needs them"):
        inline_run(*custom, *learning)


def test_a_client_without_training_edges_is_named(tmp_path: Path, inline_run: Callable[..., Outcome]) -> None:
    """100 nodes among 60 clients at random: some client holds nodes and no edge."""
    torch.save(communities(), tmp_path / "graph.pt")
    custom = ("dataset=custom", f"dataset.path={tmp_path / 'graph.pt'}", "partition=random", "partition.clients=60")
    with pytest.raises(SubflError, match=r"client \d+ has no training edge; use fewer clients"):
        inline_run(*custom, "method=fedavg", "task=link_prediction", "federation.rounds=1")
