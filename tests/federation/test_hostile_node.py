"""Attacks on real processes by a node whose key is registered."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from hostile_node import HostileNode
from local_federation import LocalFederation, command, copied_client, wait_for
from run_outcomes import run_inline
from test_real_federation import same_rounds

from subfl_flower.cli import main as subfl
from subfl_flower.flower.app_folder import app_bundle, stage_app
from subfl_flower.server.standalone import make_client
from subfl_flower.trust.app_code import code_digest
from subfl_flower.trust.members import Members
from subfl_flower.trust.orders import ORDER, RUN
from subfl_flower.wire.payload import pack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SLOW_CLIENT = '''
import time
from pathlib import Path

from subfl_flower.clients.subgraphs.fedpub import FedPUBClient


class Held(FedPUBClient):
    """Waits in the third round for as long as a file says."""

    def take_steps(self, model, state, chunk, batch):
        while batch.server_round == 3 and (Path(__file__).parent / f"hold-{chunk.client_ids[0]}").exists():
            time.sleep(0.05)
        return super().take_steps(model, state, chunk, batch)
'''


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[LocalFederation]:
    """A SuperLink that signs, and its operator's key."""
    before = os.environ.get("FLWR_HOME")
    with LocalFederation.opened(tmp_path / "lab") as federation:
        command("deploy", "operator-key", federation.folder / "operator")
        (federation.folder / "modules" / "slow_client.py").write_text(SLOW_CLIENT)
        yield federation
    if before is None:
        os.environ.pop("FLWR_HOME", None)
    else:
        os.environ["FLWR_HOME"] = before


@pytest.fixture
def clients(tmp_path: Path) -> list[Path]:
    (tmp_path / "lab").mkdir()
    out = tmp_path / "partition"
    command("partition", "dataset=digits", "partition=metis", "partition.clients=2", f"out={out}")
    return [out / "client-00", out / "client-01"]


@pytest.mark.parametrize("warm", [True, False], ids=["forked", "programs"])
def test_attack_of_a_registered_node_that_gives_another_one_orders(
    clients: list[Path], lab: LocalFederation, tmp_path: Path, warm: bool
) -> None:
    run = ("method=fedpub", "dataset=digits", "model.hidden=8", "federation.rounds=3")
    unbroken = run_inline(tmp_path / "inline", *run, "partition=metis", "partition.clients=2")
    lab.schema = clients[0].parent / "federation.json"
    lab.start_superlink("--operator-key", lab.folder / "operator")
    for number, client in enumerate(clients):
        pinned = ("--operator-key", lab.folder / "operator.pub")
        key, allowed = lab.key(f"node-{number}"), ("slow_client",)
        lab.start_node(f"node-{number}", client, key=key, warm=warm, allowed=allowed, options=pinned)
    for name in lab.nodes:
        lab.wait_for_node(name)
    found = re.search(r"SuperNode ID: (\d+)", lab.log("node-0"))
    assert found
    hold = lab.folder / "modules" / "hold-1"
    hold.touch()
    ca = lab.folder / "certificates" / "ca.crt"
    with HostileNode.connected(f"127.0.0.1:{lab.port}", ca, lab.key("hostile")) as hostile:
        submitted = lab.submit(*run, "method.client=slow_client.Held")
        asked = hostile.message()  # the roster's question, with all that describes the run, and a signature
        directory = wait_for(lab.run_directory, "the run names its folder")
        wait_for(lambda: _rounds(directory) == 2, "round 3 begins")
        run_record = asked.content.config_records[RUN]
        initial = make_client([*run, "partition=metis", "partition.clients=2"], [0]).run.initial
        weights = {name: np.zeros((1, *values.shape), np.float32) for name, values in initial.items()}
        for signature in (None, asked.content.config_records[ORDER]):
            about = {**run_record, "round": 3, "clients": [0], "checkpoint": 2, "keep": True}
            content = RecordDict({RUN: ConfigRecord(about)})
            pack(weights).into(content)
            if signature is not None:
                content[ORDER] = signature
            hostile.push(Message(content, int(found[1]), "train"))
        wait_for(lambda: "a message of type train came without signature" in lab.log("node-0"), "one is refused")
        wait_for(lambda: "the operator has not signed this message of type train" in lab.log("node-0"), "two are")
        hold.unlink()
        outcome = lab.outcome(submitted)
    assert outcome.code == 0, outcome.stdout
    same_rounds(outcome, unbroken)
    assert all(not record["failures"] for record in outcome.rounds)


