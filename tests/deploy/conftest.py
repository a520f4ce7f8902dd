"""Fixtures of the tests of `subfl deploy`: its files in one folder, and a client's folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from deploy_answers import Answer
from run_outcomes import deploy as main

from subfl_flower.data.folders.subgraph_folder import write_client_folder
from subfl_flower.data.graph import TEST, TRAIN, VALIDATION, ClientGraph


@pytest.fixture
def deploy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Answer]:
    """`subfl deploy ARGUMENTS` in the test's folder, with a home of Flower's in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))

    def run(*arguments: object) -> Answer:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Answer(code, printed.out.splitlines(), printed.err.splitlines())

    return run


@pytest.fixture
def client(tmp_path: Path) -> Callable[..., Path]:
    """Writes a client's folder: a path of three nodes."""

    def write(name: str, client_id: int = 0) -> Path:
        graph = ClientGraph(
            client_id=client_id,
            node_ids=np.arange(3) + 3 * client_id,
            features=np.eye(3, 2, dtype=np.float32),
            edge_index=np.array([[0, 1, 1, 2], [1, 0, 2, 1]]),
            labels=np.array([0, 1, 0]),
            num_classes=2,
            roles=np.array([TRAIN, VALIDATION, TEST], dtype=np.int8),
            shareable=np.zeros(3, dtype=bool),
        )
        folder = tmp_path / name
        write_client_folder(
            folder, graph, dataset="toy", partition="", num_clients=None, overlapping=False, key=bytes(range(32))
        )
        return folder

    return write


@pytest.fixture
def certificates(tmp_path: Path, deploy: Callable[..., Answer]) -> Path:
    """A folder with certificates for this machine."""
    assert deploy("certificates", "certificates", "--host", "superlink.example.org").code == 0
    return tmp_path / "certificates"


@pytest.fixture
def key(tmp_path: Path, deploy: Callable[..., Answer]) -> Path:
    """A node's private key."""
    assert deploy("key", "node").code == 0
    return tmp_path / "node"
