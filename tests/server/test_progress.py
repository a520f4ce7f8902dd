"""Progress of a run where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from run_outcomes import SMALL_GENERATOR

from subfl_flower.composition import composed_config
from subfl_flower.server import federation
from subfl_flower.server import progress as module
from subfl_flower.server.progress import RunProgress
from subfl_flower.simulation import simulate


def record(server_round: int) -> dict[str, float]:
    return {"round": server_round, "validation": 0.5, "test": 0.25}


def shown(work: Callable[[RunProgress], None], lines: bool = True) -> None:
    with RunProgress("fedgcn on cora", 4, lines) as progress:
        work(progress)


def test_what_is_asked_is_said_once_and_rounds_at_the_start_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    def work(progress: RunProgress) -> None:
        for action in ("generator", "gradients", "generator", "gradients", "generator"):
            progress.ask(action)
        progress.start_rounds()
        for server_round in range(1, 5):
            progress.advance(record(server_round))

    shown(work)
    assert capsys.readouterr().err.splitlines() == [
        "fedgcn on cora: asks for generator",
        "fedgcn on cora: asks for gradients",
        "fedgcn on cora: round 1/4 validation 0.500 test 0.250",
        "fedgcn on cora: round 4/4 validation 0.500 test 0.250",
    ]
    shown(work, lines=False)
    assert capsys.readouterr().err == ""


def test_long_phases_are_numbered_as_time_goes_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SECONDS_BETWEEN_LINES", -1.0)

    def work(progress: RunProgress) -> None:
        for action in ("mend", "mend", "mend"):
            progress.ask(action)
        progress.advance(record(2))
        progress.ask("mend")

    shown(work)
    assert [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        *("asks for mend", "asks for mend (2)", "asks for mend (3)"),
        *("round 2/4 validation 0.500 test 0.250", "asks for mend"),
    ]


@pytest.mark.parametrize("lines", [False, True, None])
def test_a_notebook_without_widgets_gets_lines_unless_nothing_is_asked_for(
    lines: bool | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with RunProgress("fedgcn on cora", 4, lines) as progress:
        progress.advance(record(1))
    printed = ["fedgcn on cora: round 1/4 validation 0.500 test 0.250"]
    assert capsys.readouterr().err.splitlines() == ([] if lines is None else printed)


def test_a_run_says_what_it_asks_before_its_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(federation, "RunProgress", lambda title, rounds, *_: RunProgress(title, rounds, True))
    overrides = ("dataset=digits", "partition.clients=3", "model.hidden=8", "federation.rounds=1")
    config, _ = composed_config([*overrides, "method=fedsage_plus", *SMALL_GENERATOR])
    simulate(config, tmp_path / "run")
    said = [line.partition(": ")[2] for line in capsys.readouterr().err.splitlines() if line.startswith("fedsage_plus")]
    assert said[:2] == ["asks for generator", "asks for gradients"] and said[-1].startswith("round 1/1")
