"""State of deployed runs for their operator: the file, `subfl deploy status`, Prometheus, and the log in JSON."""

from __future__ import annotations

import io
import json
import socket
import threading
import urllib.request
from collections.abc import Callable, Iterator
from logging import INFO
from pathlib import Path

import pytest
from flwr.app import Message
from flwr.supercore.logger import FLOWER_LOGGER, ConsoleHandler
from folder_grid import SMALL, FolderGrid, deployed
from prometheus_client.parser import text_string_to_metric_families
from run_outcomes import deploy, partition

from subfl_flower.composition import composed_config
from subfl_flower.deploy.operations.status import lines as status_lines
from subfl_flower.flower.log import FORMAT, log, use_asked_format
from subfl_flower.flower.ports import free_port
from subfl_flower.loggers import Logger
from subfl_flower.node.open_nodes import forget_nodes
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.runs.live import LiveStatus, this_process
from subfl_flower.runs.status import RunStatus
from subfl_flower.server import federation
from subfl_flower.server.monitoring.metrics import METRICS

RUN = ("method=fedavg", "federation.rounds=2", "record.client_models=false")


class DeafGrid(FolderGrid):
    """Its second node does not reply to the training of the second round; the SuperLink replies for it."""

    def _handle(self, message: Message) -> Message:
        reply = super()._handle(message)
        run = message.content.config_records["run"]
        if message.metadata.dst_node_id == 2 and message.metadata.message_type == "train" and run["round"] == 2:
            reply.metadata.__dict__["_src_node_id"] = 99
            del reply.content["outcome"]
        return reply


@pytest.fixture
def grid(tmp_path: Path) -> FolderGrid:
    assert partition(["dataset=digits", "partition=metis", "partition.clients=3", f"out={tmp_path / 'parts'}"]) == 0
    first, second, third = sorted((tmp_path / "parts").glob("client-*"))
    return FolderGrid([first, third], [second])


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[int], None]]:
    """Functions that are called in the middle of a run, after each of its rounds."""
    wanted: list[Callable[[int], None]] = []

    class Look(Logger):
        def log_round(self, record: dict[str, int]) -> None:
            for look in wanted:
                look(record["round"])

    monkeypatch.setattr(federation, "build_loggers", lambda _: [Look()])
    return wanted


def test_a_run_says_which_node_was_heard_and_when(grid: FolderGrid, tmp_path: Path) -> None:
    deployed(grid, tmp_path / "run", *RUN)
    live = RunDirectory(tmp_path / "run").live()
    assert live is not None and live.is_alive and live.state == "completed" and live.process == this_process()
    assert [(node.node, node.clients, node.connected) for node in live.nodes] == [(1, (0, 2), True), (2, (1,), True)]
    assert all(node.heard is not None and 0 <= live.updated - node.heard < 60 for node in live.nodes)
    assert live.refused == () and live.run_id == json.loads((tmp_path / "run" / "summary.json").read_text())["run_id"]
    assert (tmp_path / "run" / "status.json").stat().st_mode & 0o777 == 0o600


def test_a_node_for_which_the_superlink_replies_is_not_heard(tmp_path: Path, grid: FolderGrid) -> None:
    deaf = DeafGrid.__new__(DeafGrid)
    deaf.__dict__ = grid.__dict__
    deployed(deaf, tmp_path / "run", *RUN)
    run = RunDirectory(tmp_path / "run")
    status, live = RunStatus.of(run), run.live()
    assert live is not None
    heard = {node.node: node.heard for node in live.nodes}
    assert heard[1] is not None and heard[2] is not None and heard[1] > heard[2]
    assert status.failures == {1: 1} and list(status.last_failures) == [1]


