"""The inline app on a SuperLink and SuperNodes, secured; killed on purpose, and resumed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from local_federation import LocalFederation, command, copied_client, held_up, kill, shared_arguments, wait_for
from run_outcomes import SMALL_GENERATOR, Outcome, run_inline
from safetensors.numpy import load_file

from subfl_flower.runs.directory import RunDirectory
from subfl_flower.subgraphs.models.exported import read_model

pytestmark = pytest.mark.timeout(900)
HELD = ("method.client=held_clients.Held",)
MENDING = {
    "fedgcn": ("method.masking=true",),
    "fedsage_plus": SMALL_GENERATOR,
}
PHASES = {"fedgcn": ["boundary", "neighbours", "mend"], "fedsage_plus": ["generator", "gradients", "generator"]}


def same_rounds(found: Outcome, expected: Outcome) -> None:
    assert [record["round"] for record in found.rounds] == [record["round"] for record in expected.rounds]
    for name in ("validation", "test", "validation_as_received", "test_as_received", "train_loss", "sparsity"):
        np.testing.assert_allclose(found.values(name), expected.values(name), atol=1e-4, err_msg=name)
    for name in ("bytes_up", "bytes_down"):
        assert [r[name] for r in found.rounds] == [r[name] for r in expected.rounds]


def state_folder(client: Path, outcome: Outcome) -> Path:
    return client / "runs" / outcome.summary["run_id"] / "state"


@pytest.fixture
def wrong_nodes(federation: LocalFederation, partition: Path, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """The folders of SuperNodes with a client that another one hosts and with a damaged client; both connected."""
    folders = {name: copied_client(partition / "client-02", tmp_path / name) for name in ("twice", "damaged")}
    with (folders["damaged"] / "graph.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with federation.visited_by(*folders, "stranger", "deceived"):
        command("deploy", "certificates", tmp_path / "other-ca", "--host", "127.0.0.1")
        copies = {name: copied_client(partition / "client-00", tmp_path / name) for name in ("stranger", "deceived")}
        federation.start_node("stranger", copies["stranger"], key=federation.key("stranger", register=False))
        # Keys of this test: a node that has just been killed is still active for the SuperLink.
        keys = {name: federation.key(f"{name}-of-{tmp_path.name}") for name in folders}
        federation.start_node("deceived", copies["deceived"], key=keys["twice"], ca=tmp_path / "other-ca" / "ca.crt")
        for name, folder in folders.items():
            federation.start_node_unchecked(name, folder, keys[name])
        for name in folders:
            federation.wait_for_node(name)
        yield folders


@pytest.mark.parametrize("method", ["fedgcn", pytest.param("fedsage_plus", marks=pytest.mark.slow)])
def test_what_is_exchanged_before_training_reaches_the_nodes_that_train_and_wrong_ones_are_refused(
    federation: LocalFederation, wrong_nodes: dict[str, Path], method: str, tmp_path: Path
) -> None:
    shared = ("dataset=digits", "model.hidden=16", "federation.rounds=1", f"method={method}", *MENDING[method])
    expected = run_inline(tmp_path / "inline", *shared, "partition=metis", "partition.clients=4")
    with held_up(federation.nodes["node-0"]):  # the run cannot start before the wrong nodes have answered
        submitted = federation.submit(*shared, "record.client_models=false")
        for name in wrong_nodes:
            wait_for(lambda name=name: "Sent successfully" in federation.log(name), f"{name} answers")
    outcome = federation.outcome(submitted)
    assert outcome.code == 0, outcome.stdout
    assert outcome.summary["status"] == "completed"
    for name in ("validation", "test", "validation_as_received", "test_as_received", "train_loss"):
        np.testing.assert_allclose(outcome.values(name), expected.values(name), atol=1e-5, err_msg=name)
    found, right = (
        [(phase["action"], phase["bytes_up"], phase["bytes_down"]) for phase in run.summary["exchanges"]]
        for run in (outcome, expected)
    )
    assert found == right and [action for action, _, _ in found] == PHASES[method]
    assert all(up + down > 0 for _, up, down in found)

    # By the run, each by name: nobody looked at their folders before.
    # On a busy machine the SuperLink may have missed the one that was held up.
    refused = [str(each["reason"]) for each in outcome.summary["refused"] if "Node Unavailable" not in each["reason"]]
    reasons = "\n".join(refused)
    assert "client 2 is hosted by two nodes" in reasons
    assert f"{wrong_nodes['damaged'] / 'graph.safetensors'} is damaged (its checksum differs)" in reasons
    assert len(refused) == 2 and len(outcome.summary["refused"]) <= 3
    # By the SuperLink, whose operator has not registered its key; and by the node, which trusts another authority.
    assert federation.nodes["stranger"].wait(60) not in (None, 0)
    assert "SuperNode ID" not in federation.log("stranger")
    assert "SuperNode ID" not in federation.log("deceived")
    assert "certificate" in federation.log("deceived").lower()


@pytest.mark.slow
def test_a_killed_node_goes_on_with_its_state(federation: LocalFederation, partition: Path) -> None:
    modules, client = federation.folder / "modules", partition / "client-01"
    hold_killed, hold_rest = modules / "hold-1-2", modules / "hold-0-3"
    hold_killed.touch()
    hold_rest.touch()
    submitted = federation.submit(
        *shared_arguments(*HELD, "federation.rounds=5", "federation.round_timeout=150"),
        *("federation.min_clients=2", "record.client_models=false"),
    )
    wait_for((modules / "at-1-2").exists, "client 1 trains in round 2")
    directory = wait_for(federation.run_directory, "the run names its folder")
    assert [record["round"] for record in RunDirectory(directory).rounds()] == [1]
    started = hold_killed.stat().st_mtime
    (saved,) = (path for path in (client / "runs").glob("*/state/*") if path.stat().st_mtime > started)
    before = load_file(saved)
    kill(federation.nodes["node-0"])
    hold_killed.unlink()
    hosted = federation.log("node-0").count("SuperNode ID")

    def is_back() -> bool:
        """The node is started again, as by a service manager, until the SuperLink believes that the old one is dead."""
        if federation.nodes["node-0"].poll() is not None:
            federation.start_node("node-0", client, key=federation.folder / "node-0.key")
        return federation.log("node-0").count("SuperNode ID") > hosted

    wait_for((modules / "at-0-3").exists, "round 3 begins without client 1")
    wait_for(is_back, "the killed node is back")
    hold_rest.unlink()
    outcome = federation.outcome(submitted)
    assert outcome.code == 0, outcome.stdout
    assert outcome.summary["status"] == "completed" and len(outcome.rounds) == 5
    took_part = [1 in record["clients"]["ids"] for record in outcome.rounds]
    assert took_part[0] and not took_part[1] and took_part[-1], [record["failures"] for record in outcome.rounds]
    assert all({0, 2, 3} <= set(record["clients"]["ids"]) for record in outcome.rounds)
    assert [list(record["failures"]) for record in outcome.rounds] == [[] if there else ["1"] for there in took_part]

    # One step a round that it finished, counted on from the first; and its masks moved from where they had been.
    assert float(before["steps"]) == 1.0
    after = load_file(max(state_folder(client, outcome).glob("round-*")))
    assert float(after["steps"]) == sum(took_part)
    masks = [name for name in before if name.startswith("personal.") and name.endswith(".mask")]
    assert masks
    for name in masks:
        moved = np.abs(after[name] - before[name]).max()
        assert 0 < moved < 0.011 * (sum(took_part) - 1)  # Adam's steps are no longer than its learning rate


@pytest.mark.slow
def test_a_killed_worker_costs_its_round_and_nothing_else(federation: LocalFederation, partition: Path) -> None:
    modules = federation.folder / "modules"
    hold, there = modules / "hold-1-2", modules / "at-1-2"
    there.unlink(missing_ok=True)
    hold.touch()
    run = shared_arguments(*HELD, "federation.rounds=3", "record.client_models=false")
    submitted = federation.submit(*run)
    worker = psutil.Process(int(wait_for(lambda: there.exists() and there.read_text(), "client 1 trains in round 2")))
    others = set(psutil.Process(federation.nodes["node-0"].pid).children(recursive=True)) - {worker}
    assert len(others) == 3  # the executor, the process with PyTorch, and its fork with the app
    worker.kill()
    hold.unlink()
    wait_for(lambda: not psutil.pid_exists(worker.pid), "no zombie is left")
    outcome = federation.outcome(submitted)
    assert outcome.code == 0, outcome.stdout
    assert [list(record["failures"]) for record in outcome.rounds] == [[], ["1"], []]
    assert [record["clients"]["ids"] for record in outcome.rounds] == [[0, 1, 2, 3], [0, 2, 3], [0, 1, 2, 3]]
    for client, rounds in ((0, 3), (1, 2)):  # one step a round that it finished
        saved = load_file(max(state_folder(partition / f"client-{client:02d}", outcome).glob("round-*")))
        assert float(saved["steps"]) == rounds
    assert others <= set(psutil.Process(federation.nodes["node-0"].pid).children(recursive=True))


@pytest.mark.parametrize(
    "kills", [(2,), pytest.param((2, 3), marks=pytest.mark.slow)], ids=["superlink", "serverapp-then-superlink"]
)
def test_a_killed_server_is_resumed_to_the_numbers_of_an_unbroken_run(
    kills: tuple[int, ...],
    federation: LocalFederation,
    partition: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    modules = federation.folder / "modules"
    rounds = kills[-1]
    run = shared_arguments(f"federation.rounds={rounds}", "record.mixing_every=1")
    unbroken = run_inline(tmp_path / "inline", *run, "partition.clients=4")
    asked: tuple[str, ...] = (*run, *HELD)
    for server_round in kills:
        hold, there = modules / f"hold-0-{server_round}", modules / f"at-0-{server_round}"
        there.unlink(missing_ok=True)
        hold.touch()
        submitted = federation.submit(*asked)
        wait_for(there.exists, f"client 0 trains in round {server_round}")
        directory = wait_for(federation.run_directory, "the run names its folder")
        assert federation.superlink is not None
        # With the SuperLink dies the ServerApp that it has started.
        kill(federation.superlink if server_round == kills[-1] else federation.server_app())
        kill(submitted)  # Flower takes a minute to see that a run is dead; its operator need not wait for that
        hold.unlink()
        records = RunDirectory(directory)
        assert [record["round"] for record in records.rounds()] == list(range(1, server_round))
        assert records.summary() is None
        asked = (f"resume={directory}",)

    federation.start_superlink()
    resumed = federation.outcome(federation.submit(*asked))
    assert resumed.code == 0, resumed.stdout
    assert resumed.directory == directory
    same_rounds(resumed, unbroken)
    for name in ("test_at_best_validation", "test_last"):
        assert resumed.summary[name] == pytest.approx(unbroken.summary[name], abs=1e-4)
    assert resumed.summary["bytes_up"] == unbroken.summary["bytes_up"]
    assert sorted(resumed.mixing) == list(range(1, rounds + 1))
    np.testing.assert_allclose(resumed.mixing[rounds], unbroken.mixing[rounds], atol=1e-4)
    assert resumed.summary["status"] == "completed"
    for record in resumed.rounds:
        check_where_the_seconds_went(record["seconds"])
    check_models(partition, resumed, tmp_path, capsys)


def check_where_the_seconds_went(seconds: dict[str, float]) -> None:
    """Flower's waits, a process's start, our work."""
    assert seconds["transport"] > 0 and seconds["startup"] > 0 and seconds["client"] > 0
    parts = sum(seconds[part] for part in ("client", "startup", "server", "transport"))
    assert parts == pytest.approx(seconds["round"], abs=1e-3)


def check_models(partition: Path, outcome: Outcome, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each client's best model is on its node and nowhere else, and predicts what the run reported."""
    assert not (outcome.directory / "clients").exists()
    best = outcome.values("validation").argmax(axis=0)
    for client in range(4):
        data = partition / f"client-{client:02d}"
        model = data / "runs" / outcome.summary["run_id"]
        _, card = read_model(model)
        assert (card.client, card.method, card.round) == (client, "fedpub", len(outcome.rounds))
        assert card.validation == pytest.approx(outcome.values("validation")[best[client], client], abs=1e-6)
        capsys.readouterr()
        command("predict", model, data, "--out", folder / f"{client}.csv")
        accuracy = capsys.readouterr().out
        assert f"test {outcome.values('test')[best[client], client]:.4f}" in accuracy
