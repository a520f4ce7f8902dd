"""Removal of what old runs have left, and the locks of folders and databases."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from deploy_answers import Answer
from folder_grid import FolderGrid, deployed
from run_outcomes import partition

from subfl_flower.deploy.operations.clean import leftovers
from subfl_flower.flower.ports import free_port
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.storage.folder_lock import folder_lock

DAY = 86_400


def grown_old(folder: Path, days: float) -> None:
    then = time.time() - days * DAY
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


@pytest.fixture
def federation(tmp_path: Path) -> tuple[Path, Path]:
    """A client's folder and the server's, after a run of ten days ago, which wrote no models, and one of today."""
    assert partition(["dataset=digits", "partition=metis", "partition.clients=2", f"out={tmp_path / 'parts'}"]) == 0
    clients = sorted((tmp_path / "parts").glob("client-*"))
    for name in ("old", "new"):
        run = ("method=fedavg", "federation.rounds=1", f"record.client_models={str(name == 'new').lower()}")
        deployed(FolderGrid([clients[0]], [clients[1]]), tmp_path / "outputs" / name, *run)
        if name == "old":
            grown_old(tmp_path, 10)
    return clients[0], tmp_path / "outputs"


def test_states_of_old_runs_are_listed_and_then_removed(
    federation: tuple[Path, Path], deploy: Callable[..., Answer]
) -> None:
    client, outputs = federation
    runs = sorted((client / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
    old, new = runs
    kept = {path for path in client.rglob("*") if "state" not in path.relative_to(client).parts}
    asked = ("clean", "--state", client, "--outputs", outputs, "--older-than", 7)
    answer = deploy(*asked)
    assert answer.code == 0 and answer.out[-1].endswith("would be removed; --yes removes them")
    assert any("state" in line for line in answer.out) and any("checkpoint" in line for line in answer.out)
    assert (old / "state").is_dir() and (outputs / "old" / "checkpoint").is_dir()

    found = leftovers([client], [outputs], 7, everything=False)
    assert [(each.run, round(each.days)) for each in found] == [(old, 10), (outputs / "old", 10)]
    assert found[0].size == sum(path.stat().st_size for path in (old / "state").rglob("*") if path.is_file()) > 0
    assert deploy(*asked, "--yes").out[-1].endswith(" removed")
    assert not (old / "state").exists() and not (outputs / "old" / "checkpoint").exists()
    assert (new / "state").is_dir() and (outputs / "new" / "checkpoint").is_dir()
    assert {path for path in client.rglob("*") if "state" not in path.relative_to(client).parts} == kept
    assert deploy(*asked).out == ["nothing is older than 7 days"]


def test_whole_runs_are_removed_where_that_is_asked_for_but_nothing_else_is(
    federation: tuple[Path, Path], deploy: Callable[..., Answer]
) -> None:
    client, outputs = federation
    old = min((client / "runs").iterdir(), key=lambda run: run.stat().st_mtime)
    (old / "opened.keys").write_bytes(b"boxes that may not be opened twice")
    (outputs / "old" / "notes.txt").write_text("mine")
    grown_old(old, 10)
    grown_old(outputs / "old", 10)
    asked = ("clean", "--state", client.parent, "--outputs", outputs, "--older-than", 7, "--all", "--yes")
    assert deploy(*asked).code == 0
    assert [path.name for path in old.iterdir()] == ["opened.keys"]
    assert [path.name for path in (outputs / "old").iterdir()] == ["notes.txt"]
    assert RunDirectory(outputs / "new").summary() is not None
    assert {"client.json", "graph.safetensors", "clients.key", "runs"} <= {path.name for path in client.iterdir()}
    assert len(list(client.parent.glob("client-01/runs/*"))) == 1


def test_a_run_that_goes_on_is_left_alone(federation: tuple[Path, Path]) -> None:
    _, outputs = federation
    with folder_lock(outputs / "old", wait=False):
        assert leftovers([], [outputs], 7, everything=True) == []
    assert [each.run for each in leftovers([], [outputs], 7, everything=True)] == [outputs / "old"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--older-than", "3"), "name a folder: --state DIR on a node, --outputs DIR on the server's machine"),
        (("--state", "x", "--older-than", "0"), "0 is not a whole number of days, 1 or more"),
        (("--state", "nowhere", "--older-than", "3"), "nowhere: there is no such folder"),
        (("--state", "."), "the following arguments are required: --older-than"),
    ],
)
def test_what_cannot_be_cleaned_is_refused(
    arguments: tuple[str, ...], reason: str, deploy: Callable[..., Answer]
) -> None:
    answer = deploy("clean", *arguments)
    assert answer.code == 2 and reason in answer.err[0]


HOLDER = """
import os, sys
from pathlib import Path
from subfl_flower.deploy.operations.locks import lock_database, lock_node
where, path = sys.argv[1], Path(sys.argv[2])
lock_database(path) if where == "database" else lock_node([path], None) if where == "client" else lock_node([], path)
os.execv(sys.executable, [sys.executable, "-c", "print('there', flush=True); import sys; sys.stdin.read()"])
"""


@pytest.mark.parametrize("where", ["client", "state", "database"])
def test_a_second_process_is_refused_for_as_long_as_the_first_one_lives(
    where: str, client: Callable[..., Path], deploy: Callable[..., Answer], tmp_path: Path
) -> None:
    """The lock stays with the program that takes the place of the process."""
    (tmp_path / "states").mkdir()
    folder = client("one")
    path = {"client": folder, "state": tmp_path / "states", "database": tmp_path / "nodes.db"}[where]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, where, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == b"there\n"
        node = ("supernode", "--insecure", "--superlink", "localhost:9", "--client", folder)
        link = ("superlink", "--insecure", "--host", "127.0.0.1", "--port", free_port())
        asked = {
            "client": node,
            "state": (*node, "--state", path),
            "database": (*link, "--database", path),
        }[where]
        answer = deploy(*asked)
        what = "uses it" if where == "database" else "writes to it"
        assert answer.code == 2 and answer.err[0].endswith(f"of this machine {what}; end that one first")
        assert deploy(*asked, "--print").code == 0
    finally:
        holder.kill()
        holder.wait()
    with folder_lock(path if path.is_dir() else tmp_path / "nodes.db.lock", wait=False) as ours:
        assert ours
