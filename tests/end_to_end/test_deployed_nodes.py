"""Deployed nodes with their folders and a server without data, all in this process."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from folder_grid import SMALL, FolderGrid, deployed
from run_outcomes import Outcome, partition, run_inline
from safetensors.numpy import load_file

from subfl_flower.composition import composed_config, composed_job
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import RunFailure, SubflError
from subfl_flower.node.hosts import DeployedNode
from subfl_flower.node.open_nodes import forget_nodes, open_node
from subfl_flower.server.federation import run_federation
from subfl_flower.subgraphs.models.exported import read_model

FEW = ("partition=overlap_rate", "partition.clients=5")


@pytest.fixture
def folders(tmp_path: Path) -> Callable[..., list[Path]]:
    def made(*overrides: str, name: str = "partition") -> list[Path]:
        assert partition(["dataset=digits", *overrides, f"out={tmp_path / name}"]) == 0
        return sorted((tmp_path / name).glob("client-*"))

    return made


NODES = "id,label,h\n" + "".join(f"n{i},{'xy'[i % 2]},{i * i % 7}\n" for i in range(12))
EDGES = "source,target\n" + "".join(f"n{i},n{i + 1}\n" for i in range(11))


def site(folder: Path, client: int, classes: str = "[x,y]", nodes: str = NODES) -> Path:
    """The folder that a site makes from its tables."""
    tables = folder / f"tables-{client}"
    tables.mkdir()
    (tables / "nodes.csv").write_text(nodes)
    (tables / "edges.csv").write_text(EDGES)
    (folder / "clients.key").write_bytes(b"k" * 32)
    own = (f"dataset.path={tables}", f"dataset.classes={classes}", "partition=whole", f"client={client}")
    out = folder / f"folders-{client}"
    arguments = ["dataset=custom", *own, "dataset.train_fraction=0.5", f"key={folder / 'clients.key'}", f"out={out}"]
    assert partition(arguments) == 0
    return out / f"client-{client:02d}"


def test_a_node_keeps_what_its_data_are_and_the_server_their_fingerprints(tmp_path: Path) -> None:
    sites = [site(tmp_path, client) for client in (0, 1)]
    run = ("dataset=custom", f"dataset.path={tmp_path / 'nowhere'}", "method=fedavg", "federation.rounds=1")
    outcome = deployed(FolderGrid([sites[0]], [sites[1]]), tmp_path / "run", *run, "federation.min_clients=2")
    [kept] = sites[1].glob("runs/*/data.json")
    facts = json.loads(kept.read_text())
    assert (facts["nodes"], facts["edges"], facts["classes"]) == (12, 11, {"x": 6, "y": 6})
    known = json.loads((outcome.directory / "data.json").read_text())["fingerprints"]["clients"]
    assert known["1"] == facts["fingerprint"] and set(known) == {"0", "1"}
    assert "nodes" not in (outcome.directory / "data.json").read_text()

    config, _ = composed_config(["runtime=deploy", *SMALL, *run])
    again = DeployedNode(config, kept.parent.name, [sites[1]], None)
    assert len(again.cohort.graphs) == 1  # type: ignore[union-attr]
    other = site(tmp_path, 2, nodes=NODES.replace("n3,y,2", "n3,y,5"))
    shutil.copyfile(other / "graph.safetensors", sites[1] / "graph.safetensors")
    said = json.loads((other / "client.json").read_text()) | {"client": 1}
    (sites[1] / "client.json").write_text(json.dumps(said))
    with pytest.raises(SubflError, match="holds other data than at the beginning of run"):
        _ = DeployedNode(config, kept.parent.name, [sites[1]], None).cohort


def test_sites_that_name_classes_in_another_order_are_refused(tmp_path: Path) -> None:
    sites = [site(tmp_path, 0), site(tmp_path, 1), site(tmp_path, 2, "[y,x]")]
    run = ("dataset=custom", f"dataset.path={tmp_path / 'nowhere'}", "method=fedavg", "federation.rounds=1")
    outcome = deployed(FolderGrid(*([path] for path in sites)), tmp_path / "run", *run, "federation.min_clients=2")
    assert outcome.summary["clients"] == 2
    [refusal] = outcome.summary["refused"]
    assert refusal["clients"] == [2]
    assert "or whether edges have weights, differ from the run's schema" in refusal["reason"]


def test_most_nodes_cannot_change_what_the_run_is_on(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    """Three sites have folders of other data under the same data set's name; what is stated counts."""
    zero, *_ = folders(*FEW)
    others = [site(tmp_path, client) for client in (1, 2, 3)]
    for path in others:
        said = json.loads((path / "client.json").read_text())
        (path / "client.json").write_text(json.dumps({**said, "dataset": "digits"}))
    grid = FolderGrid([zero], *([path] for path in others))
    run = ("method=fedavg", "federation.rounds=1", "federation.min_clients=1")
    outcome = deployed(grid, tmp_path / "run", *run)
    assert [record["clients"]["ids"] for record in outcome.rounds] == [[0]]
    assert [refusal["reason"] for refusal in outcome.summary["refused"]] == [
        f"client {client}: 1 features and 2 classes, where the run's schema has 64 features and 10 classes"
        for client in (1, 2, 3)
    ]
    resumed = composed_job([f"resume={outcome.directory}", "federation.rounds=2"]).config
    assert resumed.data_schema == FederationSchema.read(grid.schema)
    with pytest.raises(SubflError, match=r"^schema.features=3: a resumed run keeps its settings"):
        composed_job([f"resume={outcome.directory}", "schema.features=3"])


