from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic_runs import MakeRun, round_record

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.comparison import panel_figure, plot_comparison
from subfl_flower.evaluation.comparison import test_by_round as by_round
from subfl_flower.evaluation.plots import clients_figure, convergence_figure, mixing_figure, plot_run
from subfl_flower.evaluation.rows import build_rows
from subfl_flower.evaluation.runs import Run, load_runs

PNG = b"\x89PNG\r\n\x1a\n"


def legend_of(figure: Figure) -> list[str]:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def line(figure: Figure, label: str) -> Any:
    return next(line for line in figure.axes[0].get_lines() if str(line.get_label()).startswith(label))


def test_a_run_gets_three_png_files(make_run: MakeRun) -> None:
    run = make_run("run")
    drawn = plot_run(Run.load(run.path))
    assert drawn == [run.plots_folder / name for name in ("convergence.png", "clients.png", "mixing.png")]
    assert all(path.read_bytes().startswith(PNG) for path in drawn)


def test_only_what_there_is_data_for_is_drawn(make_run: MakeRun) -> None:
    assert plot_run(Run.load(make_run("empty", rounds=0, status="failed").path)) == []
    short = make_run("short", rounds=2, status=None)  # no mixing matrix yet
    assert [path.name for path in plot_run(Run.load(short.path))] == ["convergence.png", "clients.png"]


def test_convergence_shows_percent_by_round_and_marks_the_best(make_run: MakeRun) -> None:
    run = make_run("run")
    figure = convergence_figure(Run.load(run.path))
    records = run.rounds()
    np.testing.assert_allclose(line(figure, "test").get_ydata(), [100 * r["test"] for r in records])
    np.testing.assert_allclose(line(figure, "validation").get_ydata(), [100 * r["validation"] for r in records])
    assert line(figure, "test, as received").get_linestyle() == "--"
    best = max(records, key=lambda record: record["validation"])
    marked = line(figure, "best validation")
    assert (marked.get_xdata()[0], marked.get_ydata()[0]) == (best["round"], 100 * best["test"])
    assert any(f"round {best['round']}" in text for text in legend_of(figure))


def test_errors_are_drawn_in_their_own_unit(make_run: MakeRun) -> None:
    run = make_run("run", metric="rmse", rounds=3)
    figure = convergence_figure(Run.load(run.path))
    np.testing.assert_allclose(line(figure, "test").get_ydata(), [r["test"] for r in run.rounds()])
    assert "%" not in figure.axes[0].get_ylabel()


def test_clients_are_bars_by_id_with_their_mean(make_run: MakeRun) -> None:
    run = make_run("run", rounds=0, status=None)
    clients = {"ids": [7, 2, 4], "test": [0.5, 0.75, None], "validation": [0.5, 0.5, 0.5]}
    clients["test_as_received"] = [0.25, 0.5, 0.125]
    run.append_round({"round": 1, "metric": "accuracy", "validation": 0.5, "test": 0.625, "clients": clients})
    figure = clients_figure(Run.load(run.path))
    axes = figure.axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["2", "4", "7"]
    np.testing.assert_array_equal([bar.get_height() for bar in axes.patches], [75.0, np.nan, 50.0])
    np.testing.assert_array_equal(line(figure, "as received").get_ydata(), [50.0, 12.5, 25.0])
    assert line(figure, "mean 62.5").get_ydata()[0] == 62.5


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
    figure = clients_figure(run)
    assert figure.axes[0].get_title().endswith("clients at round 3")
    np.testing.assert_array_equal([bar.get_height() for bar in figure.axes[0].patches], [50.0, 62.5, 75.0])
    np.testing.assert_array_equal(line(figure, "as received").get_ydata(), [12.5, 37.5, 50.0])


def test_rounds_before_the_last_client_was_heard_are_shaded(make_run: MakeRun) -> None:
    figure = convergence_figure(write_partial_rounds(make_run))
    (shade,) = figure.axes[0].patches
    assert (shade.get_x(), shade.get_width()) == (1, 1)  # from round 1 to round 2
    assert "fewer than 3\nclients heard so far" in legend_of(figure)
    assert line(figure, "best validation").get_xdata()[0] == 3
    whole = convergence_figure(Run.load(make_run("whole", rounds=3).path))
    assert not list(whole.axes[0].patches)


def test_many_clients_become_a_histogram_that_counts_each(make_run: MakeRun) -> None:
    run = make_run("run", clients=300, rounds=2)
    figure = clients_figure(Run.load(run.path))
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 300
    assert figure.axes[0].get_ylabel() == "clients"


@pytest.mark.parametrize(
    ("metric", "label"),
    [
        ("accuracy", "accuracy (%), mean over clients"),
        ("hr@10", "hr@10 (%), mean over clients"),
        ("rmse", "rmse, over all clients' ratings"),  # of all ratings together: not the mean of users' errors
    ],
)
def test_axes_say_what_a_figure_over_clients_is(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, label: str
) -> None:
    run = Run.load(make_run("runs/one", metric=metric, rounds=3).path)
    assert convergence_figure(run).axes[0].get_ylabel() == label
    _, (axes,) = panel_figure([("cora", "metis", "10", metric)], "round")
    assert axes.get_ylabel() == f"test {label}"
    drawn: list[Figure] = []
    monkeypatch.setattr("subfl_flower.evaluation.comparison.save", lambda figure, path: drawn.append(figure))
    plot_comparison(build_rows([run]), tmp_path / "unused.png")
    assert drawn[0].axes[0].get_ylabel() == f"test {label}"


