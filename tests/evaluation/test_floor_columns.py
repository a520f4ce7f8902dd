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
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.evaluation.summary import summarise
from subfl_flower.evaluation.table import markdown, rich_table, write_csv


def class_figures(majority: float, macro_f1: float, balanced: float) -> dict[str, float]:
    named = {"test.majority": majority, "test.macro_f1": macro_f1, "test.balanced_accuracy": balanced}
    return {**named, "test.one_class": 0.5}


def add_run(
    make_run: MakeRun,
    method: str,
    seed: int = 0,
    worst: float = 0.25,
    figures: dict[str, float] | None = None,
    metric: str = "accuracy",
    **said: Any,
) -> None:
    """A run of one round whose two clients have the values 0.75 and `worst`; `said` is in its summary."""
    run = make_run(f"runs/{method}{seed}", method=method, seed=seed, rounds=0, status=None)
    record = round_record(1, [0.75, worst], [0.5, 0.5], [0.5, 0.5], metric=metric)
    del record["test_as_received"]
    if figures is not None:
        record["figures"] = figures
    run.append_round(record)
    head = {"status": "completed", "method": method, "dataset": "cora", "partition": "metis", "clients": 2}
    run.write_summary({**head, "seed": seed, **summarise([record]), **said})


def table(folder: Path) -> tuple[list[Row], list[dict[str, str]]]:
    rows = build_rows(load_runs([folder / "runs"]))
    return rows, main_table(rows, collapse=True).cells.to_dict("records")