def test_sizes_may_be_stated_without_a_file(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    grid = FolderGrid(folders(*FEW))
    run = ["runtime=deploy", *SMALL, "method=fedavg", "federation.rounds=1"]
    with pytest.raises(SubflError, match=r"schema=FILE, the federation\.json that subfl partition wrote, or by schema"):
        run_federation(grid, composed_config(run)[0], tmp_path / "without", threading.Event())
    sizes = ["schema.features=64", "schema.classes=10", "schema.clients=[0-4]", "schema.overlapping=true"]
    try:
        with grid.active():
            run_federation(grid, composed_config([*run, *sizes])[0], tmp_path / "with", threading.Event())
    finally:
        forget_nodes()
    found, expected = Outcome(tmp_path / "with"), deployed(grid, tmp_path / "file", *run[1:])
    np.testing.assert_array_equal(found.values("test"), expected.values("test"))
    assert found.summary["clients"] == 5 and "refused" not in found.summary


@pytest.mark.parametrize("method", ["fedpub", "subpfed", "gcfl_plus", "fedper", "fedavg", "local"])
def test_a_server_without_data_gives_the_numbers_of_a_simulation(
    method: str, folders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    zero, one, two, three, four = folders(*FEW)
    run = (f"method={method}", "federation.rounds=3", "federation.fraction=0.8")
    found = deployed(FolderGrid([four, one], [zero], [two, three]), tmp_path / "deployed", *run)
    expected = run_inline(tmp_path / "inline", *SMALL, *FEW, *run)
    assert [r["clients"]["ids"] for r in found.rounds] == [r["clients"]["ids"] for r in expected.rounds]
    for name in ("validation", "test", "test_as_received", "train_loss"):
        np.testing.assert_allclose(found.values(name), expected.values(name), atol=1e-4)
    assert [r["bytes_up"] for r in found.rounds] == [r["bytes_up"] for r in expected.rounds]
    assert found.summary["clients"] == 5 and found.summary["bytes_up"] == expected.summary["bytes_up"]
    for client, folder in enumerate((zero, one, two, three, four)):
        tensors, card = read_model(folder / "runs" / found.summary["run_id"])
        assert card.client == client
        for name, value in expected.models()[client].items():
            np.testing.assert_allclose(tensors[name], value, atol=1e-4)


def test_the_oracle_has_no_whole_graph_to_train_on(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    with pytest.raises(RunFailure, match="the oracle needs the graph that the clients' subgraphs were cut from"):
        deployed(FolderGrid(folders(*FEW)), tmp_path / "run", "method=oracle", "federation.rounds=1")


class LateGrid(FolderGrid):
    """The second node's reply of one round comes only after that round is over, as if it answered the next message."""

    late_round = 2

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = list(super().push_messages(messages))
        for message_id in ids:
            reply = self._replies[message_id]
            outcome = reply.content.config_records.get("outcome") if reply.has_content() else None
            if outcome is None or reply.metadata.src_node_id != 2:
                continue
            if outcome["round"] == self.late_round:
                self.withheld = self._replies.pop(message_id)
            elif outcome["round"] == self.late_round + 1:
                self.withheld.metadata.__dict__["_reply_to_message_id"] = message_id
                self._replies[message_id] = self.withheld
        return ids


def test_a_late_client_is_left_out_and_what_it_sent_for_an_older_round_is_refused(
    folders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    zero, one, *others = folders(*FEW)
    limits = ("federation.round_timeout=0.5", "federation.min_clients=3", "federation.rounds=4")
    outcome = deployed(LateGrid([zero, *others], [one]), tmp_path / "run", "method=fedpub", *limits)
    everyone, others = [0, 1, 2, 3, 4], [0, 2, 3, 4]
    assert [record["clients"]["ids"] for record in outcome.rounds] == [everyone, others, others, everyone]
    assert [record["failures"] for record in outcome.rounds[:2]] == [{}, {"1": "no reply"}]
    assert "its update is of round 2, not 3" in outcome.rounds[2]["failures"]["1"]
    assert outcome.rounds[3]["failures"] == {}
    # It trained all the while, and rejoins with the state that it has.
    state = max((one / "runs" / outcome.summary["run_id"] / "state").iterdir())
    assert float(load_file(state)["steps"]) == 4.0


def test_too_few_replies_end_the_run_with_a_checkpoint(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    zero, one, *others = folders(*FEW)
    grid = LateGrid([zero, *others], [one])
    limits = ("federation.round_timeout=0.5", "federation.min_clients=5", "federation.rounds=4")
    with pytest.raises(
        RunFailure, match=r"^4 clients replied in round 2, where federation.min_clients is 5 \(client 1: no reply\)$"
    ):
        deployed(grid, tmp_path / "run", "method=fedpub", *limits)
    assert Outcome(tmp_path / "run").summary["status"] == "failed"
    assert (tmp_path / "run" / "checkpoint" / "server.safetensors").is_file()


class GoneGrid(FolderGrid):
    """No node takes the messages of the second round when it is asked first."""

    asked = 0

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        if messages and messages[0].metadata.message_type == "train":
            self.asked += 1
            if self.asked == 2:
                return [None] * len(messages)  # type: ignore[list-item]
        return super().push_messages(messages)


def test_attack_a_moment_without_any_node_does_not_end_the_run(
    folders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    zero, *others = folders(*FEW)
    run = ("method=fedavg", "federation.rounds=3", "runtime.node_timeout=5")
    outcome = deployed(GoneGrid([zero], others), tmp_path / "run", *run)
    assert [record["failures"] for record in outcome.rounds] == [{}] * 3 and outcome.summary["status"] == "completed"
    unbroken = deployed(FolderGrid([zero], others), tmp_path / "unbroken", *run)
    np.testing.assert_array_equal(outcome.values("test"), unbroken.values("test"))


class SilentGrid(FolderGrid):
    """The second node never replies to training."""

    def __init__(self, *folders: list[Path]) -> None:
        super().__init__(*folders)
        self.trains: list[int] = []

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        ids = list(super().push_messages(messages))
        for message, message_id in zip(messages, ids, strict=True):
            if message.metadata.message_type == "train":
                self.trains.append(message.metadata.dst_node_id)
                if message.metadata.dst_node_id == 2:
                    del self._replies[message_id]
        return ids


def test_a_node_that_is_silent_for_some_rounds_is_asked_no_more(
    folders: Callable[..., list[Path]], tmp_path: Path
) -> None:
    zero, one, *others = folders(*FEW)
    grid = SilentGrid([zero, *others], [one])
    run = ("method=fedavg", "federation.rounds=5", "federation.round_timeout=0.2", "federation.silent_rounds=2")
    outcome = deployed(grid, tmp_path / "run", *run)
    assert grid.trains.count(2) == 2 and grid.trains.count(1) == 5
    [refusal] = outcome.summary["refused"]
    assert refusal == {"clients": [1], "reason": "node 2 gave no reply in 2 rounds (federation.silent_rounds)"}
    assert outcome.rounds[1]["failures"] == {"1": "no reply"}
    assert outcome.rounds[4]["failures"] == {"1": "no node hosts it at the moment"}


def test_states_of_finished_runs_go_when_another_begins(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    clients = folders(*FEW)
    unfinished = deployed(
        FolderGrid(clients), tmp_path / "a", "federation.rounds=1", "method=fedavg", "record.client_models=false"
    )
    finished = deployed(FolderGrid(clients), tmp_path / "b", "federation.rounds=1", "method=fedavg")
    kept, gone = (clients[0] / "runs" / run.summary["run_id"] for run in (unfinished, finished))
    assert (gone / "state").is_dir()
    deployed(FolderGrid(clients), tmp_path / "c", "federation.rounds=1", "method=fedavg")
    assert (kept / "state").is_dir() and not (gone / "state").exists() and (gone / "model.safetensors").is_file()


def test_nodes_that_cannot_be_are_named(folders: Callable[..., list[Path]], tmp_path: Path) -> None:
    clients, others = folders(*FEW), folders(*FEW, "partition.seed=1", name="others")
    with pytest.raises(SubflError, match="are not of one partition; a node needs folders of one"):
        deployed(FolderGrid([clients[0], others[1]]), tmp_path / "mixed", "federation.rounds=1")
    with pytest.raises(SubflError, match="client 4: not of the partition of 'digits' that the run's schema names"):
        deployed(FolderGrid(clients[:4], [others[4]]), tmp_path / "two", "federation.rounds=1")
    grid = FolderGrid(clients)
    grid._contexts[1].node_config = {}
    with pytest.raises(SubflError, match="this SuperNode names no client; start it with --node-config"):
        deployed(grid, tmp_path / "none", "federation.rounds=1")


@pytest.mark.parametrize("run_id", ["../../elsewhere", "", "a/b"])
def test_a_run_id_cannot_lead_out_of_a_clients_folder(run_id: str) -> None:
    context = Context(run_id=1, node_id=1, node_config={"client": "x"}, state=RecordDict(), run_config={})
    with pytest.raises(SubflError, match="which is none"):
        open_node(ConfigRecord({"config": "{}", "id": run_id, "directory": ""}), context)