def test_status_tells_a_run_that_goes_on_from_one_that_was_cut_off(
    grid: FolderGrid, looks: list[Callable[[int], None]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def look(_: int) -> None:
        assert deploy(["status", str(tmp_path / "run")]) == 0
        seen.append(capsys.readouterr().out)

    looks.append(look)
    deployed(grid, tmp_path / "run", *RUN)
    assert "state   round 1 (process" in seen[0] and "round   1 of 2, validation 0." in seen[0]
    assert "state   round 2 (process" in seen[1] and "round   2 of 2" in seen[1]
    assert "node    1 (clients 0, 2): heard" in seen[1] and "node    2 (clients 1): heard" in seen[1]
    assert deploy(["status", str(tmp_path / "run"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    rounds = RunDirectory(tmp_path / "run").rounds()
    assert facts["traffic"]["up"] == sum(record["bytes_up"] for record in rounds) > 0
    assert facts["seconds"]["round"] == pytest.approx(sum(record["seconds"]["round"] for record in rounds))
    assert (facts["state"], facts["round"], facts["rounds"]) == ("completed", 2, 2)

    # Without its summary, of a process that is there and of one that is not.
    (tmp_path / "run" / "summary.json").unlink()
    assert RunStatus.of(RunDirectory(tmp_path / "run")).state == "completed"
    run = RunDirectory(tmp_path / "run")
    live = run.live()
    assert live is not None
    number, created = live.process
    run.write_live(LiveStatus.model_validate({**live.model_dump(), "process": (number, created - 3600.0)}))
    assert RunStatus.of(run).state == "cut off"
    assert deploy(["status", str(tmp_path / "run"), "--watch"]) == 0
    assert "state   cut off" in capsys.readouterr().out


def test_status_takes_the_newest_run_and_refuses_a_folder_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert deploy(["status"]) == 2
    assert capsys.readouterr().err == (
        "subfl deploy: outputs: there is no run in it; name the folder that the run's first line named\n"
    )
    assert deploy(["status", "elsewhere"]) == 2
    assert capsys.readouterr().err == "subfl deploy: elsewhere: there is no run in this folder\n"
    for name in ("old", "new"):
        run = RunDirectory.create(tmp_path / "outputs" / name)
        run.write_config(composed_config(["method=fedavg", "dataset=digits"])[0].plain())
        run.append_round({"round": 1 if name == "old" else 7})
    assert deploy(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["round"] == 7
    (tmp_path / "outputs" / "new" / "status.json").write_text('{"process": "me"}')
    assert deploy(["status"]) == 2
    assert "new/status.json: process" in capsys.readouterr().err


def test_the_epsilon_is_told_while_it_is_spent(
    grid: FolderGrid, looks: list[Callable[[int], None]], tmp_path: Path
) -> None:
    spent: list[float | None] = []
    looks.append(lambda _: spent.append(RunStatus.of(RunDirectory(tmp_path / "run")).epsilon))
    noise = ("privacy=gaussian_l2", "privacy.clip=1", "privacy.noise_multiplier=5")
    outcome = deployed(grid, tmp_path / "run", "method=fedavg", "federation.rounds=3", *noise)
    total = outcome.summary["privacy"]["user_level_epsilon"]
    assert spent[0] is None and 0 < spent[1] < spent[2] < total  # type: ignore[operator]
    assert RunStatus.of(RunDirectory(tmp_path / "run")).epsilon == total


def test_clients_whose_updates_are_scaled_back_or_left_out_are_counted(tmp_path: Path) -> None:
    status = RunStatus("fedavg", "digits", 2)
    clients = {"ids": [3, 5, 8], "clipped": [1.0, 0.0, None], "excluded": [0.0, 0.0, 1.0]}
    for number in (1, 2):
        status.take({"round": number, "clients": clients, "seconds": {}, "failures": {}})
    assert (status.clipped, status.excluded) == ({3: 2}, {8: 2})
    said = "\n".join(status_lines(tmp_path, status, now=0.0))
    assert "updates clipped: client 3 in 2 rounds" in said and "updates left out: client 8 in 2 rounds" in said


def test_prometheus_reads_the_state_while_the_run_goes_on(
    grid: FolderGrid, looks: list[Callable[[int], None]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, scraped = free_port(), {}
    monkeypatch.setenv(METRICS, f"127.0.0.1:{port}")

    def scrape(server_round: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            scraped[server_round] = answer.read().decode()

    looks.append(scrape)
    deployed(grid, tmp_path / "run", *RUN)
    records = RunDirectory(tmp_path / "run").rounds()
    run_id = json.loads((tmp_path / "run" / "summary.json").read_text())["run_id"]
    families = {family.name: family.samples for family in text_string_to_metric_families(scraped[2])}
    names = {
        *("run_info", "rounds", "rounds_planned", "seconds", "last_round_seconds", "bytes", "client_failures"),
        *("refused_nodes", "node_connected", "node_heard_timestamp_seconds", "validation"),
    }
    assert {f"subfl_{name}" for name in names} <= set(families)
    assert {sample.labels["run"] for name in names for sample in families[f"subfl_{name}"]} == {run_id}
    # The state is counted after the loggers: the second round is under way.
    assert [sample.value for sample in families["subfl_rounds"]] == [1.0]
    sizes = {sample.labels["direction"]: sample.value for sample in families["subfl_bytes"]}
    assert sizes["up"] == records[0]["bytes_up"] and sizes["down"] == records[0]["bytes_down"]
    nodes = {sample.labels["clients"]: sample.value for sample in families["subfl_node_connected"]}
    assert nodes == {"0,2": 1.0, "1": 1.0}
    assert "subfl_process_resident_memory_bytes" in families
    with pytest.raises(OSError, match="refused"):
        scrape(3)


def test_a_run_goes_on_where_the_address_of_its_metrics_is_taken(
    grid: FolderGrid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv(METRICS, f"127.0.0.1:{taken.getsockname()[1]}")
        outcome = deployed(grid, tmp_path / "run", *RUN)
    assert outcome.summary["status"] == "completed"
    assert "no metrics are served on 127.0.0.1" in caplog.text


@pytest.fixture
def json_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """All that Flower's log writes to the console, in JSON."""
    written = io.StringIO()
    monkeypatch.setenv(FORMAT, "json")
    with monkeypatch.context() as patch:
        # Without those that another test has left, whose files are closed.
        consoles = [handler for handler in FLOWER_LOGGER.handlers if isinstance(handler, ConsoleHandler)]
        patch.setattr(FLOWER_LOGGER, "handlers", consoles)
        for handler in consoles:
            patch.setattr(handler, "filters", [])
            patch.setattr(handler, "format", handler.format)
            patch.setattr(handler, "stream", written)
        use_asked_format()
        yield written


def test_every_line_of_a_run_is_a_json_object_where_that_is_asked_for(
    grid: FolderGrid, json_log: io.StringIO, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, _ = composed_config(["runtime=deploy", *SMALL, f"schema={grid.schema}", *RUN])
    with grid.active():
        federation.run_federation(grid, config, tmp_path / "run", threading.Event(), lines=True)
    log(INFO, "")  # as Flower does between its lines
    forget_nodes()
    assert capsys.readouterr() == ("", "")
    entries = [json.loads(line) for line in json_log.getvalue().splitlines()]
    run_id = json.loads((tmp_path / "run" / "summary.json").read_text())["run_id"]
    assert all({"time", "level", "event", "message"} <= set(entry) and entry["message"] for entry in entries)
    of_server = [entry for entry in entries if entry["event"] in ("begin", "round", "end")]
    assert [entry["event"] for entry in of_server] == ["begin", "round", "round", "end"]
    assert {entry["run"] for entry in of_server} == {run_id}
    trained = [entry for entry in entries if entry["event"] == "train"]
    assert [(entry["round"], entry["node"], entry["clients"]) for entry in trained] == [
        *((1, 1, [0, 2]), (1, 2, [1]), (2, 1, [0, 2]), (2, 2, [1])),
    ]
    records = RunDirectory(tmp_path / "run").rounds()
    rounds = [entry for entry in entries if entry["event"] == "round"]
    assert [entry["bytes_up"] for entry in rounds] == [record["bytes_up"] for record in records]
    assert all(entry["failures"] == 0 and entry["replied"] == 3 for entry in rounds)
