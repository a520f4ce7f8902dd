import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_text import heads_and_cells
from report_command import report
from synthetic_runs import MakeRun, round_record

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import build_rows
from subfl_flower.evaluation.runs import Run, load_runs
from subfl_flower.evaluation.summary import summarise
from subfl_flower.evaluation.table import write_csv
from subfl_flower.evaluation.target import Reached, check_share, reached, target_means, target_table
from subfl_flower.server.round_records import LatestMetrics
from subfl_flower.server.round_records import round_record as record_of
from subfl_flower.server.updates import Updates
from subfl_flower.tasks.choices import Ranking
from subfl_flower.wire.roster import Roster

TESTS = (0.3, None, 0.6, 0.57, 0.6)
"""Of five rounds, the second of which was not evaluated; the last but one is the best on validation."""
VALIDATIONS = (0.2, None, 0.4, 0.5, 0.45)


def write_run(
    make_run: MakeRun,
    name: str,
    tests: Sequence[float | None] = TESTS,
    *,
    metric: str = "accuracy",
    exchanges: Sequence[dict[str, Any]] = (),
    evaluation: int | None = 70,
    seed: int = 0,
    heard: Sequence[int] | None = None,
    method: str = "fedavg",
) -> Run:
    """A run of two clients, each of which sends and is sent 100 bytes a round; so many of all those to evaluate."""
    directory = make_run(name, method, seed, clients=2, rounds=0, status=None)
    records = []
    for number, (test, validation) in enumerate(zip(tests, VALIDATIONS, strict=True), start=1):
        record = round_record(number, [test or 0.0] * 2, [validation or 0.0] * 2, [0, 0], bytes_each=100, metric=metric)
        if test is None:
            for key in ("test", "validation", "test_as_received", "validation_as_received"):
                del record[key]
        if evaluation is not None:
            record["bytes_evaluation"] = 0 if test is None else evaluation
        if heard is not None:
            record["clients_heard"] = heard[number - 1]
        directory.append_round(record)
        records.append(record)
    summary = {"status": "completed", "seed": seed, "clients": 2, **summarise(records)}
    directory.write_summary({**summary, "exchanges": list(exchanges)})
    return Run.load(directory.path)


def test_the_first_evaluated_round_with_the_share_and_the_bytes_up_to_it(make_run: MakeRun) -> None:
    run = write_run(make_run, "run")
    assert run.figures["test_at_best_validation"] == 0.57
    # 0.95 of 0.57 is 0.5415: round 3, after 3 rounds of 200 bytes each way, of which 2 x 70 were to evaluate.
    assert reached(run, 0.95) == Reached(pytest.approx(0.5415), 3, 600, 600 - 140, 140)
    assert reached(run, 0.5) == Reached(pytest.approx(0.285), 1, 200, 130, 70)
    assert reached(run, 1.0) == Reached(0.57, 3, 600, 460, 140)  # an earlier round may be above the final value


def test_an_error_has_reached_a_share_where_it_is_the_final_one_over_it(make_run: MakeRun) -> None:
    run = write_run(make_run, "run", (2.0, None, 1.3, 1.0, 1.1), metric="rmse")
    # Of validation errors, too, less is better: the first round is the best, and its test error the final one.
    assert reached(run, 0.8) == Reached(pytest.approx(2.5), 1, 200, 130, 70)
    records = [
        dict(record, validation=-record["validation"]) if "validation" in record else record for record in run.rounds
    ]
    last = Run(run.directory, run.config, records, None)
    assert last.figures["test_at_best_validation"] == 1.0
    found = reached(last, 0.8)
    assert found is not None
    assert (found.target, found.round) == (1.25, 4)


def test_what_is_asked_between_rounds_counts_up_to_the_round_it_came_before(make_run: MakeRun) -> None:
    phases = [
        {"action": "structure", "bytes_up": 5000, "bytes_down": 1, "seconds": 0.0},  # of before rounds were noted
        {"action": "embedding", "round": 3, "bytes_up": 30, "bytes_down": 2, "seconds": 0.0},
        {"action": "embedding", "round": 4, "bytes_up": 7, "bytes_down": 9, "seconds": 0.0},
    ]
    run = write_run(make_run, "run", exchanges=phases)
    found = reached(run, 0.95)
    assert found is not None
    assert (found.bytes_up, found.bytes_down) == (600 + 5030, 460 + 3)


def test_rounds_before_the_last_client_was_heard_do_not_count(make_run: MakeRun) -> None:
    run = write_run(make_run, "run", heard=(1, 1, 1, 2, 2))
    found = reached(run, 0.5)
    assert found is not None and found.round == 4


