import statistics
from pathlib import Path

import numpy as np
import pytest
from synthetic_runs import MakeRun

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import RELATIVE_BYTES, Row, Spread, build_rows
from subfl_flower.evaluation.runs import load_runs


def rows_of(folder: Path) -> list[Row]:
    return build_rows(load_runs([folder]))


def test_spread_is_the_sample_deviation() -> None:
    assert Spread.of([0.5, None, 1.5, 4.0]) == pytest.approx((2.0, statistics.stdev([0.5, 1.5, 4.0])))
    assert Spread.of([1.0, 3.0]) == pytest.approx((2.0, np.std([1.0, 3.0], ddof=1)))
    assert Spread.of([0.5]) == (0.5, None)
    assert Spread.of([None, float("nan")]) is None


def test_runs_are_found_at_any_depth_once_and_job_10_comes_after_job_9(make_run: MakeRun, tmp_path: Path) -> None:
    for name in ("sweep/10", "sweep/9", "sweep/1", "other/deep/down"):
        make_run(name, rounds=1)
    (tmp_path / "sweep" / ".hydra").mkdir()
    runs = load_runs([tmp_path / "sweep", tmp_path, tmp_path / "sweep" / "9"])
    found = [str(run.path.relative_to(tmp_path)) for run in runs]
    assert found == ["sweep/1", "sweep/9", "sweep/10", "other/deep/down"]


def test_folders_without_runs_and_absent_ones_are_named(tmp_path: Path) -> None:
    with pytest.raises(SubflError, match="no run found in"):
        load_runs([tmp_path])
    with pytest.raises(SubflError, match="absent is not a folder"):
        load_runs([tmp_path / "absent"])


def test_seeds_of_a_method_make_one_row(make_run: MakeRun, tmp_path: Path) -> None:
    tests = []
    for seed in range(3):
        run = make_run(f"runs/{seed}", seed=seed)
        records = run.rounds()
        best = max(records, key=lambda record: record["validation"])
        tests.append(best["test"])
    make_run("runs/3", method="local")
    fedpub, local = rows_of(tmp_path / "runs")
    assert (fedpub.data, fedpub.label, len(fedpub.counted)) == (("cora", "metis", "10"), "fedpub", 3)
    assert fedpub.spread("test_at_best_validation") == pytest.approx((statistics.mean(tests), statistics.stdev(tests)))
    assert (local.label, local.note) == ("local", "")


def test_a_setting_that_differs_makes_rows_of_a_method(make_run: MakeRun, tmp_path: Path) -> None:
    for job, (tau, seed) in enumerate([(3, 0), (3, 1), (5, 0)]):
        make_run(f"runs/{job}", seed=seed, rounds=2, settings={"tau": tau, "sparse": True})
    assert [(row.label, len(row.counted)) for row in rows_of(tmp_path / "runs")] == [
        ("fedpub (method.tau=3)", 2),
        ("fedpub (method.tau=5)", 1),
    ]


