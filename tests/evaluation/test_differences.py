import math
import statistics
from pathlib import Path

import pytest
from synthetic_runs import MakeRun, round_record

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.differences import (
    Difference,
    best_other,
    difference_columns,
    interval_notes,
    paired_difference,
)
from subfl_flower.evaluation.main_table import main_table
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.runs.directory import RunDirectory


def write(make_run: MakeRun, method: str, results: dict[int, float], metric: str = "accuracy") -> None:
    """Runs of one round and one client by seed."""
    for seed, result in results.items():
        run = make_run(f"runs/{method}-{seed}", method, seed, rounds=0, status=None, clients=1)
        run.append_round(round_record(1, [result], [0.5], [0.5], metric=metric))
        run.write_summary({"status": "completed", "method": method, "seed": seed, "metric": metric})


def rows_of(folder: Path) -> dict[str, Row]:
    return {row.method: row for row in build_rows(load_runs([folder / "runs"]))}


def test_the_interval_is_that_of_students_t_over_paired_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    write(make_run, "fedavg", {0: 0.5, 1: 0.625, 2: 0.75, 7: 0.1})
    write(make_run, "fedpub", {0: 0.75, 1: 0.75, 2: 1.0, 8: 0.9})
    rows = rows_of(tmp_path)
    found = paired_difference(rows["fedpub"], rows["fedavg"])
    gaps = [0.25, 0.125, 0.25]
    half = 4.302652729911275 * statistics.stdev(gaps) / math.sqrt(3)  # the 0.975 quantile of t with 2 degrees
    assert found is not None and found.interval is not None
    assert (found.other, found.units, found.mean) == ("fedavg", 3, pytest.approx(statistics.mean(gaps)))
    assert found.interval == pytest.approx((found.mean - half, found.mean + half))


def test_one_seed_has_no_interval_and_none_in_common_no_difference(make_run: MakeRun, tmp_path: Path) -> None:
    write(make_run, "fedavg", {0: 0.5})
    write(make_run, "fedpub", {0: 0.75, 1: 0.5})
    write(make_run, "local", {3: 0.5})
    rows = rows_of(tmp_path)
    assert paired_difference(rows["fedpub"], rows["fedavg"]) == Difference("fedavg", 1, 1, "seeds", 0.25, None)
    assert paired_difference(rows["local"], rows["fedavg"]) is None
    table = main_table(list(rows.values()), True, difference_columns(list(rows.values())))
    cells = table.cells.set_index("method")["vs FedAvg [95 %]"]
    assert cells.to_dict() == {"fedavg": "–", "fedpub": "+25.00 (one seed: no interval)", "local": "–"}


def test_the_best_other_is_another_method_and_no_bound(make_run: MakeRun, tmp_path: Path) -> None:
    for method, result in (("fedavg", 0.5), ("fedpub", 0.75), ("local", 0.625), ("oracle", 0.875)):
        write(make_run, method, {0: result, 1: result})
    rows = rows_of(tmp_path)
    others = {method: best_other(row, list(rows.values())) for method, row in rows.items()}
    assert {method: other.method if other else None for method, other in others.items()} == {
        "fedavg": "fedpub", "fedpub": "local", "local": "fedpub", "oracle": "fedpub",
    }  # fmt: skip
    table = main_table(list(rows.values()), True, difference_columns(list(rows.values())))
    cells = table.cells.set_index("method")["vs best other method [95 %]"]
    assert cells["local"] == "-12.50 [-12.50, -12.50] vs fedpub"


def test_of_errors_the_lowest_is_the_best(make_run: MakeRun, tmp_path: Path) -> None:
    for method, result in (("fedavg", 0.5), ("fedgnn", 0.75), ("fedmf", 0.625)):
        write(make_run, method, {0: result}, metric="rmse")
    rows = rows_of(tmp_path)
    other = best_other(rows["fedgnn"], list(rows.values()))
    assert other is not None and other.method == "fedavg"
    table = main_table(list(rows.values()), collapse=True)
    assert {table.cells.loc[line, "method"] for line, head in table.best if head == "test at best validation"} == {
        "fedavg"
    }


def test_the_best_of_each_data_set_is_marked_but_for_bounds(make_run: MakeRun, tmp_path: Path) -> None:
    for method, result in (("fedavg", 0.5), ("fedpub", 0.75), ("oracle", 0.875)):
        write(make_run, method, {0: result})
    make_run("runs/alone", method="fedavg", clients=5, rounds=2)
    rows = list(rows_of(tmp_path).values())
    rows = build_rows(load_runs([tmp_path / "runs"]))
    table = main_table(rows, collapse=True)
    best = [table.cells.loc[line, "method"] for line, head in table.best if head == "test at best validation"]
    assert best == ["fedpub"]


def write_splits(make_run: MakeRun, method: str, results: dict[tuple[int, int], float]) -> None:
    """Runs of one round and one client by split and seed."""
    for (split, seed), result in results.items():
        run = make_run(
            f"runs/{method}-{split}-{seed}", method, seed, rounds=0, status=None, clients=1, partition={"seed": split}
        )
        run.append_round(round_record(1, [result], [0.5], [0.5]))
        run.write_summary({"status": "completed", "method": method, "seed": seed, "metric": "accuracy"})


