"""A run whose data set is a class of a package that one SuperNode's operator has allowed and another's has not."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from local_federation import LocalFederation, command

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
