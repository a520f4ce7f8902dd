import numpy as np
import pytest
from marks import bars, heats, line, names, panel, rule
from synthetic_runs import MakeRun, round_record

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.charts.chart import Shade
from subfl_flower.evaluation.charts.drawing import draw, save_charts
from subfl_flower.evaluation.charts.run_charts import clients_chart, convergence_chart, mixing_chart, run_charts
from subfl_flower.evaluation.runs import Run

PNG = b"\x89PNG\r\n\x1a\n"


def test_a_run_gets_three_png_files(make_run: MakeRun) -> None:
    run = make_run("run")
    drawn = save_charts(run_charts(Run.load(run.path)), run.plots_folder)
    assert drawn == [run.plots_folder / name for name in ("convergence.png", "clients.png", "mixing.png")]
    assert all(path.read_bytes().startswith(PNG) for path in drawn)


def test_only_what_there_is_data_for_is_drawn(make_run: MakeRun) -> None:
    assert run_charts(Run.load(make_run("empty", rounds=0, status="failed").path)) == []
    short = make_run("short", rounds=2, status=None)  # no mixing matrix yet
    assert [chart.name for chart in run_charts(Run.load(short.path))] == ["convergence", "clients"]


def test_convergence_shows_percent_by_round_and_marks_the_best(make_run: MakeRun) -> None:
    run = make_run("run")
    chart = convergence_chart(Run.load(run.path))
    records = run.rounds()
    np.testing.assert_array_equal(line(chart, "test").x, [record["round"] for record in records])
    np.testing.assert_allclose(line(chart, "test").y, [100 * record["test"] for record in records])
    np.testing.assert_allclose(line(chart, "validation").y, [100 * record["validation"] for record in records])
    assert line(chart, "test, as received").look.dash == "dash"
    best = max(records, key=lambda record: record["validation"])
    (name,) = (name for name in names(chart) if name.startswith("best validation"))
    assert f"round {best['round']}, test {100 * best['test']:.2f} %" in name
    assert (line(chart, name).x, line(chart, name).y) == (best["round"], 100 * best["test"])


def test_errors_are_drawn_in_their_own_unit(make_run: MakeRun) -> None:
    run = make_run("run", metric="rmse", rounds=3)
    chart = convergence_chart(Run.load(run.path))
    np.testing.assert_allclose(line(chart, "test").y, [record["test"] for record in run.rounds()])
    assert "%" not in panel(chart).y


def test_clients_are_bars_by_id_with_their_mean(make_run: MakeRun) -> None:
    run = make_run("run", rounds=0, status=None)
    clients = {"ids": [7, 2, 4], "test": [0.5, 0.75, None], "validation": [0.5, 0.5, 0.5]}
    clients["test_as_received"] = [0.25, 0.5, 0.125]
    run.append_round({"round": 1, "metric": "accuracy", "validation": 0.5, "test": 0.625, "clients": clients})
    chart = clients_chart(Run.load(run.path))
    assert list((panel(chart).ticks or {}).values()) == ["2", "4", "7"]
    np.testing.assert_array_equal(bars(chart).y, [75.0, np.nan, 50.0])
    np.testing.assert_array_equal(line(chart, "as received").y, [50.0, 12.5, 25.0])
    assert rule(chart, "mean 62.50 %, lowest 50.00 %").at == 62.5


def write_partial_rounds(make_run: MakeRun) -> Run:
    """Three clients, of whom one or two take part in a round; the best round after all were heard is 3."""
    run = make_run("partial", rounds=0, status=None, clients=3)
    rounds = [(1, 1, 0.75, [2], [0.75], [0.5]), (2, 3, 0.5, [0, 1], [0.5, 0.25], [0.125, 0.25])]
    rounds.append((3, 3, 0.625, [1], [0.625], [0.375]))
    for number, heard, mean, ids, test, received in rounds:
        clients = {"ids": ids, "test": test, "validation": test, "test_as_received": received}
        record = {"round": number, "metric": "roc_auc", "test": mean, "validation": mean, "clients_heard": heard}
        run.append_round({**record, "clients": clients})
    return Run.load(run.path)


def test_absent_clients_are_drawn_by_their_last_known_values(make_run: MakeRun) -> None:
    run = write_partial_rounds(make_run)
    assert run.clients == 3
    chart = clients_chart(run)
    assert chart.title.endswith("clients at round 3")
    np.testing.assert_array_equal(bars(chart).y, [50.0, 62.5, 75.0])
    np.testing.assert_array_equal(line(chart, "as received").y, [12.5, 37.5, 50.0])


