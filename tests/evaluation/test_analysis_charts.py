from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from drawn import assert_nothing_hides_anything
from marks import heats, line, names, panel

from subfl_flower.analysis.neighbours import NeighbourPerformance
from subfl_flower.analysis.run_analysis import Similarity
from subfl_flower.analysis.sharing import ParameterSharing, SharedWeights
from subfl_flower.evaluation.charts.analysis_charts import neighbours_chart, sharing_chart, similarity_chart
from subfl_flower.evaluation.charts.drawing import draw

FUNCTIONAL = np.array([[1.0, 0.2, 0.3], [0.2, 1.0, -0.4], [0.3, -0.4, 1.0]])
MISSING = np.array([[0, 5, 9], [5, 0, 1], [9, 1, 0]])


def plain(similarity: Similarity) -> dict[str, Any]:
    """Content of `analysis.json`."""
    correlation = {"missing_edges": similarity.with_missing, "label": similarity.with_label}
    return asdict(similarity) | {"rank_correlation_with_functional": correlation}


def test_heat_maps_leave_the_diagonal_out_and_name_the_rank_correlations() -> None:
    chart = similarity_chart(plain(Similarity(FUNCTIONAL, MISSING, 1 - FUNCTIONAL)), "a run")
    assert len(heats(chart)) == 3
    for found, expected in zip(heats(chart), (FUNCTIONAL, MISSING, 1 - FUNCTIONAL), strict=True):
        assert np.isnan(found.values).tolist() == np.eye(3, dtype=bool).tolist()
        off = ~np.eye(3, dtype=bool)
        np.testing.assert_array_equal(found.values[off], expected[off])
    titles = [each.title for each in chart.panels]
    # by rank the three pairs are 2 3 1 in both the functional similarity and the missing edges
    assert "functional: 1.00" in titles[1] and "functional: -1.00" in titles[2]
    assert_nothing_hides_anything(draw(chart))


def test_without_labels_two_heat_maps_are_drawn() -> None:
    assert len(heats(similarity_chart(plain(Similarity(FUNCTIONAL, MISSING, None)), "a run"))) == 2


def test_neighbours_are_drawn_in_percent_with_their_means() -> None:
    found = NeighbourPerformance(
        "accuracy", np.array([1, 0, -1]), np.array([0.5, 0.75, 1.0]), np.array([0.25, 0.5, np.nan])
    )
    chart = neighbours_chart(asdict(found), "a run")
    assert names(chart) == ["on own test data (mean 75.00 %)", "on the test data of the neighbour (mean 37.50 %)"]
    own, neighbour = (line(chart, name) for name in names(chart))
    np.testing.assert_array_equal(own.y, [50, 75, 100])
    np.testing.assert_array_equal(neighbour.y, [25, 50, np.nan])
    assert list((panel(chart).ticks or {}).values()) == ["0\n→1", "1\n→0", "2\n–"]
    assert_nothing_hides_anything(draw(chart))


def test_sharing_is_drawn_in_percent_with_its_means() -> None:
    def shared(*jaccard: float) -> SharedWeights:
        return SharedWeights(np.array([1, 0]), np.array([0.5, 0.5]), np.array(jaccard), np.array(jaccard))

    chart = sharing_chart(asdict(ParameterSharing(shared(0.5, 0.75), shared(0.25, 0.125))), "a run")
    assert names(chart) == ["with the most similar client (mean 62.5 %)", "with the least similar client (mean 18.8 %)"]
    most, least = (line(chart, name) for name in names(chart))
    np.testing.assert_array_equal(most.y, [50, 75])
    np.testing.assert_array_equal(least.y, [25, 12.5])
