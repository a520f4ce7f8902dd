import html
import math
import re
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from report_command import report
from synthetic_runs import MakeRun

from subfl_flower.evaluation.cluster_plot import changed
from subfl_flower.evaluation.plots import STYLE, clusters_figure, plot_run
from subfl_flower.evaluation.runs import Run
from subfl_flower.runs.round_arrays import Clustering


def clustering(labels: list[int], ids: list[int] | None = None) -> Clustering:
    """Users at (id, label)."""
    found = np.arange(len(labels)) if ids is None else np.array(ids)
    points = np.stack([found, labels], axis=1).astype(np.float32)
    return Clustering(found.astype(np.int64), np.array(labels, dtype=np.int64), points)


def many(users: int, clusters: int, rounds: int) -> dict[int, Clustering]:
    draw = np.random.default_rng(0)
    return {
        10 * number: Clustering(
            np.arange(users), draw.integers(-1, clusters, users), draw.normal(size=(users, 2)).astype(np.float32)
        )
        for number in range(1, rounds + 1)
    }


def legend_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def scattered(figure: Figure) -> dict[tuple[float, ...], np.ndarray]:
    """Points by colour, rounded."""
    return {
        tuple(np.round(points.get_facecolor()[0][:3], 3)): np.asarray(points.get_offsets())
        for points in figure.axes[0].collections
    }


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [
        (clustering([0, 1, 1, 2]), clustering([0, 1, 2, 0]), 1 / 2),
        (clustering([0, 1, 1, -1]), clustering([-1, 1, 2, 0]), 1 / 2),
        (clustering([0, 1, 2], [7, 3, 5]), clustering([1, 0, 2, 9], [3, 7, 6, 5]), 1 / 3),
        (clustering([0, -1]), clustering([-1, 0]), math.nan),
        (clustering([0], [1]), clustering([0], [2]), math.nan),
    ],
)
def test_who_changed_is_a_share_of_those_with_a_cluster_both_times(
    before: Clustering, after: Clustering, share: float
) -> None:
    np.testing.assert_allclose(changed(before, after), share)


def test_users_are_drawn_where_they_are_in_their_clusters_colour() -> None:
    figure = clusters_figure({9: clustering([2, -1, 0, 0]), 3: clustering([1, 1, 0, -1])}, "a run")
    assert figure.axes[0].get_title() == "round 9"
    drawn = scattered(figure)
    blue, green, grey = (0.0, 0.447, 0.698), (0.0, 0.62, 0.451), (0.627, 0.627, 0.627)
    np.testing.assert_array_equal(drawn[blue], [[2, 0], [3, 0]])
    np.testing.assert_array_equal(drawn[green], [[0, 2]])
    np.testing.assert_array_equal(drawn[grey], [[1, -1]])
    assert legend_of(figure) == ["0: 2", "1: 0", "2: 1", "none: 1"]


def test_sizes_and_changes_are_drawn_by_round() -> None:
    clusterings = {4: clustering([0, 0, 1, -1]), 8: clustering([0, 1, 1, 1]), 16: clustering([0, 1, 1, 0])}
    _, sizes, changes = clusters_figure(clusterings, "a run").axes
    lines = sizes.get_lines()
    for line, expected in zip(lines, ([2, 1, 2], [1, 3, 2], [1, 0, 0]), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [4, 8, 16])
        np.testing.assert_array_equal(line.get_ydata(), expected)
    (line,) = changes.get_lines()
    np.testing.assert_array_equal(line.get_xdata(), [8, 16])
    np.testing.assert_allclose(line.get_ydata(), [100 / 3, 25])


def test_of_one_clustering_sizes_are_bars() -> None:
    axes = clusters_figure({1: clustering([0, 2, 2, -1, 2])}, "a run").axes
    assert len(axes) == 2
    assert [bar.get_height() for bar in axes[1].patches] == [1, 0, 3, 1]


def test_of_many_clusters_sizes_are_shades() -> None:
    clusterings = many(600, 30, 12)
    figure = clusters_figure(clusterings, "a run")
    (mesh,) = figure.axes[1].collections
    expected = [[(c.labels == label).sum() for c in clusterings.values()] for label in range(30)]
    np.testing.assert_array_equal(np.asarray(mesh.get_array()).reshape(30, 12), expected)
    assert legend_of(figure)[29:] == [f"29: {expected[29][-1]}", f"none: {(clusterings[120].labels < 0).sum()}"]


def test_no_two_of_sixty_four_clusters_look_alike() -> None:
    figure = clusters_figure({1: clustering(list(range(64)))}, "a run")
    looks = {(line.get_color(), line.get_marker()) for line in figure.legends[0].get_lines()}
    assert len(looks) == 64


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "clusterings",
    [
        many(943, 5, 12),
        many(943, 5, 1),
        many(943, 30, 12),
        many(50, 30, 1),
        many(5000, 100, 2),
        {1: clustering([-1, -1])},
        {1: clustering([0]), 2: clustering([0])},
        {1: clustering([0, -1]), 2: clustering([-1, 0])},
        {1: Clustering(np.arange(2), np.array([0, -1]), np.array([[1, 2], [np.nan, np.nan]], dtype=np.float32))},
    ],
)
def test_nothing_hides_anything_else(clusterings: dict[int, Clustering]) -> None:
    heading = "perfedrec on ml100k, users, 943 clients, seed 0"
    with matplotlib.rc_context(STYLE):
        figure = clusters_figure(clusterings, heading)
        figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [figure.legends[0].get_window_extent(renderer), figure.texts[0].get_window_extent(renderer)]
    for place, box in enumerate(boxes):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        for other in boxes[:place]:
            both = Bbox.intersection(box, other)
            assert both is None or both.width * both.height < 4  # pixels: a rounding's worth
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [label.get_window_extent(renderer) for label in axis.get_ticklabels() if label.get_visible()]
            ends = sorted((box.x0, box.x1) if axis is axes.xaxis else (box.y0, box.y1) for box in ticks)
            assert all(one[1] <= two[0] + 1 for one, two in pairwise(ends))


def test_a_run_with_clusters_gets_their_figure_and_the_page_shows_it(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run("run", method="perfedrec", rounds=2)
    assert "clusters.png" not in [path.name for path in plot_run(Run.load(run.path))]
    for number in (1, 2):
        found = many(40, 3, 2)[10 * number]
        run.add_clusters(number, found.client_ids, found.labels, found.points)
    drawn = plot_run(Run.load(run.path))
    assert drawn[-1] == run.plots_folder / "clusters.png"
    assert drawn[-1].read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert report(run.path, "--html") == 0
    descriptions = re.findall(r"<img alt='([^']*)'", run.report_page.read_text())
    assert [html.unescape(text).split(" of ")[0] for text in descriptions] == ["convergence", "clients", "clusters"]
