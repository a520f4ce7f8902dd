"""Runs on disturbed clients: from the command line to the folders of a deployment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from run_outcomes import Outcome, partition

from subfl_flower.composition import composed_config
from subfl_flower.data.folders.subgraph_folder import ClientFolder
from subfl_flower.errors import SubflError

DIGITS = ("dataset=digits", "partition.clients=4", "model.hidden=8", "federation.rounds=2", "method=fedavg")
NOISE = ("disturbance.edge_noise=0.5", "disturbance.label_noise=0.5", "disturbance.feature_noise=0.5")


def test_placement_changes_nothing_and_noise_does(inline_run: Callable[..., Outcome]) -> None:
    clean, one = inline_run(*DIGITS), inline_run(*DIGITS, *NOISE, "runtime.nodes=1", "runtime.chunk=1")
    three = inline_run(*DIGITS, *NOISE, "runtime.nodes=3", "runtime.chunk=all")
    np.testing.assert_allclose(three.values("train_loss"), one.values("train_loss"), rtol=1e-4)
    assert (np.abs(one.values("train_loss") - clean.values("train_loss")) > 0.01).all()


def test_folders_of_clients_are_disturbed_too(tmp_path: Path) -> None:
    for name, more in (("clean", ()), ("noisy", NOISE)):
        assert partition(["dataset=digits", "partition.clients=4", *more, f"out={tmp_path / name}"]) == 0
    folders = [sorted(path.parent for path in (tmp_path / name).rglob("client.json")) for name in ("clean", "noisy")]
    clean, noisy = (ClientFolder.open(found[0]).graph() for found in folders)
    assert noisy.edge_index.shape[1] == clean.edge_index.shape[1] + 2 * round(clean.edge_index.shape[1] / 4)
    train = clean.roles == 0
    assert (noisy.labels != clean.labels)[train].sum() == round(train.sum() / 2)
    assert (noisy.labels == clean.labels)[~train].all()


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("method=fedavg", "dataset=digits", "runtime=deploy"), "trains on folders as they are; subfl partition"),
        (("method=fedgnn", "dataset=synthetic_ratings"), "it is for graphs, and dataset=synthetic_ratings holds"),
        (("method=fedavg", "disturbance.edge_noise=-1"), "disturbance.edge_noise: .*greater than or equal to 0"),
        (("method=fedavg", "disturbance.noise=1"), "disturbance.noise: there is no such setting"),
    ],
)
def test_disturbances_that_cannot_be_made_are_refused(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SubflError, match=reason):
        composed_config([*overrides, "disturbance.label_noise=0.1"])
