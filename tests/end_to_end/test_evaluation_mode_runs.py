"""Evaluation modes: personal and global models, on own and on all clients' test examples."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from run_outcomes import SMALL_DIGITS, Outcome, run_inline

from subfl_flower.composition import composed_config
from subfl_flower.errors import SubflError

MODES = "record.evaluation_modes=true"
DIGITS = ("dataset=digits", "partition.clients=4", "model.hidden=8", "federation.rounds=6", MODES)


def modes_of(outcome: Outcome) -> Mapping[str, Any]:
    found: Mapping[str, Any] = outcome.summary["evaluation_modes"]
    return found


def test_the_mean_of_fedavgs_models_is_what_clients_are_sent_next(inline_run: Callable[..., Outcome]) -> None:
    """On own data it is therefore the next round's figure as received; the personal one is the run's own figure."""
    longer = inline_run("method=fedavg", *DIGITS[:-2], "federation.rounds=7")
    run = inline_run("method=fedavg", *DIGITS)
    modes, best = modes_of(run), run.summary["best_round"]
    assert modes["round"] == best
    assert modes["global_on_own"] == pytest.approx(longer.rounds[best]["test_as_received"], abs=1e-6)
    assert modes["personal_on_own"] == pytest.approx(run.summary["test_at_best_validation"], abs=1e-6)
    np.testing.assert_allclose(
        modes["clients"]["personal_on_own"], run.summary["per_client"]["test_at_best_validation"], atol=1e-6
    )
    assert modes["personal_on_all"] == pytest.approx(np.mean(modes["clients"]["personal_on_all"]))
    assert modes["models"] == 4
    sizes = [client["test"] for client in json.loads((run.directory / "data.json").read_text())["clients"]]
    pooled = np.average(modes["clients"]["global_on_own"], weights=sizes)
    assert modes["global_on_all"] == pytest.approx(pooled)  # of accuracies
    # Measuring changes nothing else, and its bytes are none of the method's.
    assert [record["test"] for record in run.rounds] == [record["test"] for record in longer.rounds[:6]]
    assert run.summary["bytes_up"] == sum(record["bytes_up"] for record in longer.rounds[:6])
    assert "evaluation_modes" not in longer.summary


@pytest.mark.parametrize(
    "overrides",
    [
        ("method=fedpub", *SMALL_DIGITS),
        ("method=fedper", "task.metric=roc_auc"),
        ("method=fedgcn",),
        ("method=fedavg", "task=link_prediction"),
        ("method=fedavg", "federation.fraction=0.5"),
    ],
    ids=lambda overrides: "-".join(overrides[:2]),
)
def test_placement_changes_nothing_and_own_figures_are_the_runs(
    tmp_path_factory: pytest.TempPathFactory, overrides: tuple[str, ...]
) -> None:
    folder = tmp_path_factory.mktemp("modes")
    one = run_inline(folder / "one", *DIGITS, *overrides, "runtime.nodes=1", "runtime.chunk=1")
    three = run_inline(folder / "three", *DIGITS, *overrides, "runtime.nodes=3", "runtime.chunk=all")
    assert modes_of(one)["personal_on_own"] == pytest.approx(one.summary["test_at_best_validation"], abs=1e-5)
    for name in ("personal_on_own", "personal_on_all", "global_on_own", "global_on_all"):
        assert modes_of(three)[name] == pytest.approx(modes_of(one)[name], abs=5e-3)


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("method=fedavg", "dataset=digits", "runtime=deploy"), "in simulations alone, and runtime=deploy is none"),
        (("method=fedavg", "dataset=digits", "record.test=false"), "record.test=false records none"),
        (("method=oracle", "dataset=digits"), "method=oracle with task=node_classification has none"),
        (("method=fedgnn", "dataset=synthetic_ratings"), "method=fedgnn with task=rating_prediction has none"),
    ],
)
def test_modes_that_cannot_be_measured_are_refused(overrides: tuple[str, ...], reason: str) -> None:
    with pytest.raises(SubflError, match=f"record.evaluation_modes: .*{reason}"):
        composed_config([*overrides, MODES])
