import csv
from pathlib import Path
from typing import Any

import pytest
from page_text import heads_and_cells
from synthetic_runs import MakeRun, round_record

from subfl_flower.evaluation.main_table import main_means, main_table
from subfl_flower.evaluation.page.parts import table_part
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.evaluation.summary import summarise
from subfl_flower.evaluation.table import markdown, write_csv


def add_run(
    make_run: MakeRun, name: str, method: str, seed: int, figures: dict[str, float] | None, metric: str = "hr@10"
) -> None:
    """A run of two rounds, the first of which is the best and has the figures."""
    run = make_run(f"runs/{name}", method=method, seed=seed, rounds=0, status=None)
    records: list[dict[str, Any]] = []
    for number, level in ((1, 0.5), (2, 0.25)):
        record = round_record(number, [level, level], [level, level], [level, level], metric=metric)
        if figures is not None:
            record["figures"] = figures if number == 1 else {name: 1.0 for name in figures}
        records.append(record)
        run.append_round(record)
    head = {"status": "completed", "method": method, "dataset": "cora", "partition": "metis", "clients": 2}
    run.write_summary({**head, "seed": seed, **summarise(records)})


def table(folder: Path) -> tuple[list[Row], list[dict[str, str]]]:
    rows = build_rows(load_runs([folder / "runs"]))
    return rows, main_table(rows, collapse=True).cells.to_dict("records")


def test_rankings_have_columns_of_what_else_the_best_rounds_measured(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, ndcg in ((0, 0.25), (1, 0.5)):
        further = {"test.hr@10": 0.5, "test.ndcg@10": ndcg, "test.full_hr@10": 0.125, "validation.ndcg@10": 0.7}
        add_run(make_run, f"a{seed}", "fedavg", seed, further | {"test.ndcg@20": 0.6, "test.global.hr@10": 0.4})
        add_run(make_run, f"b{seed}", "fedpub", seed, None)
    rows, (with_figures, without) = table(tmp_path)
    assert with_figures["test at best validation"] == "50.00 ± 0.00"
    assert with_figures["NDCG@10"] == "37.50 ± 17.68"  # 0.25 / sqrt(2) = 0.1768
    assert with_figures["full HR@10"] == "12.50 ± 0.00"
    assert (without["NDCG@10"], without["full HR@10"]) == ("–", "–")
    others = {"HR@10", "NDCG@20", "global HR@10"}
    assert not others & set(with_figures)
    assert "| NDCG@10 | full HR@10 |" in markdown(main_table(rows, collapse=False)).splitlines()[0]
    assert "NDCG@10|full HR@10" in heads_and_cells(table_part(main_table(rows, collapse=True)))
    write_csv(main_means(rows), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert float(first["test.ndcg@10_mean"]) == 0.375
    assert float(first["test.ndcg@10_std"]) == pytest.approx(0.25 / 2**0.5)
    assert float(first["test.full_hr@10_mean"]) == 0.125
    assert second["test.ndcg@10_mean"] == second["test.full_hr@10_std"] == ""
    assert second["seeds"] == "0 1" and second["bytes_relative_to_fedavg"] == "1.0"


def test_the_metric_has_no_second_column_and_other_cutoffs_have_columns_of_their_own(
    make_run: MakeRun, tmp_path: Path
) -> None:
    add_run(make_run, "a", "fedavg", 0, {"test.hr@5": 0.5, "test.ndcg@5": 0.25}, metric="ndcg@5")
    _, (line,) = table(tmp_path)
    assert line["HR@5"] == "50.00"
    assert not {"NDCG@5", "NDCG@10", "full HR@5"} & set(line)


def test_runs_without_such_figures_have_no_such_column(make_run: MakeRun, tmp_path: Path) -> None:
    add_run(make_run, "a", "fedavg", 0, None)
    add_run(make_run, "b", "fedpub", 0, None, metric="accuracy")
    rows, lines = table(tmp_path)
    assert not any("NDCG" in head or "HR@" in head for line in lines for head in line)
    write_csv(main_means(rows), tmp_path / "table.csv")
    assert "ndcg" not in (tmp_path / "table.csv").read_text()


def test_a_run_whose_summary_is_older_than_these_figures_is_still_reported(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("runs/old", method="fedavg", metric="hr@10", rounds=3)
    summary = run.summary()
    assert summary is not None
    run.write_summary({key: value for key, value in summary.items() if key != "figures"})
    _, (line,) = table(tmp_path)
    assert "NDCG@10" not in line and line["best round"] == "3"