def csv_lines(rows: list[Row], folder: Path) -> list[dict[str, str]]:
    write_csv(main_means(rows), folder / "table.csv")
    with (folder / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


CLASS_HEADS = "| majority class | macro-F1 (balanced accuracy) | worst client (p10) |"


@pytest.fixture
def classified(make_run: MakeRun, tmp_path: Path) -> list[Row]:
    """FedAvg with two seeds, and a method whose runs are of an older version."""
    add_run(make_run, "fedavg", 0, 0.25, class_figures(0.25, 0.5, 0.75))
    add_run(make_run, "fedavg", 1, 0.5, class_figures(0.5, 0.5, 0.75))
    add_run(make_run, "local", 0, 0.125)
    return table(tmp_path)[0]


def test_classifications_have_the_majority_class_figures_by_class_and_the_worst_client(
    classified: list[Row], tmp_path: Path
) -> None:
    _, (fedavg, local) = table(tmp_path)
    assert fedavg["majority class"] == "37.50 ± 17.68"  # 0.25 / sqrt(2) = 0.1768
    assert fedavg["macro-F1 (balanced accuracy)"] == "50.00 ± 0.00 (75.00 ± 0.00)"
    # The tenth percentile is of 0.25 + 0.5 / 10 and 0.5 + 0.25 / 10.
    assert fedavg["worst client (p10)"] == "37.50 ± 17.68 (41.25)"
    assert (local["majority class"], local["macro-F1 (balanced accuracy)"]) == ("–", "–")
    assert local["worst client (p10)"] == "12.50 (18.75)"  # 0.125 + 0.625 / 10
    assert not {"as received", "bias row", "popularity", "floor", "user-level epsilon"} & set(fedavg)


def test_markdown_page_and_terminal_hold_them_too(classified: list[Row]) -> None:
    assert CLASS_HEADS in markdown(main_table(classified, collapse=False)).splitlines()[0]
    assert "| 37.50 ± 17.68 | 50.00 ± 0.00 (75.00 ± 0.00) | 37.50 ± 17.68 (41.25) |" in markdown(
        main_table(classified, collapse=False)
    )
    page = heads_and_cells(table_part(main_table(classified, collapse=True)))
    assert "majority class|macro-F1 (balanced accuracy)|worst client (p10)" in page
    output = io.StringIO()
    Console(file=output, width=200).print(rich_table(main_table(classified, collapse=True)))
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    assert max(map(len, lines)) <= 130
    (above,) = (number for number, line in enumerate(lines) if "fedavg" in line)
    assert lines[above].index("50.00 ± 0.00") == lines[above + 1].index("(75.00 ± 0.00)") + 2  # right-aligned below


def test_csv_has_a_column_for_each_figure(classified: list[Row], tmp_path: Path) -> None:
    fedavg, local = csv_lines(classified, tmp_path)
    means = [float(fedavg[f"test.{name}_mean"]) for name in ("majority", "macro_f1", "balanced_accuracy", "one_class")]
    assert means == [0.375, 0.5, 0.75, 0.5]
    assert float(fedavg["test.majority_std"]) == pytest.approx(0.25 / 2**0.5)
    assert (float(fedavg["worst_client_mean"]), float(local["worst_client_mean"])) == (0.375, 0.125)
    assert local["test.majority_mean"] == local["worst_client_std"] == ""
    assert not {"bias_row_mean", "popularity_mean", "user_level_epsilon_mean"} & set(fedavg)


def test_ratings_have_the_bias_row_the_largest_error_and_what_was_paid_in_privacy(
    make_run: MakeRun, tmp_path: Path
) -> None:
    bound = {"user_level_epsilon": 12.34567, "delta": 1e-5, "update_cosine": 0.1234}
    add_run(make_run, "fedgnn", 0, 1.5, metric="rmse", bias_row={"validation": 9.0, "test": 0.95543}, privacy=bound)
    add_run(make_run, "fedmf", 0, 1.25, metric="rmse", bias_row={"validation": 9.0, "test": None})
    rows, (fedgnn, fedmf) = table(tmp_path)
    assert fedgnn["bias row"] == "0.9554"
    assert fedgnn["worst client (p10)"] == "1.5000 (1.4250)"  # not 0.75, which is the best
    assert fedgnn["user-level epsilon"] == "12.35 (delta 1e-05)"
    assert fedgnn["cosine with the true update"] == "0.123"
    assert (fedmf["bias row"], fedmf["user-level epsilon"]) == ("–", "–")
    assert not {"majority class", "popularity", "macro-F1 (balanced accuracy)"} & set(fedgnn)
    heads = markdown(main_table(rows, collapse=False)).splitlines()[0]
    assert "| bias row | worst client (p10) | user-level epsilon | cosine with the true update |" in heads
    first, second = csv_lines(rows, tmp_path)
    assert (first["bias_row_mean"], first["user_level_epsilon_mean"]) == ("0.95543", "12.34567")
    assert (second["bias_row_mean"], second["user_level_epsilon_mean"]) == ("", "")


def test_an_epsilon_is_over_seeds_and_no_number_where_one_run_has_no_bound(make_run: MakeRun, tmp_path: Path) -> None:
    for method, epsilons in (("fedgnn", (2.0, 4.0)), ("fedavg", (2.0, None))):
        for seed, epsilon in enumerate(epsilons):
            add_run(make_run, method, seed, metric="rmse", privacy={"user_level_epsilon": epsilon, "delta": 0.0})
    _, (unbounded, bounded) = table(tmp_path)
    assert bounded["user-level epsilon"] == "3 ± 1.4"
    assert unbounded["user-level epsilon"] == "no bound"


def test_rankings_have_popularity_and_no_worst_client(make_run: MakeRun, tmp_path: Path) -> None:
    popularity = {"test": 0.4003, "test.ndcg@10": 0.2}
    add_run(make_run, "perfedrec", 0, 0.0, {"test.ndcg@10": 0.5}, metric="hr@10", popularity=popularity)
    rows, (line,) = table(tmp_path)
    assert line["popularity"] == "40.03"
    assert not {"worst client", "worst client (p10)", "bias row", "majority class"} & set(line)
    (written,) = csv_lines(rows, tmp_path)
    assert written["popularity_mean"] == "0.4003" and "worst_client_mean" not in written


def test_floors_of_several_kinds_share_a_column(make_run: MakeRun, tmp_path: Path) -> None:
    add_run(make_run, "fedavg", figures=class_figures(0.25, 0.5, 0.75))
    add_run(make_run, "fedgnn", metric="rmse", bias_row={"test": 0.95})
    add_run(make_run, "perfedrec", metric="hr@10", popularity={"test": 0.4})
    add_run(make_run, "local")
    rows, lines = table(tmp_path)
    assert {line["method"]: line["floor"] for line in lines} == {
        "fedavg": "25.00 (majority class)",
        "fedgnn": "0.9500 (bias row)",
        "perfedrec": "40.00 (popularity)",
        "local": "–",
    }
    assert (
        "| floor | macro-F1 (balanced accuracy) | worst client (p10) |"
        in markdown(main_table(rows, collapse=False)).splitlines()[0]
    )
    assert not {"majority class", "bias row", "popularity"} & set(lines[0])


def test_runs_by_another_measure_have_its_columns_and_no_majority_class(make_run: MakeRun, tmp_path: Path) -> None:
    """An accuracy is no floor of an area under a curve; of the calibration error the larger value is no better one."""
    measured = {**class_figures(0.9, 0.5, 0.75), "test.accuracy": 0.625, "test.calibration_error": 0.125}
    add_run(make_run, "fedavg", 0, 0.25, measured, metric="roc_auc")
    add_run(make_run, "local", 0, 0.125, {**measured, "test.calibration_error": 0.0625}, metric="roc_auc")
    rows, (fedavg, _) = table(tmp_path)
    assert (fedavg["accuracy"], fedavg["calibration error"]) == ("62.50", "12.50")
    assert not {"majority class", "floor", "ROC-AUC"} & set(fedavg)
    assert not any(row.below_floor for row in rows)
    best = main_table(rows, collapse=False).best
    assert not any(head == "calibration error" for _, head in best) and any(head == "accuracy" for _, head in best)


def test_evaluation_modes_have_columns_where_runs_record_them(make_run: MakeRun, tmp_path: Path) -> None:
    modes = {"round": 1, "personal_on_own": 0.5, "personal_on_all": 0.25, "global_on_own": 0.375, "global_on_all": None}
    add_run(make_run, "fedavg", 0, evaluation_modes=modes)
    add_run(make_run, "local", 0)
    rows, (fedavg, local) = table(tmp_path)
    assert [
        fedavg[f"{head} on {data}"] for head, data in (("personal", "own"), ("personal", "all"), ("global", "own"))
    ] == [
        "50.00",
        "25.00",
        "37.50",
    ]
    assert local["personal on own"] == "–" and "global on all" not in fedavg
    assert csv_lines(rows, tmp_path)[0]["personal_on_all_mean"] == "0.25"
