import json
from typing import Any

import numpy as np
import pytest

from subfl_flower.evaluation.charts.chart import Bars, Heat, Line, Mark, Panel, Rule, Shade
from subfl_flower.evaluation.charts.interactive import panel_json, pooled, thinned
from subfl_flower.evaluation.charts.looks import Look

BLUE = Look("#0072B2", "dash", "")


def figure_of(*marks: Mark, points: int = 100, **about: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(panel_json(Panel("", "x", "y", marks, **about), points))
    return found


def test_a_line_keeps_its_values_to_four_digits_and_its_band() -> None:
    x, y, spread = np.array([1, 2, 3]), np.array([0.123456, np.nan, 98.7654]), np.array([0.5, 0.5, 1.0])
    band, line = figure_of(Line("fedpub", x, y, BLUE, spread))["data"]
    assert (line["x"], line["y"]) == ([1, 2, 3], [0.1235, None, 98.77])
    assert line["line"]["dash"] == "dash" and line["mode"] == "lines"
    assert band["x"] == [1, 2, 3, 3, 2, 1] and band["name"] == line["name"] == "fedpub"
    assert (band["y"][2], band["y"][3]) == (99.77, 97.77)


def test_thinning_keeps_ends_peaks_and_gaps_of_what_is_unknown() -> None:
    y = np.sin(np.linspace(0, 40, 5000))
    y[1234], y[777] = 9.0, np.nan
    kept = thinned(y, 300)
    assert len(kept) <= 300 and {0, 1234, 4999} <= set(kept.tolist()) and 777 not in kept
    assert list(kept) == sorted(set(kept))
    assert thinned(y, 5000).tolist() == list(range(5000))


def test_pooled_cells_are_means_of_squares() -> None:
    values = np.arange(25.0).reshape(5, 5)
    values[4, 4] = np.nan
    found, side = pooled(values, 9)
    assert side == 2 and found.shape == (3, 3)
    assert found[0, 0] == (0 + 1 + 5 + 6) / 4 and found[0, 2] == (4 + 9) / 2 and np.isnan(found[2, 2])
    assert pooled(values, 25)[1] == 1


def test_a_heat_map_has_its_cells_in_place_and_both_limits() -> None:
    (heat,) = figure_of(Heat(np.array([[0.0, 50.0], [np.nan, 100.0]]), "%", np.arange(2), low=0.0))["data"]
    assert heat["z"] == [[0, 50], [None, 100]] and (heat["zmin"], heat["zmax"]) == (0, 100)


def test_rules_and_shades_are_shapes_by_name() -> None:
    shapes = figure_of(Rule("mean", 5.0, BLUE, spread=1.0), Shade("few", 1, 3), Rule("", 2.0, BLUE, axis="x"))
    mean, few, best = shapes["layout"]["shapes"]
    assert (mean["y0"], mean["y1"], mean["name"]) == (4, 6, "mean")
    assert (few["x0"], few["x1"]) == (1, 3)
    assert (best["x0"], best["x1"], best["yref"]) == (2, 2, "paper")


def test_bars_have_colours_and_error_bars() -> None:
    (bars,) = figure_of(Bars("", np.arange(2), np.array([1.0, 2.0]), ["#111111", "#222222"], 0.5, np.ones(2)))["data"]
    assert (bars["y"], bars["marker"]["color"], bars["error_y"]["array"]) == ([1, 2], ["#111111", "#222222"], [1, 1])


def test_a_name_cannot_leave_the_element_that_holds_it() -> None:
    text = panel_json(Panel("", "</script>", "", [Line("<b>&", np.zeros(1), np.zeros(1), BLUE)]), 10)
    assert "<" not in text
    found = json.loads(text)
    assert found["data"][0]["name"] == "&lt;b&gt;&amp;"


@pytest.mark.parametrize(("x", "ticks"), [([1, 2, 3], [1, 2, 3]), ([5], [5]), ([1, 40], None)])
def test_short_axes_of_whole_numbers_are_marked_by_whole_numbers(x: list[int], ticks: list[int] | None) -> None:
    axis = figure_of(Line("a", np.array(x), np.zeros(len(x)), BLUE))["layout"]["xaxis"]
    assert axis.get("tickvals") == ticks
