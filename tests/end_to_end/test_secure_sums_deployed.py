"""Secure sums of deployed nodes, each of whose messages is handled by another process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from run_outcomes import Outcome, partition

from subfl_flower.client_app import app
from subfl_flower.composition import composed_config
from subfl_flower.data.federation_schema import FEDERATION_FILE
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.server.checkpoint import Checkpoint
from subfl_flower.server.federation import run_federation

OVERRIDES = (
    *("runtime=deploy", "dataset=digits", "model.hidden=8", "method=fedavg", "federation.rounds=2"),
    *("runtime.node_timeout=5", "federation.local_epochs=1"),
)


class ForgetfulGrid(InlineGrid):
    """Nodes with a folder each, which remember nothing between two messages but their files."""

    def __init__(self, folders: Sequence[Path], client_app: ClientApp = app) -> None:
        super().__init__(client_app, len(folders))
        for context, folder in zip(self._contexts.values(), folders, strict=True):
            context.node_config = {"client": str(folder)}

    def _handle(self, message: Message) -> Message:
        forget_nodes()
        return super()._handle(message)


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Callable[..., Outcome]]:
    def run(name: str, *overrides: str) -> Outcome:
        place = tmp_path / name
        assert partition(["dataset=digits", "partition=random", "partition.clients=4", f"out={place}"]) == 0
        folders = sorted(place.glob("client-*"))
        schema = f"schema={place / FEDERATION_FILE}"
        config, _ = composed_config([*OVERRIDES, schema, "record.checkpoint_every=2", *overrides])
        grid = ForgetfulGrid(folders)
        with grid.active():
            run_federation(grid, config, tmp_path / f"run-{name}", threading.Event())
        return Outcome(tmp_path / f"run-{name}")

    yield run
    forget_nodes()


def test_processes_that_forget_sum_as_those_that_last(deployed: Callable[..., Outcome], tmp_path: Path) -> None:
    secure, plain = deployed("secure", "secure_sums.enabled=true"), deployed("plain")
    found, expected = (Checkpoint.read(each.directory / "checkpoint").strategy for each in (secure, plain))
    for name in (name for name in expected if name.startswith("parameters.")):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4, err_msg=name)
    assert [record["secure_sums"]["summed"] for record in secure.rounds] == [4, 4]


def test_no_key_of_a_sum_stays_in_a_file(deployed: Callable[..., Outcome], tmp_path: Path) -> None:
    """Files of ended sums say so, and have zeros where the keys were."""
    from safetensors.numpy import load_file

    deployed("secure", "secure_sums.enabled=true")
    files = list(tmp_path.rglob("kept-*secure-sum*.safetensors"))
    assert files
    for file in files:
        kept = load_file(file)
        assert kept["stage"].tolist() == [3] and not kept["secrets"].any()
        assert file.stat().st_mode & 0o077 == 0
