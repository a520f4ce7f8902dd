"""Marks of a chart by name."""

from __future__ import annotations

from subfl_flower.evaluation.charts.chart import Bars, Chart, Heat, Line, Mark, Panel, Rule


def panel(chart: Chart) -> Panel:
    """The only panel of a chart."""
    (found,) = chart.panels
    return found


def marks(chart: Chart) -> list[Mark]:
    """All marks."""
    return [mark for each in chart.panels for mark in each.marks]


def names(chart: Chart) -> list[str]:
    """Entries of the legend, each once."""
    named = [mark.name for mark in marks(chart) if not isinstance(mark, Heat)]
    return list(dict.fromkeys(filter(None, named)))


def line(chart: Chart, name: str) -> Line:
    """The only line of a name."""
    (found,) = (mark for mark in marks(chart) if isinstance(mark, Line) and mark.name == name)
    return found


def bars(chart: Chart) -> Bars:
    """The only bars."""
    (found,) = (mark for mark in marks(chart) if isinstance(mark, Bars))
    return found


def rule(chart: Chart, name: str) -> Rule:
    """The only rule of a name."""
    (found,) = (mark for mark in marks(chart) if isinstance(mark, Rule) and mark.name == name)
    return found


def heats(chart: Chart) -> list[Heat]:
    """All heat maps."""
    return [mark for mark in marks(chart) if isinstance(mark, Heat)]
