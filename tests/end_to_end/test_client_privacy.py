"""Client-level differential privacy of whole runs, on simulated and on deployed nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from folder_grid import FolderGrid, deployed
from run_outcomes import Outcome, partition

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError
from subfl_flower.privacy.ledger import LEDGER_FILE

PRIVATE = ("privacy=gaussian_l2", "privacy.target_epsilon=2", "federation.rounds=3")


@pytest.mark.parametrize("method", ["fedavg", "fedprox", "fedper", "fedpub", "subpfed", "gcfl", "fedper_similar"])
def test_every_method_that_averages_parameters_spends_its_target(
    method: str, inline_run: Callable[..., Outcome]
) -> None:
    run = inline_run(f"method={method}", "dataset=digits", "partition.clients=4", "model.hidden=8", *PRIVATE)
    found = run.summary["privacy"]
    assert run.summary["status"] == "completed" and found["num_uploads"] == 3
    assert 1.99 < found["user_level_epsilon"] <= 2.0 == found["target_epsilon"]
    assert abs(found["update_cosine"]) < 0.2
    for record in run.rounds:
        assert "train_loss" not in record and -1 <= record["update_cosine"] <= 1


def test_rankings_spend_their_target(inline_run: Callable[..., Outcome]) -> None:
    data = ("dataset=synthetic_ratings", "dataset.num_users=12", "dataset.num_items=16", "task=ranking")
    small = ("task.negatives=4", "task.cutoffs=[2]", "model.dim=3", "dataset.ratings_per_user=8")
    run = inline_run("method=fedavg", *data, *small, "method.users_per_round=null", *PRIVATE)
    assert 1.99 < run.summary["privacy"]["user_level_epsilon"] <= 2.0


SUMMED = ("privacy.in_sum=true", "secure_sums.enabled=true", "secure_sums.min_clients=4", "method.weighting=uniform")


def test_clients_of_a_sum_have_its_noise_together(inline_run: Callable[..., Outcome]) -> None:
    """Each adds half as much as it would alone, and the run's epsilon is the same."""
    data = ("dataset=digits", "partition.clients=4", "model.hidden=8", *PRIVATE)
    found = inline_run("method=fedavg", *data, *SUMMED).summary["privacy"]
    assert 1.99 < found["user_level_epsilon"] <= 2.0 and found["noise_of_clients"] == 4
    alone = inline_run("method=fedavg", *data).summary["privacy"]
    assert found["grid"] == alone["grid"] / 2 and found["update_cosine"] != alone["update_cosine"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (SUMMED[:1], "needs secure_sums.enabled=true from the first round on"),
        (SUMMED[:3], "needs method.weighting=uniform"),
        ((*SUMMED, "secure_sums.from_round=2"), "from the first round on"),
    ],
)
def test_shared_noise_without_a_sum_of_equal_parts_is_refused(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SubflError, match=reason):
        composed_config(["method=fedavg", "dataset=digits", *PRIVATE, *overrides])


def test_rows_of_absent_features_cannot_be_left_out(inline_run: Callable[..., Outcome]) -> None:
    with pytest.raises(SubflError, match=r"wire\.absent_features: with privacy\.mechanism=gaussian_l2 only send"):
        inline_run("method=fedpub", "dataset=digits", "wire.absent_features=skip", *PRIVATE)


def test_attack_a_site_spends_one_budget_in_all_runs(tmp_path: Path) -> None:
    """A second run on the same data finds the first one's uploads in the sites' ledgers, and gets none."""
    assert partition(["dataset=digits", "partition.clients=2", f"out={tmp_path / 'clients'}"]) == 0
    folders = sorted((tmp_path / "clients").glob("client-*"))

    def run(name: str) -> Outcome:
        grid = FolderGrid(*([folder] for folder in folders))
        for context in grid._contexts.values():
            context.node_config["epsilon-limit"] = 2.5
        return deployed(grid, tmp_path / name, "method=fedavg", *PRIVATE)

    assert run("first").summary["status"] == "completed"
    for folder in folders:
        (entry,) = json.loads((folder / LEDGER_FILE).read_text())["entries"]
        assert entry["uploads"] == 3
    with pytest.raises(SubflError, match=r"allows these data epsilon 2\.5 at delta 1e-05 .*; 2\.346 is spent"):
        run("second")


AUDITED = ("dataset=digits", "partition.clients=4", "model.hidden=16", "federation.rounds=3", "record.audit=true")


@pytest.mark.parametrize("method", ["fedavg", "fedpub", "subpfed", "fedper"])
def test_attack_a_server_reads_clients_features_and_noise_hides_them(
    method: str, inline_run: Callable[..., Outcome]
) -> None:
    """Without noise every absent feature is found; with noise the ranking is near chance."""
    plain = inline_run(f"method={method}", *AUDITED, "optimizer.weight_decay=0").summary["inference"]
    assert plain["feature_auc"] == 1.0 and plain["feature_share"] < 1
    noised = inline_run(f"method={method}", *AUDITED, *PRIVATE).summary["inference"]
    assert 0.3 < noised["feature_auc"] < 0.7
    assert noised["clients"] == plain["clients"] == 4
    assert (plain["label_correlation"] is None) == (method == "fedper")


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("method=fedgnn", "dataset=synthetic_ratings"), "for ratings: method.audit_users"),
        (("method=fedavg", "dataset=digits", "task=link_prediction"), "with task=link_prediction has none"),
        (("method=oracle", "dataset=digits"), "method=oracle"),
        (("method=fedavg", "dataset=digits", "runtime=deploy"), "runtime=deploy is none"),
    ],
)
def test_an_audit_of_nothing_is_refused(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SubflError, match=reason):
        composed_config([*overrides, "record.audit=true"])
