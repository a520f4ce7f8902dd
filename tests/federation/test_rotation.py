"""Certificates and keys that are replaced while the federation's nodes stay, as docs/operations.md describes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_federation import LocalFederation, command, kill, shared_arguments, wait_for

from subfl_flower.flower.programs import Flower, flower_environment
from subfl_flower.runs.directory import RunDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
RUN = shared_arguments("federation.rounds=1", "record.client_models=false", "federation.min_clients=4")


def completed(federation: LocalFederation) -> None:
    outcome = federation.outcome(federation.submit(*RUN))
    assert outcome.code == 0, outcome.stdout
    assert outcome.summary["status"] == "completed" and outcome.rounds[-1]["clients"]["ids"] == [0, 1, 2, 3]


def listed(federation: LocalFederation) -> dict[str, str]:
    """Status of each node by its number, as the SuperLink knows it."""
    flower = Flower({**flower_environment(), "FLWR_HOME": str(federation.folder / "home-user")}, "lab")
    answer = json.loads(flower.run("supernode", "list", "lab", "--format", "json").stdout)
    return {str(node["node-id"]): str(node["status"]) for node in answer["nodes"]}


def test_the_superlinks_certificate_is_renewed_and_the_nodes_stay(federation: LocalFederation) -> None:
    folder = federation.folder / "certificates"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    nodes = {name: node.pid for name, node in federation.nodes.items()}
    command("deploy", "certificates", folder, "--host", "127.0.0.1")
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after["ca.crt"] == before["ca.crt"] and after["server.crt"] != before["server.crt"]
    assert federation.superlink is not None
    kill(federation.superlink)
    federation.start_superlink()
    completed(federation)
    assert {name: node.pid for name, node in federation.nodes.items()} == nodes
    assert all(node.poll() is None for node in federation.nodes.values())


def test_a_node_gets_a_new_key_before_the_old_one_is_removed(federation: LocalFederation, partition: Path) -> None:
    known = set(listed(federation))
    runs = partition / "client-01" / "runs"
    states = set(runs.glob("*"))
    new = federation.key("node-0-new")
    (added,) = set(listed(federation)) - known
    kill(federation.nodes["node-0"])
    connected = federation.log("node-0").count("SuperNode ID")
    federation.start_node("node-0", partition / "client-01", key=new)
    wait_for(lambda: federation.log("node-0").count("SuperNode ID") > connected, "the node has its new key")
    assert f"SuperNode ID: {added}" in federation.log("node-0")
    completed(federation)
    assert set(runs.glob("*")) > states  # in the same folders

    wait_for(lambda: sum(status != "online" for status in listed(federation).values()) == 1, "the old one is away")
    (old,) = (node for node, status in listed(federation).items() if status != "online")
    flower = Flower({**flower_environment(), "FLWR_HOME": str(federation.folder / "home-user")}, "lab")
    assert flower.run("supernode", "unregister", old, "lab").returncode == 0
    assert old not in {node for node, status in listed(federation).items() if status != "unregistered"}
    completed(federation)
    directory = federation.run_directory()
    assert directory is not None
    live = RunDirectory(directory).live()
    assert live is not None
    assert {node.clients: str(node.node) for node in live.nodes}[(1,)] == added