def test_records_that_do_not_tell_evaluation_apart_say_so(make_run: MakeRun) -> None:
    run = write_run(make_run, "run", evaluation=None)
    assert reached(run, 0.5) == Reached(pytest.approx(0.285), 1, 200, 200, None)
    assert "to evaluate" not in target_table(build_rows([run]), 0.5, collapse=False).heads


def test_a_run_that_was_never_evaluated_reaches_nothing(make_run: MakeRun) -> None:
    run = Run.load(make_run("run", rounds=0, status="failed").path)
    assert reached(run, 0.5) is None
    lines = target_table(build_rows([run]), 0.5, collapse=True).lines
    assert lines == [["fedpub", "0", "–", "–", "–", "–", "–", "failed"]]


def test_the_table_and_the_csv_hold_means_over_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    write_run(make_run, "runs/0")
    write_run(make_run, "runs/1", (0.3, None, 0.4, 0.57, 0.6), seed=1)  # reaches it a round later
    rows = build_rows(load_runs([tmp_path / "runs"]))
    table = target_table(rows, 0.95, collapse=True)
    assert table.title.startswith("to 95 % of the final test metric, which is that at the best validation round: cora")
    assert table.heads == ["method", "seeds", "final test", "target", "first round", "up", "down", "to evaluate"]
    assert table.lines == [["fedavg", "2", "57.00 ± 0.00", "54.15 ± 0.00", "4 ± 1", "700 B", "525 B", "175 B"]]

    write_csv(target_means(rows, 0.95), tmp_path / "target.csv")
    with (tmp_path / "target.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert (line["method"], line["share"], line["seeds"]) == ("fedavg", "0.95", "0 1")
    means = ("round", "bytes_up", "bytes_down", "bytes_evaluation")
    assert [float(line[f"{name}_mean"]) for name in means] == [3.5, 700, 525, 175]
    assert float(line["bytes_up_std"]) == pytest.approx(np.std([600, 800], ddof=1))


def test_the_report_shows_it_everywhere(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(make_run, "runs/0")
    arguments = [str(tmp_path / "runs"), "--reach", "0.95", "--no-plots"]
    table = tmp_path / "table.csv"
    assert report(*arguments, "--csv", str(table), "--html") == 0
    output = capsys.readouterr().out
    assert "to 95 % of the final test metric" in " ".join(output.split()) and "460 B" in output
    assert str(tmp_path / "table-reach-0.95.csv") in output and (tmp_path / "table-reach-0.95.csv").is_file()
    assert "|460 B|" in heads_and_cells((tmp_path / "runs" / "report.html").read_text())
    assert report(*arguments, "--markdown") == 0
    _, second = capsys.readouterr().out.split("\n\n")
    assert "| first round | up | down | to evaluate |" in second and "| 3 | 600 B | 460 B | 140 B |" in second


@pytest.mark.parametrize("share", ["0", "1.01", "nan"])
def test_what_is_no_share_is_one_sentence_and_code_2(
    make_run: MakeRun, share: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(make_run("run", rounds=2).path, "--reach", share, "--no-plots") == 2
    error = capsys.readouterr().err
    assert error == f"subfl report: --reach {share}: must be a share of the final test metric, above 0 and at most 1\n"
    with pytest.raises(SubflError, match="must be a share"):
        check_share(float(share))


def test_a_record_tells_what_was_sent_to_evaluate_apart() -> None:
    def updates(positions: list[int], down: list[int]) -> Updates:
        figures = {"test": np.full(len(positions), 0.5)}
        nothing = np.zeros(3, dtype=int)
        return Updates(1, np.array(positions), {}, figures, {}, nothing, np.array(down), 0.0)

    roster = Roster((0, 1, 2), (1, 1, 1), np.ones(3), np.zeros(3), np.zeros(3), 9, 0, False)
    trained = updates([1], [0, 40, 0])
    seconds = {"round": 1.0}
    task = Ranking(name="ranking")
    plain = record_of(trained, roster, seconds, LatestMetrics(task, task.metrics, roster))
    assert (plain["bytes_down"], plain["bytes_evaluation"]) == (40, 0)
    both = trained.and_evaluated(updates([0, 1, 2], [11, 12, 13]))
    record = record_of(both, roster, seconds, LatestMetrics(task, task.metrics, roster))
    assert (record["bytes_down"], record["bytes_evaluation"]) == (76, 36)
