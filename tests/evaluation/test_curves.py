import csv
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn import assert_nothing_hides_anything
from marks import line, names, panel, rule
from synthetic_runs import MakeRun, round_record

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.charts.chart import Chart
from subfl_flower.evaluation.charts.drawing import draw
from subfl_flower.evaluation.charts.looks import looks_of
from subfl_flower.evaluation.charts.row_charts import curves_chart
from subfl_flower.evaluation.curves import Curve, build_curves, crossings, curve_means, curve_table
from subfl_flower.evaluation.runs import load_runs
from subfl_flower.evaluation.table import write_csv


def write_run(make_run: MakeRun, name: str, test: float, **about: Any) -> None:
    """A run of one round in which two clients reach `test` on average."""
    run = make_run(name, rounds=0, status=None, clients=2, **about)
    run.append_round(round_record(1, [test - 0.125, test + 0.125], [0.5, 0.5], [0.25, 0.25]))
    run.write_summary({"status": "completed"})


def curves_of(folder: Path, key: str) -> list[Curve]:
    return build_curves(load_runs([folder]), key)


@pytest.fixture
def psi_runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """SubPFed at psi 0.5 (two seeds) and 0.25 (one), and FedAvg, which has no psi."""
    for name, test, seed, psi in (("a", 0.5, 0, 0.5), ("b", 0.75, 1, 0.5), ("c", 0.25, 0, 0.25)):
        write_run(make_run, f"runs/{name}", test, method="subpfed", seed=seed, settings={"psi": psi})
    write_run(make_run, "runs/d", 0.5, method="fedavg", seed=0)
    write_run(make_run, "runs/e", 0.625, method="fedavg", seed=1)
    return tmp_path / "runs"


def chart_of(folder: Path, key: str) -> Chart:
    curves = curves_of(folder, key)
    chart = curves_chart(curves, key, looks_of((curve.row.method, curve.row.label) for curve in curves))
    assert chart is not None
    return chart


def test_points_are_means_over_the_seeds_of_a_value_in_ascending_order(psi_runs: Path) -> None:
    subpfed, fedavg = curves_of(psi_runs, "method.psi")
    assert (subpfed.row.label, list(subpfed.points)) == ("subpfed", [0.25, 0.5])
    assert subpfed.points[0.25].spread("test_at_best_validation") == (0.25, None)
    deviation = statistics.stdev([0.5, 0.75])
    assert subpfed.points[0.5].spread("test_at_best_validation") == pytest.approx((0.625, deviation))
    assert (fedavg.row.label, fedavg.points) == ("fedavg", {})
    assert fedavg.row.spread("test_at_best_validation") == pytest.approx((0.5625, statistics.stdev([0.5, 0.625])))


def test_the_figure_shows_points_with_bars_and_references_with_bands(psi_runs: Path) -> None:
    chart = chart_of(psi_runs, "method.psi")
    points = line(chart, "subpfed")
    assert (points.x.tolist(), points.y.tolist(), points.bars) == ([0.25, 0.5], [25.0, 62.5], True)
    np.testing.assert_allclose(points.spread, [0.0, 100 * statistics.stdev([0.5, 0.75])], atol=1e-12)
    assert list((panel(chart).ticks or {}).values()) == ["0.25", "0.5"]
    reference = rule(chart, "fedavg")
    deviation = 100 * statistics.stdev([0.5, 0.625])
    assert (reference.at, reference.spread, reference.look.dash) == (56.25, pytest.approx(deviation), "dash")
    assert (panel(chart).x, panel(chart).y) == ("method.psi", "test accuracy (%), mean over clients")
    assert names(chart) == ["subpfed", "fedavg"]
    assert_nothing_hides_anything(draw(chart))


def test_other_settings_make_separate_curves(make_run: MakeRun, tmp_path: Path) -> None:
    for job, (psi, masks) in enumerate([(1, True), (2, True), (1, False), (2, False)]):
        write_run(make_run, f"runs/{job}", job / 8 + 0.25, settings={"psi": psi, "masks": masks})
    chart = chart_of(tmp_path / "runs", "method.psi")
    assert names(chart) == ["fedpub (method.masks=false)", "fedpub (method.masks=true)"]
    first, second = (line(chart, name) for name in names(chart))
    assert (first.y.tolist(), second.y.tolist()) == ([50.0, 62.5], [25.0, 37.5])
    assert first.look.colour == second.look.colour and first.look != second.look  # one colour a method
    # bars stand side by side, each within a hundredth of the axis of its value
    assert all(a < value < b for a, value, b in zip(first.x, (1, 2), second.x, strict=True))
    np.testing.assert_allclose([first.x, second.x], [[1, 2], [1, 2]], atol=0.01 * 1.12)


