"""Parts of a page: tables, figures with their legends, and lists of facts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from subfl_flower.evaluation.charts.chart import Bars, Chart, Heat, Line, Mark, Rule
from subfl_flower.evaluation.charts.interactive import panel_json
from subfl_flower.evaluation.table import Table

# Figures with more panels are folded.
_MOST_PANELS = 6
_DASHES = {"solid": "", "dash": "6 3", "dot": "2 3", "dashdot": "6 3 2 3"}
_SHAPES = {
    "circle": "<circle cx='12' cy='6' r='4'/>",
    "circle-open": "<circle cx='12' cy='6' r='3.5' fill='none'/>",
    "square": "<path d='M8 2h8v8H8z'/>",
    "diamond": "<path d='M12 1l5 5-5 5-5-5z'/>",
    "triangle-up": "<path d='M12 1l5 9H7z'/>",
    "triangle-down": "<path d='M12 11l5-9H7z'/>",
    "pentagon": "<path d='M12 1l5 4-2 6H9L7 5z'/>",
    "x": "<path d='M8 2l8 8m0-8l-8 8' stroke-width='2.5'/>",
    "star": "<path d='M12 0l1.6 4.2L18 4.4l-3.5 2.8L15.7 12 12 9.3 8.3 12l1.2-4.8L6 4.4l4.4-.2z'/>",
}


def table_part(table: Table) -> str:
    """A table that sorts by a click on a head, in a box that scrolls where it is too wide."""
    heads = "".join(
        f"<th scope='col'{_class(_sticky(head))}{_first(table, head)}>"
        f"<button type='button'>{escape(head)}</button></th>"
        for head in table.heads
    )
    body = "\n".join(_line(table, place) for place in range(len(table.cells)))
    title = f"<p class='soft'>{escape(table.title)}</p>" if table.title else ""
    return (
        f"{title}<div class='wide' tabindex='0' role='region' aria-label='{escape(table.title or 'table')}'>"
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def figure_part(chart: Chart, points: int, address: str = "") -> str:
    """A figure: caption, a legend whose entries hide and show, and its panels.

    Args:
        chart: the figure.
        points: the most points of a line, and cells of a heat map.
        address: id of the element; empty for none.
    """
    entries = _legend(chart)
    caption = f"<figcaption>{escape(chart.title)}</figcaption>"
    note = f"<p class='soft'>{escape(chart.legend)}</p>" if chart.legend else ""
    legend = f"<div class='legend' role='group' aria-label='legend'>{entries}</div>" if entries else ""
    panels = "".join(
        f"<div class='panel'>{f'<h4>{escape(panel.title)}</h4>' if panel.title else ''}"
        f"<div class='plot' role='img' aria-label='{escape(f'{chart.title}: {panel.title}')}'></div>"
        f"<script type='application/json'>{panel_json(panel, points)}</script></div>"
        for panel in chart.panels
    )
    many = len(chart.panels) > _MOST_PANELS
    identity = f" id='{address}'" if address and not many else ""
    figure = f"<figure{identity}>{caption}{note}{legend}<div class='panels'>{panels}</div></figure>"
    return folded_part(f"{chart.title}: {len(chart.panels)} panels", figure, address) if many else figure


def folded_part(summary: str, inner: str, address: str = "", is_open: bool = False) -> str:
    """Markup that unfolds below a summary."""
    identity = f" id='{address}'" if address else ""
    return f"<details{identity}{' open' if is_open else ''}><summary>{escape(summary)}</summary>{inner}</details>"


def facts_part(facts: Iterable[tuple[str, str]]) -> str:
    """A list of names and values; values may hold markup, names are plain text."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in facts) + "</dl>"


def contents_part(sections: Sequence[tuple[str, str]]) -> str:
    """Links to the sections, by address and title."""
    links = "".join(f"<li><a href='#{address}'>{escape(title)}</a></li>" for address, title in sections)
    return f"<nav aria-label='contents'><ul>{links}</ul></nav>"


def _first(table: Table, head: str) -> str:
    """Numbers are sorted from the highest first, words from the first."""
    return " data-first='descending'" if head in table.keys else ""


def _line(table: Table, place: int) -> str:
    cells = []
    for head in table.heads:
        text, attributes = escape(table.cells.iloc[place][head]), ""
        classes = _sticky(head)
        if head in table.keys:
            key = table.keys.iloc[place][head]
            attributes = f" data-key='{'' if math.isnan(key) else f'{key:.10g}'}'".replace("inf", "Infinity")
            classes.append("number")
        if (place, head) in table.best:
            classes.append("best")
        cells.append(f"<td{attributes}{_class(classes)}>{text}</td>")
    return f"<tr{'' if table.whole[place] else ' class=partial'}>{''.join(cells)}</tr>"


def _sticky(head: str) -> list[str]:
    """Class of the column that stays in sight where the table is scrolled."""
    return ["method"] if head == "method" else []


def _class(names: Sequence[str]) -> str:
    return f" class='{' '.join(names)}'" if names else ""


def _legend(chart: Chart) -> str:
    """A button for each name, with its look."""
    marks: dict[str, Mark] = {}
    for panel in chart.panels:
        for mark in panel.marks:
            if not isinstance(mark, Heat) and mark.name:
                marks.setdefault(mark.name, mark)
    return "".join(
        f"<button type='button' aria-pressed='true' data-name='{escape(escape(name))}'>{_swatch(mark)}"
        f"{escape(name)}</button>"
        for name, mark in marks.items()
    )


def _swatch(mark: Mark) -> str:
    inner, colour = "<path d='M2 1h20v10H2z' stroke='none'/>", "#88888855"
    if isinstance(mark, Bars):
        colour = mark.colours if isinstance(mark.colours, str) else mark.colours[0]
    elif isinstance(mark, Line | Rule):
        colour, look = mark.look.colour, mark.look
        line = f"<path d='M0 6h24' stroke-width='2' stroke-dasharray='{_DASHES.get(look.dash, '')}'/>"
        inner = (line if look.dash else "") + _SHAPES.get(look.marker, "")
    return f"<svg width='24' height='12' aria-hidden='true' fill='{colour}' stroke='{colour}'>{inner}</svg>"