def test_data_that_differs_sets_methods_apart_even_with_one_run_each(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", method="local", rounds=2, partition={"file": "a/disjoint.npz"})
    make_run("runs/1", method="fedavg", rounds=2, partition={"file": "a/overlapping.npz"})
    make_run("runs/2", method="local", rounds=2, partition={"file": "a/overlapping.npz"})
    rows = rows_of(tmp_path / "runs")
    assert [(row.data[1], row.label) for row in rows] == [
        ("metis (partition.file=disjoint.npz)", "local"),
        ("metis (partition.file=overlapping.npz)", "local"),
        ("metis (partition.file=overlapping.npz)", "fedavg"),
    ]
    assert [row.mean(RELATIVE_BYTES) for row in rows] == [None, 0.0, 1.0]


def test_runs_of_several_splits_and_seeds_share_a_row(make_run: MakeRun, tmp_path: Path) -> None:
    for split in (11, 12):
        for seed in (0, 1):
            make_run(f"runs/{split}-{seed}", seed=seed, rounds=2, partition={"seed": split})
    make_run("runs/again", seed=1, rounds=2, partition={"seed": 12})
    (row,) = rows_of(tmp_path / "runs")
    assert [run.trial for run in row.counted] == [(f"partition.seed={s}", k) for s in (11, 12) for k in ("0", "1")]
    assert (row.seeds_text, row.note) == ("4 (2 splits)", "1 older of a repeated seed left out")
    assert row.seeds.split()[0] == "partition.seed=11/0"


def test_bytes_are_those_of_a_whole_run_over_the_nearest_fedavg(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", method="fedavg", rounds=4, bytes_each=1000)
    make_run("runs/1", method="fedavg", rounds=2, bytes_each=1000)
    make_run("runs/2", method="fedpub", rounds=4, bytes_each=450)
    make_run("runs/3", method="fedpub", rounds=4, bytes_each=450, clients=5)
    rows = rows_of(tmp_path / "runs")
    found = {(row.label, row.data[2]): row.mean(RELATIVE_BYTES) for row in rows}
    # 10 clients x 4 rounds x 2 directions x 450 over the same with 1000; the run of 2 rounds is further away
    assert found["fedpub", "10"] == pytest.approx(0.45)
    assert found["fedpub", "5"] is None
    assert found["fedavg (federation.rounds=2)", "10"] == 1.0


def test_relative_bytes_include_what_travels_outside_of_rounds(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", method="fedavg", rounds=4, clients=5, bytes_each=1000)  # 20 kB up and 20 kB down
    run = make_run("runs/1", method="subpfed", rounds=4, clients=5, bytes_each=1000)
    run.write_summary({**(run.summary() or {}), "bytes_up": 25_000, "bytes_down": 35_000})
    assert [row.mean(RELATIVE_BYTES) for row in rows_of(tmp_path / "runs")] == [1.0, 1.5]


def test_a_run_that_was_cut_short_is_left_out_beside_completed_ones(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", seed=0, final=0.8)
    make_run("runs/1", seed=1, final=0.8, status="interrupted")
    make_run("runs/2", seed=2, final=0.8, status=None)
    (row,) = rows_of(tmp_path / "runs")
    assert [run.seed for run in row.counted] == [0]
    assert row.completed
    assert row.note == "1 interrupted, left out; 1 unfinished, left out"


@pytest.mark.parametrize(("status", "note"), [("interrupted", "interrupted"), (None, "unfinished")])
def test_a_run_alone_that_was_cut_short_is_shown_and_marked(
    make_run: MakeRun, tmp_path: Path, status: str | None, note: str
) -> None:
    run = make_run("run", status=status)
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"round": 31, "te')
    (row,) = rows_of(tmp_path / "run")
    assert (row.completed, row.note) == (False, note)
    best = max(run.rounds(), key=lambda record: record["validation"])
    assert row.spread("test_at_best_validation") == (best["test"], None)
    assert row.counted[0].clients == 10


def test_a_failed_run_before_its_first_round_has_a_row_without_figures(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("run", rounds=0, status="failed")
    (row,) = rows_of(tmp_path / "run")
    assert (row.counted, row.note, row.completed) == ([], "failed", False)
    assert row.spread("test_at_best_validation") is None


def test_of_a_repeated_seed_the_newest_run_counts(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/2026-01-01", seed=0, final=0.5)
    newest = make_run("runs/2026-01-02", seed=0, final=0.8)
    (row,) = rows_of(tmp_path / "runs")
    assert [run.path for run in row.counted] == [newest.path]
    assert row.note == "1 older of a repeated seed left out"


def test_client_failures_are_noted(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", rounds=1, status=None)
    run.append_round({**run.rounds()[0], "round": 2, "failures": {"3": "out of memory", "4": "timeout"}})
    run.write_summary({"status": "completed", "method": "fedpub", "seed": 0})
    assert rows_of(tmp_path / "run")[0].note == "2 client failures"


def test_rows_of_a_method_are_in_the_order_of_their_settings(make_run: MakeRun, tmp_path: Path) -> None:
    """Folders of a sweep end in a fingerprint, whose order says nothing."""
    for name, (method, tau) in {
        "a": ("fedpub", 16.0),
        "b": ("fedpub", 4.0),
        "c": ("fedavg", 1.0),
        "d": ("fedpub", 0.5),
    }.items():
        make_run(f"runs/{name}", method=method, rounds=2, settings={"tau": tau})
    rows = build_rows(load_runs([tmp_path / "runs"]))
    assert [row.settings.removeprefix("method.tau=") for row in rows] == ["0.5", "4.0", "16.0", ""]


def test_a_configuration_whose_method_is_no_section_has_a_row(make_run: MakeRun, tmp_path: Path) -> None:
    for method in ("theirs", 3):
        run = make_run(f"runs/{method}", rounds=2)
        run.write_config({"method": method, "dataset": "own", "partition": 3})
    rows = build_rows(load_runs([tmp_path / "runs"]))
    assert [(row.method, row.settings) for row in rows] == [("fedpub", "method=3"), ("fedpub", "method=theirs")]
