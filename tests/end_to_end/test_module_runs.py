"""Runs whose network is a class of another package, named on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from run_outcomes import Outcome, partition, predict
from safetensors import safe_open
from safetensors.numpy import save_file
from torch_geometric.nn import GAT

from subfl_flower.analysis.run_analysis import prepared_partition
from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.registry import validate
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.seeding import shared_generator

Run = Callable[..., Outcome]
DATA = ("dataset=digits", "partition.clients=5")
MODULE = ("model=module", "model._target_=torch_geometric.nn.GAT", "+model.hidden_channels=8", "+model.num_layers=2")
ROUNDS = ("federation.rounds=2", "federation.local_epochs=2", "optimizer.lr=0.02")
SHORT = (*DATA, *MODULE, *ROUNDS)
NORM = "+model.norm=batch_norm"
METHODS = {
    "fedavg": (),
    "fedpub": ("method.random_blocks=2", "method.random_block_nodes=20"),
    "subpfed": (),
    "fedper": ("method.personal_layers=[convs.1]",),
    "fedavg_whole_graph": (),
}


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_the_same_wherever_clients_run(method: str, inline_run: Run) -> None:
    chosen = (*SHORT, NORM, "+model.dropout=0.3", f"method={method}", *METHODS[method])
    single = inline_run(*chosen, "runtime.nodes=1", "runtime.chunk=1")
    spread = inline_run(*chosen, "runtime.nodes=3", "runtime.chunk=all")
    for name in ("train_loss", "validation", "test", "validation_as_received", "test_as_received"):
        assert np.isfinite(single.values(name)).all() and single.values(name).shape == (2, 5)
        np.testing.assert_allclose(spread.values(name), single.values(name), atol=1e-5, err_msg=name)
    assert (single.values("train_loss")[0] > single.values("train_loss")[1]).mean() > 0.5
    models = single.models()
    for client, tensors in spread.models().items():
        assert tensors.keys() == models[client].keys() and "norms.0.module.running_mean" in tensors
        for name, values in tensors.items():
            np.testing.assert_allclose(values, models[client][name], atol=1e-4, err_msg=name)


def test_local_training_is_a_plain_loop_of_pytorch(inline_run: Run) -> None:
    outcome = inline_run(*SHORT, "method=local", "federation.rounds=3")
    config = validate(RunDirectory(outcome.directory).config())
    prepared = prepared_partition(config)
    losses = np.zeros((3, 5))
    for client in range(5):
        graph = prepared.client(client)
        with torch.random.fork_rng():
            torch.manual_seed(int(shared_generator(0, "initial model").integers(2**63)))
            module = GAT(in_channels=64, hidden_channels=8, num_layers=2, out_channels=10)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02, weight_decay=config.optimizer.weight_decay)
        features = graph.features if isinstance(graph.features, np.ndarray) else graph.features.toarray()
        x, edges, labels = torch.from_numpy(features), torch.from_numpy(graph.edge_index), torch.tensor(graph.labels)
        train = torch.from_numpy(graph.roles == 0)
        for step in range(6):
            optimizer.zero_grad()
            loss = F.cross_entropy(module(x, edges)[train], labels[train])
            loss.backward()
            optimizer.step()
            losses[step // 2, client] = loss.item()
    np.testing.assert_allclose(outcome.values("train_loss"), losses, atol=1e-5)


def test_a_run_and_a_clients_folder_are_predicted_as_in_training(
    inline_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = inline_run(*SHORT, NORM, "method=fedavg")
    assert predict([str(outcome.directory), "--out", str(tmp_path / "run.csv")]) == 0
    found = pd.read_csv(tmp_path / "run.csv")
    best = outcome.values("validation").argmax(axis=0)
    prepared = prepared_partition(validate(RunDirectory(outcome.directory).config()))
    for client in range(5):
        graph, own = prepared.client(client), found[found.client == client]
        right = own.prediction.to_numpy() == graph.labels
        assert right[graph.roles == 2].mean() == pytest.approx(outcome.values("test")[best[client], client])
    assert partition([*DATA, f"out={tmp_path / 'folders'}"]) == 0
    (folder,) = [path for path in (tmp_path / "folders").iterdir() if path.name.endswith("3")]
    model = outcome.directory / "clients" / "0003.safetensors"
    assert predict([str(model), str(folder), "--out", str(tmp_path / "one.csv")]) == 0
    alone = pd.read_csv(tmp_path / "one.csv")
    assert alone.prediction.tolist() == found[found.client == 3].prediction.tolist()
    module = GAT(in_channels=64, hidden_channels=8, num_layers=2, out_channels=10, norm="batch_norm").eval()
    module.load_state_dict({name: torch.from_numpy(value) for name, value in outcome.models()[3].items()})
    graph = prepared.client(3)
    features = graph.features if isinstance(graph.features, np.ndarray) else graph.features.toarray()
    right = module(torch.from_numpy(features), torch.from_numpy(graph.edge_index)).softmax(1)
    np.testing.assert_allclose(alone[[f"p_{digit}" for digit in range(10)]], right.detach(), atol=1e-5)

    with safe_open(model, framework="numpy") as opened:
        tensors, card = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()["card"]  # noqa: SIM118
    changed = json.loads(card)
    assert changed["model"]["_target_"] == "torch_geometric.nn.GAT" and changed["model"]["hidden_channels"] == 8
    changed["model"]["_target_"] = "somebodys_package.Net"
    lost = tmp_path / "lost.safetensors"
    save_file(tensors, lost, {"card": json.dumps(changed)})
    capsys.readouterr()
    assert predict([str(lost), str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"subfl predict: {lost}: model._target_: cannot import 'somebodys_package.Net'")
    changed["model"].update(_target_="torch_geometric.nn.GAT", num_layers=3)
    save_file(tensors, lost, {"card": json.dumps(changed)})
    assert predict([str(lost), str(folder)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == f"subfl predict: {lost} holds 13 tensors; a torch_geometric.nn.GAT has 22"


def test_links_are_predicted_by_a_module_too(inline_run: Run) -> None:
    outcome = inline_run(*SHORT, "method=fedpub", "task=link_prediction", *METHODS["fedpub"])
    assert np.isfinite(outcome.values("test")).all()


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (MODULE[:1], r"^model\._target_: a value is required"),
        (
            ("model=module", "model._target_=own_modules.Sums", "+model.hedas=2"),
            r"^model\.hedas: own_modules\.Sums has no such argument; it has: num_features, num_classes, scale$",
        ),
        ((*MODULE[:1], "model._target_=somebodys_package.Net"), r"^model\._target_: cannot import"),
        ((*MODULE, "method=fedgcn"), "^method=fedgcn is for model=gcn, not for model=module$"),
    ],
)
def test_what_is_wrong_is_said_before_a_run_begins(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(SubflError, match=sentence):
        composed_config([*DATA, *overrides])


def test_what_a_class_itself_refuses_is_one_sentence(inline_run: Run) -> None:
    """Refuse an unknown argument of a constructor that takes any, once the module is made."""
    with pytest.raises(SubflError, match=r"^model\._target_: torch_geometric\.nn\.GAT\(.*hedas=2\) cannot be made"):
        inline_run(*SHORT, "+model.hedas=2", "method=fedavg")
