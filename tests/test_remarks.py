"""The lines that `subfl` prints below a run's result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from subfl_flower.cli import main
from subfl_flower.commands.result_lines import _remarks

FIGURES = {"test.majority": 0.21434, "test.macro_f1": 0.61, "test.balanced_accuracy": 0.63, "test.one_class": 0.0}


def remarks(test: float | None = 0.75, **figures: Any) -> list[str]:
    """Of five clients, the third of which has no test node."""
    return list(
        _remarks(
            {
                "test_at_best_validation": test,
                "figures": {**FIGURES, **figures},
                "worst_client": {"client": 4, "test": 0.41},
                "per_client": {"ids": [0, 2, 3, 4, 9], "test_at_best_validation": [1.0, 0.5, None, 0.41, 0.8]},
            }
        )
    )


def test_accuracy_is_held_against_the_majority_class_and_figures_that_weigh_classes_equally() -> None:
    assert remarks() == [
        "majority class on the same nodes: 0.2143; macro-F1 0.6100, balanced accuracy 0.6300, worst client 4: 0.4100"
    ]


@pytest.mark.parametrize(("majority", "said"), [(0.75, True), (0.76, True), (0.7499, False)])
def test_a_result_that_does_not_exceed_the_majority_class_is_said_to(majority: float, said: bool) -> None:
    line = "this does not exceed always predicting each client's most frequent training class"
    assert (line in remarks(**{"test.majority": majority})) == said


@pytest.mark.parametrize(("share", "count"), [(0.25, 1), (0.5, 2), (1.0, 4), (0.7500000001, 3)])
def test_models_that_predict_one_class_are_counted_among_clients_with_test_nodes(share: float, count: int) -> None:
    assert remarks(**{"test.one_class": share})[1:] == [f"{count} of 4 clients' models predict one class only"]


def test_a_run_without_these_figures_says_nothing() -> None:
    assert list(_remarks({"test_at_best_validation": 0.5, "figures": None})) == []
    assert list(_remarks({"test_at_best_validation": 0.5, "figures": {"test.ndcg@10": 0.5}})) == []
    assert remarks(test=None) == []
    assert remarks(**{"test.majority": None}) == []  # no client has a test node


def test_a_run_prints_what_its_summary_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["method=fedavg", "dataset=digits", "federation.rounds=1", "hydra.run.dir=run"])
    lines = capfd.readouterr().out.splitlines()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    figures, worst = summary["figures"], summary["worst_client"]
    assert lines[1] == (
        f"majority class on the same nodes: {figures['test.majority']:.4f}; macro-F1 {figures['test.macro_f1']:.4f}, "
        f"balanced accuracy {figures['test.balanced_accuracy']:.4f}, worst client {worst['client']}: "
        f"{worst['test']:.4f}, tenth percentile {summary['tenth_percentile']:.4f}"
    )
    collapsed = sum(json.loads((tmp_path / "run/metrics.jsonl").read_text())["clients"]["test.one_class"])
    assert collapsed and f"{collapsed:.0f} of 10 clients' models predict one class only" in lines
