"""Whole runs of deployed nodes with a gate each, in this process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from run_outcomes import Outcome, partition
from signed_messages import Gated, site

from subfl_flower.client_app import app
from subfl_flower.composition import composed_config, composed_job
from subfl_flower.data.federation_schema import FEDERATION_FILE
from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.flower.signing_grid import SigningGrid
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.server.federation import run_federation
from subfl_flower.trust.operator_key import raw
from subfl_flower.trust.orders import ORDER, sign

RUN = ("runtime=deploy", "dataset=digits", "model.hidden=8", "runtime.node_timeout=1", "method=fedavg")


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    made = ["dataset=digits", "partition=metis", "partition.clients=2", f"out={tmp_path / 'partition'}"]
    assert partition(made) == 0
    return sorted((tmp_path / "partition").glob("client-*"))


def hosting(grid: InlineGrid, folders: Sequence[Path]) -> None:
    for context, folder in zip(grid._contexts.values(), folders, strict=True):
        context.node_config = {"client": str(folder)}


def guarded(folders: Sequence[Path], key: Ed25519PrivateKey) -> Gated:
    pinned = raw(key.public_key()).hex()
    grid = Gated(app, {node: site(folder / "site", pinned) for node, folder in enumerate(folders, start=1)})
    hosting(grid, folders)
    return grid


def train(grid: InlineGrid, key: Ed25519PrivateKey | None, directory: Path, *overrides: str) -> Outcome:
    job = composed_job([f"resume={directory}", *overrides]) if directory.exists() else None
    config = job.config if job else composed_config([*RUN, *overrides])[0]
    connection = grid if key is None else SigningGrid(grid, lambda message, number: sign(message, key, number))
    try:
        with grid.active():
            run_federation(connection, config, directory, threading.Event(), resume=job is not None)
    finally:
        forget_nodes()
    return Outcome(directory)


def test_a_signed_run_has_the_numbers_of_an_unsigned_one_and_is_resumed(folders: list[Path], tmp_path: Path) -> None:
    schema = f"schema={folders[0].parent / FEDERATION_FILE}"
    plain = InlineGrid(app, 2)
    hosting(plain, folders)
    expected = train(plain, None, tmp_path / "plain", schema, "federation.rounds=3")

    key = Ed25519PrivateKey.generate()
    grid = guarded(folders, key)
    train(grid, key, tmp_path / "signed", schema, "federation.rounds=2")
    first = [copy.deepcopy(message) for message in grid.passed]
    resumed = guarded(folders, key)
    outcome = train(resumed, key, tmp_path / "signed", "federation.rounds=3")
    for name in ("validation", "test", "train_loss"):
        np.testing.assert_array_equal(outcome.values(name), expected.values(name))
    assert outcome.summary["bytes_up"] == expected.summary["bytes_up"]
    assert outcome.summary["bytes_down"] == expected.summary["bytes_down"]
    assert {message.content.config_records["run"]["attempt"] for message in first} == {1}
    assert {message.content.config_records["run"]["attempt"] for message in resumed.passed} == {2}

    with resumed.active():
        for message in first:
            (reply,) = resumed.send_and_receive([message])
            assert reply.has_error() and "this site has heard attempt 2" in str(reply.error.reason)


def test_a_server_without_the_key_is_told_why_nobody_answers(folders: list[Path], tmp_path: Path) -> None:
    grid = guarded(folders, Ed25519PrivateKey.generate())
    schema = f"schema={folders[0].parent / FEDERATION_FILE}"
    with pytest.raises(Exception, match=r"carries out signed orders alone, and a message of type query\.roster came"):
        train(grid, None, tmp_path / "run", schema)


def test_sites_that_pinned_no_key_take_signed_orders(folders: list[Path], tmp_path: Path) -> None:
    grid = InlineGrid(app, 2)
    hosting(grid, folders)
    schema = f"schema={folders[0].parent / FEDERATION_FILE}"
    outcome = train(grid, Ed25519PrivateKey.generate(), tmp_path / "run", schema, "federation.rounds=1")
    assert outcome.summary["status"] == "completed" and outcome.rounds[0]["failures"] == {}
    assert ORDER not in outcome.rounds[0]
