"""Runs on SuperNodes with classes of packages that the nodes' operators have allowed, or have not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from local_federation import LocalFederation, command
from page_code import write_method, write_modules
from run_outcomes import command as own_command

MODULE = '''
from pathlib import Path

import numpy as np

from subfl_flower.api import DatasetSettings, RawGraph


class Path40(DatasetSettings):
    """Forty nodes in a row, two classes in turn."""

    def read(self, root: Path) -> RawGraph:
        """Build the graph."""
        nodes = np.arange(40)
        features = np.eye(2, dtype=np.float32)[nodes % 2]
        return RawGraph(features, np.stack([nodes[:-1], nodes[1:]]), nodes % 2, 2)
'''
ASKED = ("dataset._target_=a_row_of_nodes.Path40", "partition=random", "partition.clients=2")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_takes_a_class_of_an_allowed_package_and_refuses_any_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLWR_HOME", os.environ.get("FLWR_HOME", str(tmp_path / "home")))
    with LocalFederation.opened(tmp_path) as federation:
        (tmp_path / "modules" / "a_row_of_nodes.py").write_text(MODULE)
        monkeypatch.syspath_prepend(tmp_path / "modules")
        command("partition", *ASKED, f"out={tmp_path / 'clients'}")
        federation.schema = tmp_path / "clients" / "federation.json"
        federation.start_superlink()
        for number, allowed in enumerate((("a_row_of_nodes",), ())):
            name = f"node-{number}"
            client = tmp_path / "clients" / f"client-{number:02d}"
            federation.start_node(name, client, key=federation.key(name), allowed=allowed)
            federation.wait_for_node(name)
        some = ("method=fedavg", "federation.rounds=2", "federation.min_clients=1", "runtime.node_timeout=20")
        outcome = federation.outcome(federation.submit(*ASKED, *some))
    sys.modules.pop("a_row_of_nodes", None)
    assert outcome.code == 0, outcome.stdout
    assert [record["clients"]["ids"] for record in outcome.rounds] == [[0], [0]]
    (refusal,) = outcome.summary["refused"]
    reason = refusal["reason"]
    assert "dataset._target_: 'a_row_of_nodes.Path40' is not allowed on this machine" in reason
    assert reason.endswith("its operator can allow it by --allow-package a_row_of_nodes")


FEDAMP = ("method=fedamp", "method.sigma=20", "model.hidden=16")
SKIP_GAT = ("method=fedpub", "model=module", "model._target_=networks.SkipGAT", "task._target_=degrees.Degree")
ROUNDS = ("federation.rounds=3", "federation.local_epochs=1")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_classes_of_the_pages_train_on_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A method, a data set, a partition, a network and a task of somebody's own, with the numbers of one process."""
    monkeypatch.setenv("FLWR_HOME", os.environ.get("FLWR_HOME", str(tmp_path / "home")))
    data = ("dataset._target_=rings.Rings", "dataset.cliques=12", "partition._target_=parts.BySign")
    with LocalFederation.opened(tmp_path) as federation:
        write_modules(tmp_path / "modules")
        # Its YAML is the user's alone, and lies in the folder in which the user submits.
        write_method(tmp_path)
        (tmp_path / "fedamp.py").rename(tmp_path / "modules" / "fedamp.py")
        monkeypatch.syspath_prepend(tmp_path / "modules")
        command("partition", *data, f"out={tmp_path / 'clients'}")
        federation.schema = tmp_path / "clients" / "federation.json"
        federation.start_superlink()
        for number in range(2):
            name, client = f"node-{number}", tmp_path / "clients" / f"client-{number:02d}"
            allowed = ("fedamp", "rings", "parts", "networks", "degrees")
            # One of them starts a program for each message, as Flower does; its numbers are the same.
            federation.start_node(name, client, key=federation.key(name), allowed=allowed, warm=number == 0)
            federation.wait_for_node(name)
        for number, chosen in enumerate((FEDAMP, SKIP_GAT)):
            deployed = federation.outcome(federation.submit(*data, *chosen, *ROUNDS))
            assert deployed.code == 0, deployed.stdout
            alone = own_command(
                *(*data, *chosen, *ROUNDS),
                directory=tmp_path / f"alone-{number}",
                cwd=tmp_path,
                env=federation.environment("home-user"),
            )
            assert alone.code == 0, alone.stderr
            for one, other in zip(alone.rounds, deployed.rounds, strict=True):
                assert other["clients"]["ids"] == [0, 1]
                assert other["clients"]["train_loss"] == pytest.approx(one["clients"]["train_loss"], rel=1e-5)
                assert other["test"] == pytest.approx(one["test"], rel=1e-5)
    for name in ("fedamp", "rings", "parts", "networks", "degrees"):
        sys.modules.pop(name, None)
