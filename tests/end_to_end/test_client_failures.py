"""A client that raises in mid-run, and one whose process dies: the run says so, goes on or stops, and never hangs."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from run_outcomes import Outcome, command, run_inline

from subfl_flower.clients.recommendation.recommender import RecommenderClient
from subfl_flower.errors import RunFailure
from subfl_flower.node.state import CohortState
from subfl_flower.wire.batch import Batch, Result

MODULE = """
import os
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient


class Raising(SubgraphClient):
    def take_steps(self, model, state, chunk, batch):
        losses = super().take_steps(model, state, chunk, batch)
        if 3 in chunk.client_ids and batch.server_round == 2:
            raise OSError("the disk is full")
        return losses


class Dying(SubgraphClient):
    def take_steps(self, model, state, chunk, batch):
        if 3 in chunk.client_ids and batch.server_round == 2:
            os._exit(1)
        return super().take_steps(model, state, chunk, batch)
"""
RAY = ("runtime=ray", "runtime.nodes=2", "runtime.total_cpus=2")
INLINE = ("runtime=inline", "runtime.nodes=2")


@pytest.fixture(scope="module")
def module_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("modules")
    (folder / "failing_clients.py").write_text(MODULE)
    return folder


def run(folder: Path, module_folder: Path, family: str, action: str, *runtime: str) -> Outcome:
    return command(
        *("dataset=digits", "method=fedavg", f"method.client=failing_clients.{family}", "federation.rounds=4"),
        *("model.hidden=8", f"runtime.on_client_failure={action}", *runtime),
        directory=folder / "run",
        cwd=folder,
        env={"PYTHONPATH": f"{module_folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        timeout=400,
    )


@pytest.mark.parametrize("runtime", [INLINE, pytest.param(RAY, marks=pytest.mark.slow)], ids=["inline", "ray"])
def test_stop_names_client_and_reason_and_keeps_finished_rounds(
    tmp_path: Path, module_folder: Path, runtime: tuple[str, ...]
) -> None:
    outcome = run(tmp_path, module_folder, "Raising", "stop", *runtime)
    assert outcome.code == 1
    assert outcome.complaint == "subfl: client 3 failed in round 2: OSError: the disk is full"
    if runtime == INLINE:  # nobody else may print a word
        remark = "warning: 2 of 10 clients have nodes of one class only, the first is client 1"
        assert outcome.stderr.strip().splitlines() == [remark, outcome.complaint]
    assert [record["round"] for record in outcome.rounds] == [1]
    assert outcome.summary["status"] == "failed" and outcome.summary["rounds"] == 1
    assert not (outcome.directory / "state").exists()


@pytest.mark.parametrize("runtime", [INLINE, pytest.param(RAY, marks=pytest.mark.slow)], ids=["inline", "ray"])
def test_continue_goes_on_without_the_client_and_takes_it_back(
    tmp_path: Path, module_folder: Path, runtime: tuple[str, ...]
) -> None:
    outcome = run(tmp_path, module_folder, "Raising", "continue", *runtime)
    assert outcome.code == 0, outcome.stderr
    assert outcome.summary["status"] == "completed"
    present = [record["clients"]["ids"] for record in outcome.rounds]
    everyone = list(range(10))
    assert present == [everyone, [0, 1, 2, 4, 5, 6, 7, 8, 9], everyone, everyone]
    assert [record["failures"] for record in outcome.rounds] == [{}, {"3": "OSError: the disk is full"}, {}, {}]
    assert sorted(outcome.models()) == everyone


def test_an_innocent_client_of_the_same_chunk_trains_as_if_nothing_had_happened(
    tmp_path: Path, module_folder: Path
) -> None:
    losses = []
    for chunk in ("1", "all"):
        folder = tmp_path / chunk
        folder.mkdir()
        outcome = run(folder, module_folder, "Raising", "continue", *INLINE, f"runtime.chunk={chunk}")
        assert outcome.code == 0, outcome.stderr
        losses.append([record["clients"]["train_loss"] for record in outcome.rounds])
    for one, whole in zip(*losses, strict=True):
        np.testing.assert_allclose(whole, one, atol=1e-4)


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_under_stop(tmp_path: Path, module_folder: Path) -> None:
    outcome = run(tmp_path, module_folder, "Dying", "stop", *RAY)
    assert outcome.code == 1
    assert [record["round"] for record in outcome.rounds] == [1]
    assert outcome.summary["status"] == "failed"
    assert outcome.complaint.startswith("subfl: client 1 failed in round 2: ")  # the first client of the node that died


def test_a_process_that_dies_costs_its_node_a_round_under_continue(tmp_path: Path, module_folder: Path) -> None:
    outcome = run(tmp_path, module_folder, "Dying", "continue", *RAY)
    assert outcome.code == 0, outcome.stderr
    assert outcome.summary["status"] == "completed" and len(outcome.rounds) == 4
    assert set(outcome.rounds[1]["failures"]) == {"1", "3", "5", "7", "9"}  # the node of client 3
    assert outcome.rounds[1]["clients"]["ids"] == [0, 2, 4, 6, 8]
    assert all("\n" not in reason for reason in outcome.rounds[1]["failures"].values())
    for record in outcome.rounds[2:]:  # everyone goes on from the state before the failure
        assert record["clients"]["ids"] == list(range(10)) and record["failures"] == {}
    assert sorted(outcome.models()) == list(range(10))


@pytest.mark.parametrize("action", ["stop", "continue"])
def test_who_cannot_be_measured_by_itself_ends_the_run_or_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    """A failure in a separate evaluation message, as users have it."""
    measure = RecommenderClient.measure_chunk

    def failing(self: RecommenderClient, batch: Batch, state: CohortState) -> Result:
        if 7 in batch.clients:
            raise OSError("the disk is full")
        return measure(self, batch, state)

    monkeypatch.setattr(RecommenderClient, "measure_chunk", failing)
    overrides = (
        *(
            "method=fedavg",
            "dataset=synthetic_ratings",
            "task=ranking",
            "dataset.num_users=12",
            "dataset.num_items=130",
        ),
        *("dataset.ratings_per_user=8", "model.dim=4", "method.users_per_round=6", "method.evaluate_every=2"),
        *("federation.rounds=4", f"runtime.on_client_failure={action}"),
    )
    if action == "stop":
        with pytest.raises(
            RunFailure, match=r"^client 7 failed in the evaluation of round 2: OSError: the disk is full$"
        ):
            run_inline(tmp_path / "run", *overrides)
        return
    outcome = run_inline(tmp_path / "run", *overrides)
    assert outcome.summary["status"] == "completed"
    found = [record["failures"] for record in outcome.rounds]
    assert found == [{}, {"7": "OSError: the disk is full"}] * 2
    for record in outcome.rounds[1::2]:
        known = dict(zip(record["clients"]["ids"], record["clients"]["validation"], strict=True))
        assert known.pop(7, None) is None and None not in known.values()
        assert record["validation"] == pytest.approx(np.mean(list(known.values())))