def _rounds(directory: Path) -> int:
    path = directory / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_attack_with_code_and_methods_that_a_sites_policy_refuses(
    clients: list[Path], lab: LocalFederation, tmp_path: Path
) -> None:
    """The site's folder would show that other code was imported."""
    (lab.folder / "site.toml").write_text('methods = ["fedavg"]\nmost_runs = 2\nmost_rounds = 2\n')
    mark = tmp_path / "imported"
    stage_app(None, tmp_path / "app")
    module = tmp_path / "app" / "subfl_flower" / "client_app.py"
    text = module.read_text().replace("app = ClientApp()", f"open({str(mark)!r}, 'w').close()\napp = ClientApp()")
    module.write_text(text)

    lab.schema = clients[0].parent / "federation.json"
    lab.start_superlink()
    lab.start_node(
        "node-0", *clients, key=lab.key("node-0"), allowed=(), options=("--policy", lab.folder / "site.toml")
    )
    lab.wait_for_node("node-0")
    run = ("dataset=digits", "model.hidden=8", "federation.rounds=1", "runtime.node_timeout=30")

    honest = lab.outcome(lab.submit(*run, "method=fedavg"))
    assert honest.code == 0, honest.stdout
    digest = re.search(r"the app's code is new on this site: digest ([0-9a-f]{64})", lab.log("node-0"))
    assert digest and digest[1] == code_digest(app_bundle(None))

    other_method = lab.outcome(lab.submit(*run, "method=fedpub"))
    assert other_method.code == 1
    assert "policy refuses this run: the method is fedpub (subfl_flower.clients.subgraphs" in other_method.stdout
    many_rounds = lab.outcome(lab.submit(*run, "method=fedavg", "federation.rounds=3"))
    assert many_rounds.code == 1
    assert "federation.rounds is 3, and the policy allows at most 2 rounds of a run" in many_rounds.stdout

    other_code = lab.outcome(lab.submit(*run, "method=fedavg", "--app", str(tmp_path / "app")))
    assert other_code.code == 1
    assert f"and this site runs the code that came first, {digest[1]}" in other_code.stdout
    assert not mark.exists()
    assert lab.outcome(lab.submit(*run, "method=fedavg")).code == 0
    assert "taken part in 2 runs, the most" in lab.outcome(lab.submit(*run, "method=fedavg")).stdout


def test_a_key_is_known_as_registered_without_that_its_node_connects(
    clients: list[Path], lab: LocalFederation, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.start_superlink()
    key = lab.key("node-0", register=False)
    trusted = ("--root-certificates", lab.folder / "certificates" / "ca.crt", "--key", key)

    def checked() -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            subfl(["deploy", "check", "--superlink", f"127.0.0.1:{lab.port}", *map(str, trusted)])
        out = capsys.readouterr().out
        assert bool(ended.value.code) == ("FAILED" in out)
        return out

    assert "node-0.key is not registered" in checked()
    lab.key("node-0")
    assert "node-0.key is registered" in checked()
    lab.start_node("node-0", clients[0], key=key, allowed=())
    lab.wait_for_node("node-0")
    assert "node-0.key is registered" in checked()
    assert lab.nodes["node-0"].poll() is None
    assert stat.S_IMODE((lab.folder / "superlink.db").stat().st_mode) == 0o600


def test_attack_of_a_node_that_hosts_a_copy_of_another_sites_client(
    clients: list[Path], lab: LocalFederation, tmp_path: Path
) -> None:
    """Its key is registered, and it is there before the rightful node."""
    lab.schema = clients[0].parent / "federation.json"
    members = lab.folder / "members.json"
    Members().write(members)
    lab.start_superlink("--operator-key", lab.folder / "operator", "--members", members)
    for number in (0, 1):
        key = lab.key(f"node-{number}", register=False)
        bound = ("--client", number, "--members", members)
        command("deploy", "register", f"{key}.pub", *bound, "--connection", "lab")
    pinned = ("--operator-key", lab.folder / "operator.pub")
    stolen = copied_client(clients[1], tmp_path / "stolen")
    lab.start_node("thief", stolen, key=lab.key("thief"), allowed=(), options=pinned)
    lab.wait_for_node("thief")
    for number, client in enumerate(clients):
        lab.start_node(f"node-{number}", client, key=lab.folder / f"node-{number}.key", allowed=(), options=pinned)
    for name in lab.nodes:
        lab.wait_for_node(name)
    run = ("dataset=digits", "model.hidden=8", "federation.rounds=1", "method=fedavg")
    outcome = lab.outcome(lab.submit(*run))
    assert outcome.code == 0, outcome.stdout
    assert outcome.rounds[0]["clients"]["ids"] == [0, 1]
    (refusal,) = outcome.summary["refused"]
    assert re.fullmatch(
        r"node \d+ \(SHA256:\S+\) offers client 1, which is bound to node-1\.key \(SHA256:\S+\) in members\.json",
        refusal["reason"],
    )
    trained = [folder for folder in (*clients, stolen) if list(folder.glob("runs/*/state"))]
    assert trained == clients
