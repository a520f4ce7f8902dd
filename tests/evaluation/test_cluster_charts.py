import math

import numpy as np
import pytest
from drawn import assert_nothing_hides_anything
from marks import bars, heats, line, names
from synthetic_runs import MakeRun

from subfl_flower.evaluation.charts.chart import Chart, Line
from subfl_flower.evaluation.charts.cluster_charts import changed, clusters_chart
from subfl_flower.evaluation.charts.drawing import draw
from subfl_flower.evaluation.charts.looks import COLOURS, GREY
from subfl_flower.evaluation.charts.run_charts import run_charts
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


def points_of(chart: Chart) -> dict[str, np.ndarray]:
    """Positions of the users in the plane, by colour."""
    lines = [mark for mark in chart.panels[0].marks if isinstance(mark, Line)]
    return {mark.look.colour: np.stack([mark.x, mark.y], axis=1) for mark in lines}


def test_users_are_drawn_where_they_are_in_their_clusters_colour() -> None:
    chart = clusters_chart({9: clustering([2, -1, 0, 0]), 3: clustering([1, 1, 0, -1])}, "a run")
    assert chart.panels[0].title == "round 9"
    drawn = points_of(chart)
    np.testing.assert_array_equal(drawn[COLOURS[0]], [[2, 0], [3, 0]])
    np.testing.assert_array_equal(drawn[COLOURS[2]], [[0, 2]])
    np.testing.assert_array_equal(drawn[GREY], [[1, -1]])
    assert sorted(names(chart)) == ["0: 2", "1: 0", "2: 1", "none: 1"]


def test_sizes_and_changes_are_drawn_by_round() -> None:
    clusterings = {4: clustering([0, 0, 1, -1]), 8: clustering([0, 1, 1, 1]), 16: clustering([0, 1, 1, 0])}
    chart = clusters_chart(clusterings, "a run")
    _, sizes, changes = chart.panels
    for mark, expected in zip(sizes.marks, ([2, 1, 2], [1, 3, 2], [1, 0, 0]), strict=True):
        assert isinstance(mark, Line)
        np.testing.assert_array_equal(mark.x, [4, 8, 16])
        np.testing.assert_array_equal(mark.y, expected)
    (share,) = changes.marks
    assert isinstance(share, Line)
    np.testing.assert_array_equal(share.x, [8, 16])
    np.testing.assert_allclose(share.y, [100 / 3, 25])


def test_of_one_clustering_sizes_are_bars() -> None:
    chart = clusters_chart({1: clustering([0, 2, 2, -1, 2])}, "a run")
    assert len(chart.panels) == 2
    assert bars(chart).y.tolist() == [1, 0, 3, 1]
    assert list((chart.panels[1].ticks or {}).values()) == ["0", "1", "2", "none"]


def test_of_many_clusters_sizes_are_shades() -> None:
    clusterings = many(600, 30, 12)
    chart = clusters_chart(clusterings, "a run")
    (heat,) = heats(chart)
    expected = [[(c.labels == label).sum() for c in clusterings.values()] for label in range(30)]
    np.testing.assert_array_equal(heat.values, expected)
    np.testing.assert_array_equal(heat.x, sorted(clusterings))
    assert {f"29: {expected[29][-1]}", f"none: {(clusterings[120].labels < 0).sum()}"} <= set(names(chart))


def test_no_two_of_sixty_four_clusters_look_alike() -> None:
    chart = clusters_chart({1: clustering(list(range(64)))}, "a run")
    assert len({line(chart, f"{label}: 1").look for label in range(64)}) == 64


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
    assert_nothing_hides_anything(draw(clusters_chart(clusterings, heading)))


def test_a_run_with_clusters_gets_their_figure(make_run: MakeRun) -> None:
    run = make_run("run", method="perfedrec", rounds=2)
    assert "clusters" not in [chart.name for chart in run_charts(Run.load(run.path))]
    for number in (1, 2):
        found = many(40, 3, 2)[10 * number]
        run.add_clusters(number, found.client_ids, found.labels, found.points)
    assert [chart.name for chart in run_charts(Run.load(run.path))] == ["convergence", "clients", "clusters"]
