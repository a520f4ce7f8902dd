"""Boxes of a drawn figure."""

from itertools import pairwise
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox


def assert_nothing_hides_anything(figure: Figure) -> None:
    """Axes with their labels, legend and title lie inside of the figure and apart; so do the labels of ticks."""
    figure.draw_without_rendering()
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    boxes.append(figure._suptitle.get_window_extent(renderer))  # type: ignore[attr-defined]
    for place, box in enumerate(boxes):
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1
        for other in boxes[:place]:
            both = Bbox.intersection(box, other)
            assert both is None or min(both.width, both.height) < 1  # a rounding's worth of a pixel
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = [label.get_window_extent(renderer) for label in axis.get_ticklabels() if label.get_visible()]
            ends = sorted((box.x0, box.x1) if axis is axes.xaxis else (box.y0, box.y1) for box in ticks)
            assert all(one[1] <= two[0] + 1 for one, two in pairwise(ends))