def test_rounds_before_the_last_client_was_heard_are_shaded(make_run: MakeRun) -> None:
    chart = convergence_chart(write_partial_rounds(make_run))
    (shade,) = (mark for mark in panel(chart).marks if isinstance(mark, Shade))
    assert (shade.start, shade.end, shade.name) == (1, 2, "fewer than 3 clients heard so far")
    assert line(chart, "best validation: round 3, test 62.50 %").x == 3
    whole = convergence_chart(Run.load(make_run("whole", rounds=3).path))
    assert not any(isinstance(mark, Shade) for mark in panel(whole).marks)


def test_many_clients_become_a_histogram_that_counts_each(make_run: MakeRun) -> None:
    run = make_run("run", clients=300, rounds=2)
    chart = clients_chart(Run.load(run.path))
    assert bars(chart).y.sum() == 300
    assert panel(chart).y == "clients"


@pytest.mark.parametrize("clients", [3, 300])
def test_the_worst_of_errors_is_the_highest_and_their_mean_is_named_as_that_of_clients(
    make_run: MakeRun, clients: int
) -> None:
    tests = [0.5, 1.75, *[0.75] * (clients - 2)]
    record = round_record(1, tests, tests, tests, metric="rmse")
    run = make_run("run", rounds=0, status=None)
    run.append_round({**record, "test": 0.9})  # pooled, and therefore not the mean
    (words,) = (name for name in names(clients_chart(Run.load(run.path))) if name.startswith("mean"))
    assert words == f"mean over clients {sum(tests) / clients:.4f}, highest 1.7500"


def test_bars_are_after_local_training_only_where_something_was_measured_before_it(make_run: MakeRun) -> None:
    record = round_record(1, [0.5, 0.75], [0.5, 0.5], [0.5, 0.5])
    for name, expected in (("subgraphs", True), ("users", False)):
        run = make_run(name, rounds=0, status=None)
        if not expected:
            del record["test_as_received"], record["clients"]["test_as_received"]
        run.append_round(record)
        assert ("after local training" in names(clients_chart(Run.load(run.path)))) == expected


def test_counts_are_marked_by_whole_numbers(make_run: MakeRun) -> None:
    """Rounds, of which a run may have been evaluated in one, and clients of a histogram."""
    run = make_run("run", rounds=0, status=None)
    run.append_round(round_record(3, np.linspace(0, 1, 160).tolist(), [0.5] * 160, [0.5] * 160))  # 4 a bar
    loaded = Run.load(run.path)
    rounds, clients = draw(convergence_chart(loaded)).axes[0].xaxis, draw(clients_chart(loaded)).axes[0].yaxis
    for axis in (rounds, clients):
        marks = axis.get_ticklocs()
        assert len(marks) and all(mark == round(mark) for mark in marks)


def test_mixing_shows_the_last_matrix_first_and_earlier_ones_in_its_scale() -> None:
    generator = np.random.default_rng(0)
    matrices = {number: generator.dirichlet(np.ones(6), size=6) for number in (40, 1, 10, 20, 30, 15)}
    chart = mixing_chart(matrices, "a run")
    assert [each.title for each in chart.panels] == [f"round {number}" for number in (40, 1, 10, 20, 30)]
    for heat, number in zip(heats(chart), (40, 1, 10, 20, 30), strict=True):
        np.testing.assert_allclose(heat.values, 100 * matrices[number])
    assert len({(heat.low, heat.high) for heat in heats(chart)}) == 1
    assert [heat.written for heat in heats(chart)] == [True, False, False, False, False]
    written = [int(text.get_text()) for text in draw(chart).axes[0].texts]
    np.testing.assert_allclose(written, 100 * matrices[40].ravel(), atol=0.5)


@pytest.mark.parametrize("matrix", [np.eye(1), np.eye(3), np.zeros((2, 2)), np.full((60, 60), 1 / 60)])
def test_a_single_matrix_of_any_size_can_be_drawn(matrix: np.ndarray) -> None:
    figure = draw(mixing_chart({5: matrix}, "a run"))
    figure.draw_without_rendering()
    low, high = figure.axes[0].collections[0].get_clim()
    assert low == 0 and high >= 100 * matrix.max()


def test_a_folder_that_cannot_be_written_is_named(make_run: MakeRun) -> None:
    run = make_run("run", rounds=1)
    run.plots_folder.write_text("in the way")
    with pytest.raises(SubflError, match=r"cannot write .*plots.*--no-plots"):
        save_charts(run_charts(Run.load(run.path)), run.plots_folder)
