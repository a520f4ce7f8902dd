"""The page on sweeps: its commands work one after the other, and reuse what it says."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest
from page_code import blocks

from subfl_flower.cli import main
from subfl_flower.evaluation.runs import load_runs

FAST = (("federation.rounds=20", "federation.rounds=1"), ("dataset=digits", "dataset=digits model.hidden=8"))


def shortened(text: str, separator: str = " ") -> str:
    for long, short in FAST:
        text = text.replace(long, short.replace(" ", separator))
    return text


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "argv", ["subfl"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(command: str) -> None:
    program, *arguments = shlex.split(shortened(command))
    assert program == "subfl"
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 0, command


@pytest.mark.slow  # test_pages carries out the page, and tests/sweeps counts what is trained
def test_the_commands_of_the_page(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first, side_by_side, single, search = (block.splitlines() for block in blocks("sweeps.md", "bash"))
    run(first[0])
    assert len(load_runs([folder / "sweeps" / "first"])) == 4
    capfd.readouterr()
    run(first[1])
    shown = capfd.readouterr().out
    assert shown.count("(completed before)") == 4 and len(re.findall(r"^\[./6\] .*\(completed\)$", shown, re.M)) == 2
    run(first[2])
    run(*side_by_side)
    assert len(load_runs([folder / "sweeps" / "first"])) == 8
    exec(shortened(blocks("sweeps.md", "python")[0], '", "'), namespace := {})
    assert [path.name[:-11] for path in namespace["folders"]] == [
        f"{method}-digits-seed{seed}" for method in ("local", "fedavg") for seed in (0, 1)
    ]
    assert len(load_runs([folder / "sweeps" / "first"])) == 8
    run(*single)
    if importlib.util.find_spec("hydra_plugins.hydra_optuna_sweeper") is not None:
        run(*search)
        assert len(load_runs([folder / "sweeps" / "search"])) == 4