def test_with_three_splits_the_interval_is_over_means_of_splits(make_run: MakeRun, tmp_path: Path) -> None:
    gaps = {(11, 0): 0.25, (11, 1): 0.0, (12, 0): 0.125, (12, 1): 0.125, (13, 0): 0.5, (13, 1): 0.25}
    write_splits(make_run, "fedavg", dict.fromkeys(gaps, 0.25))
    write_splits(make_run, "fedpub", {trial: 0.25 + gap for trial, gap in gaps.items()})
    rows = rows_of(tmp_path)
    found = paired_difference(rows["fedpub"], rows["fedavg"])
    of_splits = [0.125, 0.125, 0.375]  # means of the two seeds
    half = 4.302652729911275 * statistics.stdev(of_splits) / math.sqrt(3)
    assert found is not None and found.interval is not None
    assert (found.runs, found.units, found.over, found.separates) == (6, 3, "splits", False)
    assert found.mean == pytest.approx(statistics.mean(of_splits))
    assert found.interval == pytest.approx((found.mean - half, found.mean + half))
    notes = interval_notes(difference_columns(list(rows.values())))
    assert notes[0].startswith("Intervals over splits") and len(notes) == 2


def test_with_two_splits_the_interval_is_over_means_of_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    gaps = {(11, 0): 0.25, (11, 1): 0.0, (12, 0): 0.125, (12, 1): 0.125}
    write_splits(make_run, "fedavg", dict.fromkeys(gaps, 0.25))
    write_splits(make_run, "fedpub", {trial: 0.25 + gap for trial, gap in gaps.items()})
    rows = rows_of(tmp_path)
    found = paired_difference(rows["fedpub"], rows["fedavg"])
    half = 12.706204736432095 * statistics.stdev([0.1875, 0.0625]) / math.sqrt(2)  # t with one degree of freedom
    assert found is not None and (found.units, found.over) == (2, "seeds")
    assert found.interval == pytest.approx((0.125 - half, 0.125 + half))


def test_only_results_that_an_interval_separates_are_marked(make_run: MakeRun, tmp_path: Path) -> None:
    write(make_run, "local", {0: 0.5, 1: 0.75})
    write(make_run, "fedavg", {0: 0.625, 1: 0.625})
    rows = list(rows_of(tmp_path).values())
    assert not main_table(rows, True, difference_columns(rows)).best
    write(make_run, "fedpub", {0: 0.875, 1: 0.875})
    rows = list(rows_of(tmp_path).values())
    table = main_table(rows, True, difference_columns(rows))
    marked = {(table.cells.loc[line, "method"], head) for line, head in table.best}
    # 0.25 above FedAvg with both seeds; Local is 0.375 and 0.125 below, whose interval holds zero
    assert marked == {
        ("fedpub", "test at best validation"), ("fedpub", "vs FedAvg [95 %]"),
        ("fedpub", "vs best other method [95 %]"), ("fedavg", "vs best other method [95 %]"),
    }  # fmt: skip


def test_a_named_baseline_must_be_among_the_methods(make_run: MakeRun, tmp_path: Path) -> None:
    write(make_run, "local", {0: 0.5, 1: 0.75})
    write(make_run, "fedpub", {0: 0.75, 1: 1.0})
    rows = list(rows_of(tmp_path).values())
    table = main_table(rows, True, difference_columns(rows, "local"))
    cells = table.cells.set_index("method")["vs local [95 %]"]
    assert cells["fedpub"] == "+25.00 [+25.00, +25.00]"
    with pytest.raises(SubflError, match="--baseline fedpup: no run is of this method; there are fedpub, local"):
        difference_columns(rows, "fedpup")


def test_runs_of_other_data_are_marked_and_not_paired(make_run: MakeRun, tmp_path: Path) -> None:
    write(make_run, "fedavg", {0: 0.5, 1: 0.5})
    write(make_run, "fedpub", {0: 0.75, 1: 1.0})
    for name, split in (("fedavg-0", "a"), ("fedavg-1", "a"), ("fedpub-0", "a"), ("fedpub-1", "b")):
        RunDirectory(tmp_path / "runs" / name).write_data({"fingerprints": {"data": "d", "split": split}})
    rows = rows_of(tmp_path)
    found = paired_difference(rows["fedpub"], rows["fedavg"])
    assert found == Difference("fedavg", 1, 1, "seeds", 0.25, None)  # seed 1 has other test examples
    assert {row.note for row in rows.values()} == {"other split than other rows"}
    RunDirectory(tmp_path / "runs" / "fedpub-1").write_data({"fingerprints": {"data": "d", "split": "a"}})
    rows = rows_of(tmp_path)
    found = paired_difference(rows["fedpub"], rows["fedavg"])
    assert found is not None and found.mean == 0.375 and {row.note for row in rows.values()} == {""}


def test_a_row_of_fewer_splits_is_marked(make_run: MakeRun, tmp_path: Path) -> None:
    write_splits(make_run, "fedavg", {(11, 0): 0.5, (12, 0): 0.5})
    write_splits(make_run, "fedpub", {(11, 0): 0.75})
    assert rows_of(tmp_path)["fedpub"].note == "other splits than other rows"


@pytest.mark.parametrize(("metric", "below"), [("rmse", "fedmf"), ("accuracy", "fedgnn")])
def test_a_row_below_its_floor_is_marked(make_run: MakeRun, tmp_path: Path, metric: str, below: str) -> None:
    for method, result in (("fedgnn", 0.5), ("fedmf", 0.75)):
        write(make_run, method, {0: result}, metric=metric)
        run = RunDirectory(tmp_path / "runs" / f"{method}-0")
        run.write_summary({**(run.summary() or {}), "bias_row": {"test": 0.625}})
    assert {method: row.note for method, row in rows_of(tmp_path).items() if row.note} == {below: "below its floor"}
