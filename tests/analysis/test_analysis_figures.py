from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from subfl_flower.analysis.figures import neighbours_figure, sharing_figure, similarity_figure
from subfl_flower.analysis.neighbours import NeighbourPerformance
from subfl_flower.analysis.run_analysis import Similarity
from subfl_flower.analysis.sharing import ParameterSharing, SharedWeights

FUNCTIONAL = np.array([[1.0, 0.2, 0.3], [0.2, 1.0, -0.4], [0.3, -0.4, 1.0]])
MISSING = np.array([[0, 5, 9], [5, 0, 1], [9, 1, 0]])


def heat_maps(figure: Figure) -> list[np.ma.MaskedArray]:
    return [axes.get_images()[0].get_array() for axes in figure.axes if axes.get_images()]


def legend_of(figure: Figure) -> str:
    legend = figure.axes[0].get_legend()
    assert legend is not None
    return " ".join(text.get_text() for text in legend.get_texts()).replace("\n", " ")


def test_heat_maps_leave_the_diagonal_out_and_name_the_rank_correlations() -> None:
    figure = similarity_figure(Similarity(FUNCTIONAL, MISSING, 1 - FUNCTIONAL), "a run")
    maps = heat_maps(figure)
    assert len(maps) == 3
    for found, expected in zip(maps, (FUNCTIONAL, MISSING, 1 - FUNCTIONAL), strict=True):
        assert found.mask.tolist() == np.eye(3, dtype=bool).tolist()
        assert np.ma.allclose(found, expected)
    titles = [axes.get_title() for axes in figure.axes if axes.get_images()]
    # by rank the three pairs are 2 3 1 in both the functional similarity and the missing edges
    assert "functional: 1.00" in titles[1] and "functional: -1.00" in titles[2]


def test_without_labels_two_heat_maps_are_drawn() -> None:
    assert len(heat_maps(similarity_figure(Similarity(FUNCTIONAL, MISSING, None), "a run"))) == 2


def test_neighbours_are_drawn_in_percent_with_their_means() -> None:
    found = NeighbourPerformance(
        "accuracy", np.array([1, 0, -1]), np.array([0.5, 0.75, 1.0]), np.array([0.25, 0.5, np.nan])
    )
    figure = neighbours_figure(found, "a run")
    own, neighbour = (line for line in figure.axes[0].get_lines() if line.get_marker() in ("o", "D"))
    np.testing.assert_array_equal(own.get_ydata(), [50, 75, 100])
    np.testing.assert_array_equal(neighbour.get_ydata(), [25, 50, np.nan])
    assert "mean 75.00 %" in legend_of(figure) and "mean 37.50 %" in legend_of(figure)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0\n→1", "1\n→0", "2\n–"]


def test_sharing_is_drawn_in_percent_with_its_means() -> None:
    def shared(*jaccard: float) -> SharedWeights:
        return SharedWeights(np.array([1, 0]), np.array([0.5, 0.5]), np.array(jaccard), np.array(jaccard))

    figure = sharing_figure(ParameterSharing(shared(0.5, 0.75), shared(0.25, 0.125)), "a run")
    most, least = (line for line in figure.axes[0].get_lines() if line.get_marker() in ("o", "D"))
    np.testing.assert_array_equal(most.get_ydata(), [50, 75])
    np.testing.assert_array_equal(least.get_ydata(), [25, 12.5])
    assert "most similar client (mean 62.5 %)" in legend_of(figure)
    assert "least similar client (mean 18.8 %)" in legend_of(figure)
