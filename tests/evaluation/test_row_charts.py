from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from drawn import assert_nothing_hides_anything
from marks import heats, line, names, panel
from synthetic_runs import MakeRun, round_record

from subfl_flower.evaluation.charts.chart import Chart, Line
from subfl_flower.evaluation.charts.drawing import draw
from subfl_flower.evaluation.charts.looks import Look, looks_of, method_look
from subfl_flower.evaluation.charts.row_charts import (
    bytes_chart,
    clients_chart,
    convergence_chart,
    mixing_chart,
    result_by_round,
    row_charts,
)
from subfl_flower.evaluation.charts.run_charts import convergence_chart as run_convergence
from subfl_flower.evaluation.rows import Row, build_rows
from subfl_flower.evaluation.runs import Run, load_runs


def rows_of(folder: Path) -> tuple[list[Row], dict[str, Look]]:
    rows = build_rows(load_runs([folder]))
    return rows, looks_of((row.method, row.label) for row in rows)


def write_tests(make_run: MakeRun, tests: Sequence[float | None], name: str, seed: int) -> None:
    run = make_run(name, seed=seed, rounds=0, status=None)
    for number, test in enumerate(tests, start=1):
        sizes = {"bytes_up": 1_000_000, "bytes_down": 3_000_000}
        run.append_round({"round": number, "metric": "accuracy", "test": test, "clients": {"ids": [0]}, **sizes})
    run.write_summary({"status": "completed", "method": "fedpub", "seed": seed, "clients": 1})


def test_mean_and_deviation_by_round_are_over_the_seeds_that_reached_it(make_run: MakeRun, tmp_path: Path) -> None:
    write_tests(make_run, [0.25, None, 0.75], "runs/0", 0)
    write_tests(make_run, [0.75, None], "runs/1", 1)
    rows, looks = rows_of(tmp_path / "runs")
    found = result_by_round(rows[0])
    assert list(found.index) == [1, 3]
    np.testing.assert_allclose(found["mean"], [50.0, 75.0])
    np.testing.assert_allclose(found["std"], [100 * np.std([0.25, 0.75], ddof=1), 0.0])
    chart = convergence_chart(rows, looks)
    assert chart is not None and chart.legend == "mean ± std, 2 seeds"
    drawn = line(chart, "fedpub")
    np.testing.assert_allclose([drawn.x, drawn.y, drawn.spread], [[1, 3], found["mean"], found["std"]])


def test_bytes_count_from_the_start_up_and_down_with_exchanges_of_their_round(
    make_run: MakeRun, tmp_path: Path
) -> None:
    write_tests(make_run, [0.25, 0.5, 0.75], "runs/0", 0)
    path = next((tmp_path / "runs").glob("0/summary.json"))
    exchange = {"action": "structure", "round": 2, "bytes_up": 500_000, "bytes_down": 0, "seconds": 0}
    from subfl_flower.runs.directory import RunDirectory

    RunDirectory(path.parent).write_summary({"status": "completed", "method": "fedpub", "exchanges": [exchange]})
    rows, looks = rows_of(tmp_path / "runs")
    chart = bytes_chart(rows, looks)
    assert chart is not None
    np.testing.assert_allclose(line(chart, "fedpub").x, [4.0, 8.5, 12.5])  # MB
    np.testing.assert_allclose(line(chart, "fedpub").y, [25, 50, 75])


