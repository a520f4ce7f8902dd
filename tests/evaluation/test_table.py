import csv
import io
from pathlib import Path

import pytest
from rich.console import Console
from synthetic_runs import MakeRun

from subfl_flower.evaluation.formats import human_bytes
from subfl_flower.evaluation.main_table import main_means, main_table
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.evaluation.table import markdown, rich_table, write_csv


@pytest.fixture
def rows(make_run: MakeRun, tmp_path: Path) -> list[Row]:
    for seed in range(2):
        make_run(f"runs/a{seed}", method="fedavg", seed=seed, rounds=5, bytes_each=1000)
        make_run(f"runs/b{seed}", method="fedpub", seed=seed, rounds=5, bytes_each=400)
    return build_rows(load_runs([tmp_path / "runs"]))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1536, "1.54 kB"), (999_600, "1 MB"),
        (23_400_000, "23.4 MB"), (5.25e9, "5.25 GB"), (7e12, "7 TB"),
    ],
)  # fmt: skip
def test_bytes_are_shown_in_decimal_units(size: float, text: str) -> None:
    assert human_bytes(size) == text


def test_fractions_are_shown_in_percent_with_deviation(rows: list[Row]) -> None:
    table = main_table(rows, collapse=True)
    assert table.title == "cora, metis, 10 clients, accuracy (%)"
    fedpub = table.cells.loc[1]
    mean, std = rows[1].spread("test_at_best_validation") or (0.0, 0.0)
    assert fedpub["test at best validation"] == f"{100 * mean:.2f} ± {100 * (std or 0):.2f}"
    # 5 rounds of 10 clients and 400 bytes each way
    assert (fedpub["up"], fedpub["down"], fedpub["bytes vs FedAvg"]) == ("20 kB", "20 kB", "40.0 %")
    assert (fedpub["seeds"], fedpub["s / round"]) == ("2", "0.25")


def test_errors_are_shown_in_their_own_unit(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("run", rounds=20, metric="rmse", final=0.9)
    (row,) = build_rows(load_runs([tmp_path / "run"]))
    table = main_table([row], collapse=True)
    lowest = min(row.runs[0].rounds, key=lambda record: record["validation"])
    assert table.title.endswith("rmse")
    assert table.cells.loc[0, "test at best validation"] == f"{lowest['test']:.4f}"


@pytest.mark.parametrize("metric", ["roc_auc", "hr@10"])
def test_other_fractions_are_shown_in_percent_under_their_own_name(
    make_run: MakeRun, tmp_path: Path, metric: str
) -> None:
    run = make_run("run", rounds=5, metric=metric)
    table = main_table(build_rows(load_runs([run.path])), collapse=True)
    highest = max(run.rounds(), key=lambda record: record["validation"])
    assert table.title.endswith(f"{metric} (%)") and len(table.cells) == 1
    assert table.cells.loc[0, "test at best validation"] == f"{100 * highest['test']:.2f}"


def test_the_terminal_table_holds_every_cell(rows: list[Row]) -> None:
    output = io.StringIO()
    Console(file=output, width=150).print(rich_table(main_table(rows, collapse=True)))
    text = output.getvalue()
    table = main_table(rows, collapse=True)
    assert table.title in text
    for line in table.lines:
        # What is in brackets stands below.
        above, below = zip(*(cell.partition(" (")[::2] for cell in line), strict=True)
        printed = text.splitlines()
        (number,) = (number for number, each in enumerate(printed) if all(cell in each for cell in above))
        assert all(f"({cell}" in printed[number + 1] for cell in below if cell)


def test_markdown_has_as_many_cells_in_every_line_and_escapes_bars(rows: list[Row]) -> None:
    rows[0].settings = "method.kind=a|b"
    head, rule, *lines = markdown(main_table(rows, collapse=False)).splitlines()
    assert "method.kind=a\\|b" in lines[0]
    columns = [line.replace("\\|", "").count("|") for line in (head, rule, *lines)]
    assert len(lines) == 2 and len(set(columns)) == 1
    assert lines[1].startswith("| cora | metis | 10 | accuracy (%) | fedpub |")


def test_csv_holds_plain_numbers(rows: list[Row], tmp_path: Path) -> None:
    write_csv(main_means(rows), tmp_path / "new" / "table.csv")
    with (tmp_path / "new" / "table.csv").open(newline="") as file:
        fedavg, fedpub = csv.DictReader(file)
    mean, std = rows[1].spread("test_at_best_validation") or (0.0, 0.0)
    assert float(fedpub["test_at_best_validation_mean"]) == mean
    assert float(fedpub["test_at_best_validation_std"]) == std
    assert (fedpub["method"], fedpub["clients"], fedpub["seeds"]) == ("fedpub", "10", "0 1")
    assert float(fedpub["bytes_relative_to_fedavg"]) == pytest.approx(0.4)
    assert float(fedavg["bytes_up_mean"]) == 50_000