@pytest.mark.parametrize("clients", [3, 300])
def test_the_worst_of_errors_is_the_highest_and_their_mean_is_named_as_that_of_clients(
    make_run: MakeRun, clients: int
) -> None:
    tests = [0.5, 1.75, *[0.75] * (clients - 2)]
    record = round_record(1, tests, tests, tests, metric="rmse")
    run = make_run("run", rounds=0, status=None)
    run.append_round({**record, "test": 0.9})  # pooled, and therefore not the mean
    (words,) = (text for text in legend_of(clients_figure(Run.load(run.path))) if text.startswith("mean"))
    assert words == f"mean over clients {sum(tests) / clients:.4f}\nhighest 1.7500"


def test_the_worst_of_fractions_is_the_lowest(make_run: MakeRun) -> None:
    run = make_run("run", rounds=0, status=None)
    run.append_round(round_record(1, [0.5, 0.75], [0.5, 0.5], [0.5, 0.5]))
    assert "mean 62.50 %\nlowest 50.00 %" in legend_of(clients_figure(Run.load(run.path)))


def test_bars_are_after_local_training_only_where_something_was_measured_before_it(make_run: MakeRun) -> None:
    record = round_record(1, [0.5, 0.75], [0.5, 0.5], [0.5, 0.5])
    for name, expected in (("subgraphs", True), ("users", False)):
        run = make_run(name, rounds=0, status=None)
        if not expected:
            del record["test_as_received"], record["clients"]["test_as_received"]
        run.append_round(record)
        assert ("after local\ntraining" in legend_of(clients_figure(Run.load(run.path)))) == expected


def test_counts_are_marked_by_whole_numbers(make_run: MakeRun) -> None:
    """Rounds, of which a run may have been evaluated in one, and clients of a histogram."""
    run = make_run("run", rounds=0, status=None)
    run.append_round(round_record(3, np.linspace(0, 1, 160).tolist(), [0.5] * 160, [0.5] * 160))  # 4 a bar
    loaded = Run.load(run.path)
    rounds, clients = convergence_figure(loaded).axes[0].xaxis, clients_figure(loaded).axes[0].yaxis
    for axis in (rounds, clients):
        marks = axis.get_ticklocs()
        assert len(marks) and all(mark == round(mark) for mark in marks)


def test_mixing_shows_the_last_matrix_large_and_earlier_ones_in_its_scale() -> None:
    draw = np.random.default_rng(0)
    matrices = {number: draw.dirichlet(np.ones(6), size=6) for number in (40, 1, 10, 20, 30, 15)}
    figure = mixing_figure(matrices, "a run")
    panels = [axes for axes in figure.axes if axes.get_images()]
    assert [axes.get_title() for axes in panels] == [f"round {n}" for n in (40, 1, 10, 20, 30)]
    for axes, number in zip(panels, (40, 1, 10, 20, 30), strict=True):
        np.testing.assert_allclose(np.asarray(axes.get_images()[0].get_array()), 100 * matrices[number])
    assert len({axes.get_images()[0].get_clim() for axes in panels}) == 1
    written = [int(text.get_text()) for text in panels[0].texts]
    np.testing.assert_allclose(written, 100 * matrices[40].ravel(), atol=0.5)


@pytest.mark.parametrize("matrix", [np.eye(1), np.eye(3), np.zeros((2, 2)), np.full((60, 60), 1 / 60)])
def test_a_single_matrix_of_any_size_can_be_drawn(matrix: np.ndarray) -> None:
    figure = mixing_figure({5: matrix}, "a run")
    (image,) = figure.axes[0].get_images()
    low, high = image.get_clim()
    assert low == 0 and high >= 100 * matrix.max()


def test_mean_and_deviation_by_round_are_over_the_seeds_that_reached_it(make_run: MakeRun, tmp_path: Path) -> None:
    def values(tests: Sequence[float | None], name: str, seed: int) -> None:
        run = make_run(name, seed=seed, rounds=0, status=None)
        for number, test in enumerate(tests, start=1):
            run.append_round({"round": number, "metric": "accuracy", "test": test, "clients": {"ids": [0]}})
        run.write_summary({"status": "completed", "method": "fedpub", "seed": seed, "clients": 1})

    values([0.25, None, 0.75], "runs/0", 0)
    values([0.75, None], "runs/1", 1)
    (row,) = build_rows(load_runs([tmp_path / "runs"]))
    found = by_round(row)
    assert list(found.index) == [1, 3]
    np.testing.assert_allclose(found["mean"], [50.0, 75.0])
    np.testing.assert_allclose(found["std"], [100 * np.std([0.25, 0.75], ddof=1), 0.0])


def test_the_comparison_is_drawn_unless_nothing_was_evaluated(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("runs/0", rounds=3)
    make_run("runs/1", method="local", rounds=3)
    make_run("runs/2", rounds=3, clients=5)
    make_run("runs/3", method="fedavg", rounds=0, status="failed")
    path = tmp_path / "out" / "convergence.png"
    assert plot_comparison(build_rows(load_runs([tmp_path / "runs"])), path) == path
    assert path.read_bytes().startswith(PNG)
    empty = tmp_path / "out" / "empty.png"
    assert plot_comparison(build_rows(load_runs([tmp_path / "runs" / "3"])), empty) is None
    assert not empty.exists()


def test_a_folder_that_cannot_be_written_is_named(make_run: MakeRun) -> None:
    run = make_run("run", rounds=1)
    run.plots_folder.write_text("in the way")
    with pytest.raises(SubflError, match=r"cannot write .*plots.*--no-plots"):
        plot_run(Run.load(run.path))
