"""Entries of a whole run's summary on its model's size and on bytes outside of rounds."""

from collections.abc import Callable

import pytest
from run_outcomes import Outcome

from subfl_flower.evaluation.rows import RELATIVE_BYTES, build_rows
from subfl_flower.evaluation.runs import load_runs

Run = Callable[..., Outcome]
SMALL = ("dataset=digits", "model.hidden=16", "federation.rounds=2")
# Two convolutions and a classifier over 64 features, 16 hidden units and 10 classes, each with biases.
GCN_PARAMETERS = (64 * 16 + 16) + (16 * 16 + 16) + (16 * 10 + 10)


def test_personal_layers_are_part_of_the_model(inline_run: Run) -> None:
    fedper = inline_run(*SMALL, "method=fedper")
    sent = fedper.rounds[0]["clients"]["bytes_up"]
    assert max(sent) < 4 * GCN_PARAMETERS  # the classifier stays
    assert fedper.summary["model_parameters"] == GCN_PARAMETERS


def test_exchanges_are_summed_apart_and_within_the_totals(inline_run: Run) -> None:
    settings = (*SMALL, "partition=overlap_rate", "partition.rate=0.2")
    fedavg, subpfed = inline_run(*settings, "method=fedavg"), inline_run(*settings, "method=subpfed")
    assert fedavg.summary["bytes_exchanges"] == {"up": 0, "down": 0}
    assert fedavg.summary["model_parameters"] == subpfed.summary["model_parameters"] == GCN_PARAMETERS
    (phase,) = subpfed.summary["exchanges"]
    assert phase["bytes_up"] > 0
    assert subpfed.summary["bytes_exchanges"] == {"up": phase["bytes_up"], "down": phase["bytes_down"]}
    in_rounds, of_fedavg = (
        sum(record[way] for record in run.rounds for way in ("bytes_up", "bytes_down")) for run in (subpfed, fedavg)
    )
    totals = subpfed.summary["bytes_up"] + subpfed.summary["bytes_down"]
    assert totals == in_rounds + phase["bytes_up"] + phase["bytes_down"]
    _, row = build_rows(load_runs([fedavg.directory, subpfed.directory]))
    assert row.mean(RELATIVE_BYTES) == pytest.approx(totals / of_fedavg)


def test_a_recommender_is_its_item_table_and_its_weights(inline_run: Run) -> None:
    fcf = inline_run("method=fcf", "dataset.num_users=20", "dataset.num_items=50", "model.dim=8", "federation.rounds=1")
    assert fcf.summary["model_parameters"] == 50 * (8 + 1) + 1  # an embedding and a bias an item; the global bias


@pytest.mark.parametrize("method", ["popularity", "bias_row"])
def test_a_method_that_trains_nothing_has_no_model(inline_run: Run, method: str) -> None:
    run = inline_run(f"method={method}", "dataset.num_users=20", "dataset.num_items=120", "federation.rounds=1")
    assert "model_parameters" not in run.summary