def test_a_key_of_the_data_makes_one_panel_for_each_number_of_clients(make_run: MakeRun, tmp_path: Path) -> None:
    for clients in (5, 10):
        for rate in (0.1, 0.3):
            for method in ("local", "fedpub"):
                partition = {"name": "overlap_rate", "rate": rate}
                make_run(f"runs/{clients}-{rate}-{method}", method, clients=clients, rounds=2, partition=partition)
    curves = curves_of(tmp_path / "runs", "partition.rate")
    chart = chart_of(tmp_path / "runs", "partition.rate")
    assert [each.title for each in chart.panels] == [f"cora, overlap_rate, {n} clients" for n in (5, 10)]
    assert [list(curve.points) for curve in curves] == [[0.1, 0.3]] * 4
    assert names(chart) == ["fedpub", "local"]
    assert_nothing_hides_anything(draw(chart))


def test_the_number_of_clients_may_be_the_key_itself(make_run: MakeRun, tmp_path: Path) -> None:
    for clients in (5, 10):
        make_run(f"runs/{clients}", clients=clients, rounds=2)
    (curve,) = curves_of(tmp_path / "runs", "partition.clients")
    assert list(curve.points) == [5, 10]
    assert {clients: row.counted[0].clients for clients, row in curve.points.items()} == {5: 5, 10: 10}


def test_a_word_in_place_of_a_number_is_a_reference_named_by_it(make_run: MakeRun, tmp_path: Path) -> None:
    for job, tau in enumerate([1, "auto", 3, None]):
        write_run(make_run, f"runs/{job}", 0.5, settings={"tau": tau})
    write_run(make_run, "runs/4", 0.5)  # before the key was there
    curve, *references = curves_of(tmp_path / "runs", "method.tau")
    assert (curve.row.label, list(curve.points)) == ("fedpub", [1, 3])
    labels = ["fedpub (method.tau=auto)", "fedpub (method.tau=null)", "fedpub (method.tau=unset)"]
    assert [reference.row.label for reference in references] == labels


def test_values_far_apart_are_drawn_on_a_logarithmic_axis(make_run: MakeRun, tmp_path: Path) -> None:
    for job, rate in enumerate([1e-6, 1e-5, 1e-3]):
        write_run(make_run, f"log/{job}", 0.5, settings={"mask_l1": rate})
        write_run(make_run, f"linear/{job}", 0.5, settings={"mask_l1": job})
    assert panel(chart_of(tmp_path / "log", "method.mask_l1")).log
    assert not panel(chart_of(tmp_path / "linear", "method.mask_l1")).log
    assert draw(chart_of(tmp_path / "log", "method.mask_l1")).axes[0].get_xscale() == "log"


