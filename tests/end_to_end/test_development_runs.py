"""Runs that record no test figure: nothing about test examples is written, and training is unchanged."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from run_outcomes import Outcome

from subfl_flower.cli import run

GRAPH = ("dataset=digits", "partition.clients=3", "model.hidden=8", "federation.rounds=3")
RATINGS = ("dataset=synthetic_ratings", "federation.rounds=2")
WITHOUT = "record.test=false"

CASES = [
    ("method=fedavg", *GRAPH),
    ("method=oracle", *GRAPH),
    ("method=fedavg", "task=link_prediction", *GRAPH),
    ("method=fedavg", "runtime=ray", "runtime.nodes=2", *GRAPH),
    ("method=fedgnn", *RATINGS),
    ("method=perfedrec", "task=ranking", "task.negatives=10", "task.cutoffs=[5]", *RATINGS),
]


def test_figures_of(entries: Any) -> Iterator[str]:
    """Names of known figures of test examples, at any depth."""
    if isinstance(entries, dict):
        for name, value in entries.items():
            if (name == "test" or name.startswith(("test.", "test_"))) and _known(value):
                yield name
            yield from test_figures_of(value)
    elif isinstance(entries, list):
        for value in entries:
            yield from test_figures_of(value)


test_figures_of.__test__ = False  # type: ignore[attr-defined]


def _known(value: Any) -> bool:
    return any(map(_known, value)) if isinstance(value, list) else value is not None


@pytest.mark.parametrize("overrides", CASES, ids=lambda overrides: "-".join(overrides[:2]))
def test_no_test_figure_is_written_and_validation_is_that_of_any_run(
    inline_run: Callable[..., Outcome], overrides: tuple[str, ...]
) -> None:
    usual, development = inline_run(*overrides), inline_run(*overrides, WITHOUT)
    assert list(test_figures_of(usual.summary))  # the search finds what there is
    for name in ("summary.json", "metrics.jsonl"):
        for line in (development.directory / name).read_text().split("\n" if name.endswith("l") else "\0"):
            assert not list(test_figures_of(json.loads(line or "{}")))
    for name in ("validation", "train_loss"):
        found = [[record.get(name) for record in each.rounds] for each in (usual, development)]
        assert found[0] == found[1]
    assert usual.summary["best_round"] == development.summary["best_round"]


def test_a_development_run_is_ranked_by_validation(
    inline_run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    fedavg, local = (inline_run(f"method={method}", *GRAPH, WITHOUT) for method in ("fedavg", "local"))
    assert run(["report", str(fedavg.directory), str(local.directory), "--latex", "--no-plots"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = next(line for line in lines if line.startswith("method"))
    assert "validation, no test" in head and "test at best" not in head
    better = max((fedavg, local), key=lambda outcome: outcome.summary["best_validation"])
    marked = [line for line in lines if "textbf" in line]
    assert [line.split()[0] for line in marked] == [better.summary["method"]]
    assert f"{100 * better.summary['best_validation']:.2f}" in marked[0]


def test_the_result_line_says_that_no_test_was_recorded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["method=local", *GRAPH, WITHOUT, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert said.startswith("local on digits: validation 0.") and "record.test=false" in said


def test_runs_with_and_without_test_figures_share_no_row(
    inline_run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    outcomes = [inline_run("method=local", *GRAPH, *further) for further in ((), (WITHOUT,))]
    assert run(["report", *(str(each.directory) for each in outcomes), "--markdown", "--no-plots"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.count("record.test=") for line in table] == [0, 0, 1, 1]
    assert "record.test=false | 1 | – |" in table[2] and "record.test=unset" in table[3]


def test_a_resumed_run_cannot_begin_to_record_tests(
    inline_run: Callable[..., Outcome], capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = inline_run("method=local", *GRAPH, WITHOUT)
    assert run([f"resume={outcome.directory}", "record.test=true", "federation.rounds=4"]) == 2
    assert "record.test=true: a resumed run keeps its settings" in capsys.readouterr().err
