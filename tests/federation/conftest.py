"""One federation for all tests of a file: its processes take longer to start than most tests take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_federation import LocalFederation, command

NODES = ([1], [0, 2, 3])
"""Clients of each SuperNode."""


@pytest.fixture(scope="module")
def partition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of four clients of digits."""
    folder = tmp_path_factory.mktemp("partition") / "digits"
    command("partition", "dataset=digits", "partition=metis", "partition.clients=4", f"out={folder}")
    return folder


@pytest.fixture(scope="module")
def federation(partition: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFederation]:
    """A SuperLink and three SuperNodes with the clients of digits."""
    before = os.environ.get("FLWR_HOME")
    with LocalFederation.opened(tmp_path_factory.mktemp("federation")) as federation:
        (federation.folder / "modules" / "held_clients.py").write_text(HELD_CLIENTS)
        federation.schema = partition / "federation.json"
        federation.start_superlink()
        for number, clients in enumerate(NODES):
            folders = [partition / f"client-{client:02d}" for client in clients]
            federation.start_node(f"node-{number}", *folders, key=federation.key(f"node-{number}"))
        for name in list(federation.nodes):
            federation.wait_for_node(name)
        yield federation
    if before is None:
        os.environ.pop("FLWR_HOME", None)
    else:
        os.environ["FLWR_HOME"] = before


HELD_CLIENTS = '''
import os
import time
from pathlib import Path

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient

FOLDER = Path(__file__).parent


class Held(FedPUBClient):
    """Says where it is by a file with its process, and waits there for as long as another file tells it to."""

    def take_steps(self, model, state, chunk, batch):
        place = f"{chunk.client_ids[0]}-{batch.server_round}"
        losses = super().take_steps(model, state, chunk, batch)
        (FOLDER / f"at-{place}").write_text(str(os.getpid()))
        while (FOLDER / f"hold-{place}").exists():
            time.sleep(0.05)
        return losses
'''