def test_runs_that_were_cut_short_are_hollow_points(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", settings={"psi": 1}, rounds=3)
    make_run("runs/1", settings={"psi": 2}, rounds=3, status="interrupted")
    curves = curves_of(tmp_path / "runs", "method.psi")
    chart = chart_of(tmp_path / "runs", "method.psi")
    assert line(chart, "fedpub").x.tolist() == [1, 2]
    hollow = line(chart, "not completed")
    assert (hollow.x.tolist(), hollow.look.marker) == ([2], "circle-open")
    assert names(chart) == ["fedpub", "not completed"]
    table = curve_table(curves, "method.psi", collapse=True)
    assert table.cells["note"].tolist() == ["2: interrupted"] and table.whole == (False,)


def test_nothing_is_drawn_where_no_run_with_a_value_was_evaluated(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", settings={"psi": 1}, rounds=0, status="failed")
    make_run("runs/1", method="fedavg", rounds=2)
    assert curves_chart(curves_of(tmp_path / "runs", "method.psi"), "method.psi", {}) is None


def test_the_table_has_a_column_a_value_and_one_for_references(psi_runs: Path) -> None:
    curves = curves_of(psi_runs, "method.psi")
    table = curve_table(curves, "method.psi", collapse=True)
    assert table.title == "test at best validation by method.psi: cora, metis, 2 clients, accuracy (%)"
    assert table.heads == ["method", "seeds", "method.psi 0.25", "method.psi 0.5", "at any value", "note"]
    assert table.lines == [
        ["subpfed", "1–2", "25.00", "62.50 ± 17.68", "–", "meets fedavg near 0.458"],
        ["fedavg", "2", "–", "–", "56.25 ± 8.84", ""],
    ]


def test_a_curve_meets_a_reference_on_a_line_between_two_points(psi_runs: Path) -> None:
    (met,) = crossings(curves_of(psi_runs, "method.psi"))
    # From 25 to 62.5 per cent between 0.25 and 0.5: 56.25 is five sixths of the way.
    assert met.value == pytest.approx(0.25 + 5 / 6 * 0.25)
    assert (met.curve, met.reference, met.level, met.between) == ("subpfed", "fedavg", "56.25", (0.25, 0.5))


@pytest.mark.parametrize(
    ("figures", "meetings"),
    [
        ({1: 0.25, 10: 0.75, 1000: 0.25}, [10**0.5, 100]),  # halves of the way, on a logarithmic axis
        ({1: 0.25, 2: 0.75, 4: 0.25}, [1.5, 3]),
        ({1: 0.75, 2: 0.5, 4: 0.25}, [2]),  # a point on the reference counts once
        ({1: 0.25, 2: 0.5, 4: 0.25}, [2, 2]),  # it touches from below
        ({1: 0.625, 2: 0.75}, []),
    ],
)
def test_meetings_are_found_wherever_the_sign_changes(
    make_run: MakeRun, tmp_path: Path, figures: dict[int, float], meetings: list[float]
) -> None:
    write_run(make_run, "runs/reference", 0.5, method="fedavg")
    for value, test in figures.items():
        write_run(make_run, f"runs/{value}", test, settings={"psi": value})
    assert [met.value for met in crossings(curves_of(tmp_path / "runs", "method.psi"))] == pytest.approx(meetings)


def test_csv_holds_a_line_a_point(psi_runs: Path, tmp_path: Path) -> None:
    write_csv(curve_means(curves_of(psi_runs, "method.psi"), "method.psi"), tmp_path / "curve.csv")
    with (tmp_path / "curve.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [(line["method"], line["method.psi"], line["seeds"]) for line in lines] == [
        ("subpfed", "0.25", "0"), ("subpfed", "0.5", "0 1"), ("fedavg", "", "0 1"),
    ]  # fmt: skip
    assert [float(line["test_at_best_validation_mean"]) for line in lines] == [0.25, 0.625, 0.5625]
    assert lines[0]["test_at_best_validation_std"] == ""
    assert float(lines[1]["test_at_best_validation_std"]) == pytest.approx(statistics.stdev([0.5, 0.75]))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("method.rate", "--curve method.rate: no run's configuration has this key; those .* are method.psi$"),
        ("method", "--curve method: no run's configuration has this key"),
        ("method.name", "a curve needs a key with numbers, and this one's values are subpfed, fedavg; those"),
    ],
)
def test_a_key_that_makes_no_curve_is_refused_and_others_are_named(psi_runs: Path, key: str, message: str) -> None:
    with pytest.raises(SubflError, match=message):
        curves_of(psi_runs, key)


def test_switches_are_no_numbers(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", settings={"masks": True}, rounds=1)
    with pytest.raises(SubflError, match=r"values are true; those whose numbers differ between these runs are none$"):
        curves_of(tmp_path / "runs", "method.masks")


def test_what_runs_found_out_of_their_settings_may_be_the_key(make_run: MakeRun, tmp_path: Path) -> None:
    for job, (noise, epsilon) in enumerate([(0.5, 80.0), (2.0, 20.0)]):
        run = make_run(f"runs/{job}", rounds=2)
        config, summary = run.config(), run.summary()
        assert summary is not None
        run.write_config({**config, "privacy": {"mechanism": "gaussian_l2", "noise_multiplier": noise}})
        run.write_summary({**summary, "privacy": {"user_level_epsilon": epsilon}})
    (curve,) = build_curves(load_runs([tmp_path / "runs"]), "privacy.user_level_epsilon")
    assert [(epsilon, len(row.runs)) for epsilon, row in curve.points.items()] == [(20.0, 1), (80.0, 1)]
    assert len(build_curves(load_runs([tmp_path / "runs"]), "privacy.noise_multiplier")) == 1