def test_a_method_that_sends_nothing_is_not_drawn_over_bytes(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", method="local", rounds=2)
    rows, looks = rows_of(tmp_path / "runs")
    assert bytes_chart(rows, looks) is None


def test_clients_stand_from_worst_to_best_as_means_over_seeds(make_run: MakeRun, tmp_path: Path) -> None:
    for seed, tests in ((0, [0.5, 0.25]), (1, [0.75, 0.75])):
        run = make_run(f"runs/{seed}", seed=seed, rounds=0, status=None)
        run.append_round(round_record(1, tests, [0.5, 0.5], [0.5, 0.5]))
        run.write_summary({"status": "completed", "method": "fedpub", "seed": seed})
    rows, looks = rows_of(tmp_path / "runs")
    chart = clients_chart(rows, looks)
    assert chart is not None
    np.testing.assert_allclose(line(chart, "fedpub").y, [50.0, 62.5])
    (mean,) = (mark for mark in panel(chart).marks if isinstance(mark, Line) and not mark.name)
    np.testing.assert_allclose(mean.y, [56.25, 56.25])


def test_many_clients_are_drawn_as_quantiles(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", clients=300, rounds=1)
    rows, looks = rows_of(tmp_path / "runs")
    chart = clients_chart(rows, looks)
    assert chart is not None
    tests = 100 * np.array(rows[0].runs[0].figures["per_client"]["test_at_best_validation"])
    drawn = line(chart, "fedpub").y
    assert len(drawn) == 40 and (drawn[0], drawn[-1]) == pytest.approx((tests.min(), tests.max()))


def test_mixing_stands_beside_missing_edges_and_label_similarity_where_analysed(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run("runs/0", clients=3, rounds=5)
    rows, _ = rows_of(tmp_path / "runs")
    chart = mixing_chart(rows)
    assert chart is not None and len(chart.panels) == 1 and "subfl analyse" in chart.legend
    np.testing.assert_allclose(heats(chart)[0].values, 100 * run.mixing()[5])
    label = np.full((3, 3), 0.25)
    run.write_analysis({"similarity": {"missing_edges": [[0, 5, 9], [5, 0, 1], [9, 1, 0]], "label": label}})
    chart = mixing_chart(rows)
    assert chart is not None and chart.legend == ""
    _, missing, labels = heats(chart)
    assert [each.title for each in chart.panels[1:]] == [
        "cora, metis, 3 clients: missing edges",
        "cora, metis, 3 clients: label similarity",
    ]
    assert missing.values[0, 1:].tolist() == [5, 9] and labels.values[2, :2].tolist() == [0.25, 0.25]


def test_nothing_evaluated_makes_no_figure(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/3", method="fedavg", rounds=0, status="failed")
    rows, looks = rows_of(tmp_path / "runs")
    assert row_charts(rows, looks) == []


@pytest.mark.parametrize("width", [None, 7.0, 3.3])
def test_nothing_hides_anything_in_the_figures_of_a_sweep(
    make_run: MakeRun, tmp_path: Path, width: float | None
) -> None:
    job = 0
    for clients in (5, 20):
        for method in ("local", "fedavg", "fedsage_plus", "fedgnn_subgraph"):
            make_run(f"runs/{job}", method, clients=clients, rounds=5, settings={"tau": clients})
            job += 1
    rows, looks = rows_of(tmp_path / "runs")
    for chart in row_charts(rows, looks):
        figure = draw(chart, width)
        assert width is None or figure.get_figwidth() == width
        assert_nothing_hides_anything(figure)


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("accuracy", "accuracy (%), mean over clients"),
        ("hr@10", "hr@10 (%), mean over clients"),
        ("rmse", "rmse, over all clients' ratings"),  # of all ratings together: not the mean of users' errors
    ],
)
def test_axes_say_what_a_figure_over_clients_is(make_run: MakeRun, tmp_path: Path, metric: str, label: str) -> None:
    run = Run.load(make_run("runs/one", metric=metric, rounds=3).path)
    assert panel(run_convergence(run)).y == label
    rows, looks = rows_of(tmp_path / "runs")
    chart = convergence_chart(rows, looks)
    assert chart is not None and panel(chart).y == f"test {label}"
    assert draw(chart).axes[0].get_ylabel().replace("\n", " ") == f"test {label}"


def test_a_method_has_one_colour_in_every_figure_and_no_two_labels_look_alike() -> None:
    methods = [path.stem for path in (Path(__file__).parents[2] / "conf" / "method").glob("*.yaml")]
    assert len({method_look(method) for method in methods}) == len(methods) == 30
    labels = [(method, f"{method} ({tau})") for method in ("fedpub", "fedsage_plus", "own") for tau in range(8)]
    looks = looks_of(labels)
    assert len(set(looks.values())) == len(labels)
    assert all(looks[label].colour == method_look(method).colour for method, label in labels)
    assert looks_of([("fedpub", "fedpub")]) == {"fedpub": method_look("fedpub")}


def test_an_interrupted_run_is_named_so(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", rounds=2, status="interrupted")
    rows, looks = rows_of(tmp_path / "runs")
    chart: Chart | None = convergence_chart(rows, looks)
    assert chart is not None and names(chart) == ["fedpub: interrupted"]
