import csv
import io
from pathlib import Path
from typing import Any

import pytest
from page_text import heads_and_cells
from rich.console import Console
from synthetic_runs import MakeRun, round_record

from subfl_flower.evaluation.main_table import main_means, main_table
from subfl_flower.evaluation.page.parts import table_part
from subfl_flower.evaluation.rows import BYTES_OF_SKIPPING, RELATIVE_BYTES, Row, build_rows
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.evaluation.summary import exchanged, summarise
from subfl_flower.evaluation.table import markdown, rich_table, write_csv

PHASES = [
    {"action": "structure", "round": 1, "bytes_up": 30_000, "bytes_down": 0, "seconds": 0.5},
    {"action": "structure", "round": 2, "bytes_up": 2_000, "bytes_down": 400, "seconds": 0.5},
]


def add_run(
    make_run: MakeRun,
    method: str,
    seed: int = 0,
    sparsity: tuple[float, float] | None = None,
    phases: list[dict[str, Any]] | None = None,
    **said: Any,
) -> None:
    """A run of two rounds of 10 kB up and down, the second of which is the best; `said` is in its summary."""
    run = make_run(f"runs/{method}{seed}", method=method, seed=seed, rounds=0, status=None)
    records: list[dict[str, Any]] = []
    for number, level in ((1, 0.25), (2, 0.5)):
        record = round_record(number, [level] * 10, [level] * 10, [level] * 10)
        records.append(record if sparsity is None else {**record, "sparsity": sparsity[number - 1]})
        run.append_round(records[-1])
    summary = summarise(records)
    if phases is not None:
        said["exchanges"] = phases
        for way, size in exchanged(phases).items():
            summary[f"bytes_{way}"] += size
    head = {"status": "completed", "method": method, "dataset": "cora", "partition": "metis", "clients": 10}
    run.write_summary({**head, "seed": seed, **summary, **said})


def table(folder: Path) -> tuple[list[Row], list[dict[str, str]]]:
    rows = build_rows(load_runs([folder / "runs"]))
    return rows, main_table(rows, collapse=True).cells.to_dict("records")


@pytest.fixture
def rows(make_run: MakeRun, tmp_path: Path) -> list[Row]:
    """FedAvg; FED-PUB, a quarter of whose weights is left at the best round of one seed, and a half of the other's;
    SubPFed, which exchanged something.
    """
    add_run(make_run, "fedavg", phases=[], model_parameters=1500)
    add_run(make_run, "fedpub", sparsity=(0.125, 0.75), phases=[], model_parameters=1500)
    add_run(make_run, "fedpub", seed=1, sparsity=(0.125, 0.5), phases=[], model_parameters=1500)
    add_run(make_run, "subpfed", phases=PHASES, model_parameters=2500)
    return table(tmp_path)[0]


def test_sizes_and_exchanges_are_shown_where_there_are_any(rows: list[Row], tmp_path: Path) -> None:
    _, (fedavg, fedpub, subpfed) = table(tmp_path)
    assert fedavg["model size"] == "6 kB"  # 1500 values of 4 bytes
    assert fedpub["model size"] == "6 kB (38 % kept)"  # the mean of 25 % and 50 %
    assert subpfed["model size"] == "10 kB"
    assert (fedavg["exchanged"], fedpub["exchanged"], subpfed["exchanged"]) == ("–", "–", "32.4 kB")
    assert (subpfed["up"], subpfed["down"]) == ("52 kB", "20.4 kB")


def test_exchanges_count_where_bytes_are_held_against_those_of_fedavg(rows: list[Row]) -> None:
    # 2 rounds of 10 kB each way, and 32.4 kB on top of them
    assert [row.mean(RELATIVE_BYTES) for row in rows] == pytest.approx([1.0, 1.0, 72_400 / 40_000])


def test_markdown_page_and_csv_hold_them_too(rows: list[Row], tmp_path: Path) -> None:
    assert (
        "| model size | up | down | exchanged | bytes vs FedAvg |"
        in markdown(main_table(rows, collapse=False)).splitlines()[0]
    )
    page = heads_and_cells(table_part(main_table(rows, collapse=True)))
    assert "|model size|" in page and "|6 kB (38 % kept)|" in page and "|32.4 kB|" in page
    write_csv(main_means(rows), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["model_bytes"]) for line in lines] == [6000, 6000, 10_000]
    assert [line["weights_kept"] for line in lines] == ["", "0.375", ""]
    assert [float(line["bytes_exchanged"]) for line in lines] == [0, 0, 32_400]


def test_the_terminal_table_puts_what_is_kept_on_a_line_of_its_own(rows: list[Row]) -> None:
    output = io.StringIO()
    Console(file=output, width=200).print(rich_table(main_table(rows, collapse=True)))
    lines = output.getvalue().splitlines()
    (above,) = (number for number, line in enumerate(lines) if "fedpub" in line)
    end = lines[above].index("6 kB") + len("6 kB")
    assert lines[above + 1].strip() == "(50.00)         (38 % kept)"  # the tenth percentile is below its figure, too
    assert len(lines[above + 1].rstrip()) == end
    assert max(map(len, map(str.rstrip, lines))) <= 120


def test_runs_of_older_versions_have_no_such_columns(make_run: MakeRun, tmp_path: Path) -> None:
    add_run(make_run, "fedavg")
    add_run(make_run, "fedpub", sparsity=(0.5, 0.5))
    rows, lines = table(tmp_path)
    assert not {"model size", "exchanged"} & {head for line in lines for head in line}
    write_csv(main_means(rows), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        fedavg, fedpub = csv.DictReader(file)
    assert (fedavg["model_bytes"], fedavg["bytes_exchanged"]) == ("", "")
    assert (fedpub["model_bytes"], fedpub["weights_kept"]) == ("", "0.5")


def test_a_method_without_a_model_has_no_size_beside_others(make_run: MakeRun, tmp_path: Path) -> None:
    add_run(make_run, "fedavg", phases=[], model_parameters=250)
    add_run(make_run, "popularity", phases=[])
    _, lines = table(tmp_path)
    assert [line["model size"] for line in lines] == ["1 kB", "–"]
    assert "exchanged" not in lines[0]  # nobody exchanged anything


def test_bytes_are_held_against_those_of_a_fedavg_that_skips_absent_features(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, of_own in enumerate((32_000, 48_000)):  # 2 rounds of 10 kB each way are 40 kB, against 40 kB on average
        add_run(make_run, "fedpub", seed=seed, bytes_parts={"whole_model": 80_000, "own_features": of_own})
    add_run(make_run, "local")
    found, cells = table(tmp_path)
    assert [row.mean(BYTES_OF_SKIPPING) for row in found] == [pytest.approx(1.0), None]
    assert [line["vs FedAvg that skips"] for line in cells] == ["100.0 %", "–"]
