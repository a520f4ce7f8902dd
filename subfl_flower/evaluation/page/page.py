"""One HTML page on runs that needs no other file and no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from html import escape
from importlib.metadata import version
from importlib.resources import files

import yaml

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.charts.analysis_charts import analysis_charts
from subfl_flower.evaluation.charts.chart import Chart
from subfl_flower.evaluation.charts.run_charts import run_charts, title
from subfl_flower.evaluation.formats import human_bytes, scale, shown
from subfl_flower.evaluation.page.origin import origin_table, software
from subfl_flower.evaluation.page.parts import contents_part, facts_part, figure_part, folded_part, table_part
from subfl_flower.evaluation.round_time import round_time
from subfl_flower.evaluation.rows import Row, flatten
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.table import Table

# Points of a line: of the figures over runs, and of all figures of single runs together.
_POINTS = 400
_ALL_RUNS = 24_000


@dataclass(frozen=True)
class Report:
    """Everything that a page shows.

    Attributes:
        command: the command line that made it.
        rows: the rows of the main table.
        runs: the runs, with a folded section each.
        tables: tables by heading.
        charts: figures over the runs.
    """

    command: str
    rows: Sequence[Row]
    runs: Sequence[Run]
    tables: Mapping[str, Table] = field(default_factory=dict)
    charts: Sequence[Chart] = ()


def render_page(report: Report) -> str:
    """The page's text.

    Raises:
        SubflError: plotly, which draws the figures, is not installed.
    """
    own = files("subfl_flower.evaluation.page")
    style, script = ((own / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    heading = _heading(report.runs)
    sections = [(f"table-{place}", name) for place, name in enumerate(report.tables)]
    sections += [(f"figure-{chart.name}", chart.title) for chart in report.charts]
    sections += [("runs", "Runs" if len(report.runs) > 1 else "The run"), ("origin", "Data and protocol")]
    parts = [f"<h1>{escape(heading)}</h1>", _facts(report), contents_part(sections), "<main>"]
    for (address, name), table in zip(sections, report.tables.values(), strict=False):
        parts.append(f"<h2 id='{address}'>{escape(name)}</h2>{table_part(table)}")
    parts += [f"<h2>Figures</h2>{_HINT}"] if report.charts else []
    parts += [figure_part(chart, _POINTS, f"figure-{chart.name}") for chart in report.charts]
    parts.append(f"<h2 id='runs'>{'Runs' if len(report.runs) > 1 else 'The run'}</h2>")
    parts += _runs(report.runs)
    parts.append(f"<h2 id='origin'>Data and protocol</h2>{table_part(origin_table(report.rows))}</main>")
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'><link rel='icon' href='data:,'>"
        f"<title>{escape(heading)}</title><style>{style}</style></head>\n<body>\n{body}\n"
        f"<script>{_plotly()}</script><script>{script}</script></body></html>\n"
    )


_HINT = (
    "<p class='soft'>Hover for values, drag to zoom, double-click to zoom out; an entry of a legend hides or shows "
    "its lines.</p>"
)


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise SubflError("--html needs a package that is not installed: pip install 'subfl-flower[plots]'") from None
    library: str = get_plotlyjs()
    return library


def _heading(runs: Sequence[Run]) -> str:
    if len(runs) == 1:
        return title(runs[0])
    methods = list(dict.fromkeys(run.method for run in runs))
    named = ", ".join(methods) if len(methods) <= 4 else f"{len(methods)} methods"
    return f"{named} on {', '.join(dict.fromkeys(run.dataset for run in runs))}: {len(runs)} runs"


def _facts(report: Report) -> str:
    dates = sorted(date for run in report.runs if (date := run.directory.finished))
    facts = [("command", f"<code>{escape(report.command)}</code>")]
    facts.append(("written", f"{datetime.now():%Y-%m-%d %H:%M} by subfl-flower {escape(version('subfl-flower'))}"))
    if dates:
        ends = dict.fromkeys(f"{date:%Y-%m-%d %H:%M}" for date in (dates[0], dates[-1]))
        facts.append(("runs finished", escape(" to ".join(ends))))
    return facts_part([*facts, *((name, escape(value)) for name, value in software(report.runs))])


def _runs(runs: Sequence[Run]) -> list[str]:
    flat = {run.path: flatten(run.config) for run in runs}
    settings = list(flat.values())
    shared = {
        key: value
        for key, value in settings[0].items()
        if all(key in other and other[key] == value for other in settings)
    }
    points = max(60, min(_POINTS, _ALL_RUNS // len(runs)))
    parts = []
    for place, run in enumerate(runs):
        own = {key: value for key, value in flat[run.path].items() if key not in shared}
        parts.append(_run(run, own, points, f"run-{place}", len(runs) == 1))
    about = "configuration" if len(runs) == 1 else "settings that all runs share"
    return [*parts, folded_part(about, f"<pre>{escape(_yaml(shared))}</pre>")]


def _run(run: Run, own_settings: Mapping[str, object], points: int, address: str, is_open: bool) -> str:
    result, word = run.values[run.judged_by], "validation" if run.development else "test"
    found = "" if result is None else f": {word} {shown(scale(run.metric) * result, run.metric)}"
    inner = [f"<p class='soft'>{escape(str(run.path))}</p>"]
    for exchange in run.figures.get("exchanges") or []:
        up, down = (human_bytes(exchange[f"bytes_{way}"]) for way in ("up", "down"))
        words = f"{exchange['action']}, outside of rounds: {up} up, {down} down, {exchange['seconds']:.3g} s"
        inner.append(f"<p>{escape(words)}</p>")
    if sentence := round_time(run):
        inner.append(f"<p>{escape(sentence)}</p>")
    charts = [*run_charts(run), *analysis_charts(run.directory.analysis() or {}, title(run))]
    inner += [figure_part(chart, points) for chart in charts]
    if own_settings:
        inner.append(f"<h3>settings of this run</h3><pre>{escape(_yaml(own_settings))}</pre>")
    return folded_part(f"{title(run)}{found}", "".join(inner), address, is_open)


def _yaml(settings: Mapping[str, object]) -> str:
    return yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True)
