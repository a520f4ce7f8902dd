"""`subfl reproduce`: the runs of an experiment, their cards, and the page that is made of the cards alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from subfl_flower.cli import run
from subfl_flower.evaluation.rows import build_rows
from subfl_flower.reproduction.cards import read_cards
from subfl_flower.reproduction.experiment import Experiment
from subfl_flower.reproduction.papers import PrintedTable
from subfl_flower.reproduction.result_page import PrintedColumn
from subfl_flower.runs.directory import RunDirectory

NAME = "fedpub_table2"
SMALL = (
    *("dataset=digits", "method=local,fedavg", "partition.clients=3", "partition.seed=11,12,13", "seed=0"),
    *("federation.rounds=2", "model.hidden=8"),
)


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs of a small experiment, and the cards and page of these."""
    here = tmp_path_factory.mktemp("reproduced")
    assert run(["reproduce", NAME, *SMALL, f"out={here / 'out'}", f"runs={here / 'runs'}"]) == 0
    return here


def test_each_run_has_a_small_card_with_the_figures_of_its_summary(reproduced: Path) -> None:
    cards = {path.stem: path for path in (reproduced / "out").glob("*.json")}
    assert set(cards) == {path.name for path in (reproduced / "runs").iterdir() if path.is_dir()} and len(cards) == 6
    for name, path in cards.items():
        card, summary = json.loads(path.read_text()), RunDirectory(reproduced / "runs" / name).summary()
        assert path.stat().st_size < 6000 and summary is not None
        for figure in ("test_at_best_validation", "test_as_received_at_best_validation", "seconds", "cpu_seconds"):
            assert card["summary"][figure] == pytest.approx(summary[figure], rel=1e-5)
        assert card["summary"]["bytes_up"] == summary["bytes_up"] > 0
        assert card["settings"]["partition.seed"] in (11, 12, 13) and card["settings"]["model.hidden"] == 8
        facts = RunDirectory(reproduced / "runs" / name).data()
        assert facts is not None and card["fingerprints"]["split"] == facts["fingerprints"]["split"]
        assert str(reproduced) not in path.read_text()


def test_the_page_is_made_of_the_cards_alone(reproduced: Path, tmp_path: Path) -> None:
    shutil.copytree(reproduced / "out", tmp_path / "out")
    before = (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "out" / "README.md").unlink()
    assert run(["reproduce", NAME, "--only-report", f"out={tmp_path / 'out'}"]) == 0
    assert (tmp_path / "out" / "README.md").read_text() == before
    assert "| fedavg | 3 (3 splits) |" in before and "Intervals over splits" in before
    means = [
        json.loads(path.read_text())["summary"]["test_at_best_validation"]
        for path in (tmp_path / "out").glob("local-*.json")
    ]
    assert f"| local | 3 (3 splits) | {100 * sum(means) / 3:.2f} ±" in before.replace("**", "")


def test_a_second_call_trains_nothing_and_a_lost_card_comes_back(
    reproduced: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = next((reproduced / "out").glob("*.json"))
    text = lost.read_text()
    lost.unlink()
    assert run(["reproduce", NAME, *SMALL, f"out={reproduced / 'out'}", f"runs={reproduced / 'runs'}"]) == 0
    said = capsys.readouterr().out
    assert said.count("(completed before)") == 6 and lost.read_text() == text


def test_overrides_replace_the_values_of_an_experiment() -> None:
    whole = Experiment.named(NAME).jobs()
    assert len(whole) == 72 and all(job[0] == "+experiment=fedpub_table2" for job in whole)
    found = Experiment.named(NAME).jobs(["seed=4", "partition.clients=5,10"])
    assert len(found) == 16 and {job[-2] for job in found} == {"seed=4"}
    assert Experiment.named("+experiment=fedpub_table2").name == NAME


def test_the_paper_stands_beside_the_row_with_all_its_settings(reproduced: Path) -> None:
    rows = {row.method: row for row in build_rows(read_cards(reproduced / "out"))}
    table = PrintedTable.model_validate(
        {
            "source": "a paper",
            "at_hand": True,
            "rows": [
                {"where": {"method": "fedavg", "dataset": "digits", "partition.clients": 3}, "value": 50.0},
                {"where": {"method": "fedavg"}, "value": 1.0},
                {"where": {"method": "fedavg", "dataset": "cora"}, "value": 2.0},
                {"where": {"method": "local", "partition.clients": 5}, "value": 3.0, "deviation": 1},
            ],
        }
    )
    paper = PrintedColumn("paper", table.of_rows, printed=table)
    distance = PrintedColumn("ours", table.of_rows, printed=table, distance=True)
    assert [paper.cell(rows[method]) for method in ("fedavg", "local")] == ["50.00", "–"]
    mean = rows["fedavg"].mean("test_at_best_validation")
    assert mean is not None
    assert distance.cell(rows["fedavg"]) == f"{100 * mean - 50:+.2f}" and distance.cell(rows["local"]) == "–"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["fedpub_tabel2"], "fedpub_tabel2: there is no such experiment; did you mean fedpub_table2?"),
        ([], "the name of an experiment comes first"),
        (["search"], "search: is a search"),
        ([NAME, "seed=1", "--only-report"], "seed=1: --only-report trains nothing"),
        ([NAME, "--only-report", "out=nowhere"], "nowhere holds no result of a run"),
        ([NAME, "sweep.jobs=x", "seed=0", "dataset=digits", "method=local"], "sweep.jobs"),
    ],
)
def test_input_that_cannot_be_used_is_answered_in_one_sentence(
    arguments: list[str],
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["reproduce", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("subfl reproduce: ") and said in error


def test_the_list_names_experiments_but_no_search(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["reproduce", "--list"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert NAME in names and "search" not in names


def test_a_failed_run_is_named_and_the_page_is_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from subfl_flower.sweeps import job

    train = job._train

    def fails(config, *arguments):  # type: ignore[no-untyped-def]
        if config.seed == 1:
            raise RuntimeError("out of luck")
        return train(config, *arguments)

    monkeypatch.setattr(job, "_train", fails)
    small = ["dataset=digits", "method=local", "partition.clients=3", "seed=0,1", "federation.rounds=1"]
    assert run(["reproduce", NAME, *small, f"out={tmp_path / 'out'}", f"runs={tmp_path / 'runs'}"]) == 1
    assert "1 of 2 runs failed" in capsys.readouterr().err
    assert len(list((tmp_path / "out").glob("*.json"))) == 1 and (tmp_path / "out" / "README.md").exists()
