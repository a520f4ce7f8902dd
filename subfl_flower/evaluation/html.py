"""The report as one HTML page that needs no other file and no network."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import yaml

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.curves import Curve, curve_table
from subfl_flower.evaluation.formats import human_bytes
from subfl_flower.evaluation.main_table import main_table
from subfl_flower.evaluation.plots import title
from subfl_flower.evaluation.round_time import round_time
from subfl_flower.evaluation.rows import Row
from subfl_flower.evaluation.runs import Run
from subfl_flower.evaluation.table import Table
from subfl_flower.evaluation.target import target_table

_CSS = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
.wide { overflow-x: auto } table { border-collapse: collapse }
th, td { padding: .35rem .8rem; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap }
th { border-bottom: 2px solid #888 } tr.partial td { background: #fff6dc }
img { max-width: 100%; display: block; margin: 1rem 0 }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 13px } .path { color: #666 }
"""


def render_page(
    rows: Sequence[Row],
    runs: Sequence[Run],
    plots: Mapping[Path, Sequence[Path]],
    comparison: Path | None,
    curves: Sequence[Curve] = (),
    key: str = "",
    curve_plot: Path | None = None,
    reach: float | None = None,
) -> str:
    """The page's text.

    Args:
        rows: the table.
        runs: runs, with one section each.
        plots: PNG files by run directory, embedded as base64.
        comparison: the PNG file of the comparison, if there is one.
        curves: a second table, with a column a value of `key`.
        key: the configuration key of the curves' horizontal axis.
        curve_plot: the PNG file of the curves, if there is one.
        reach: adds a table of rounds and bytes up to this share of the final test metric.

    Raises:
        SubflError: a PNG file cannot be read.
    """
    parts = ["<h1>subfl report</h1>", _table(main_table(rows, collapse=True))]
    if comparison is not None:
        parts.append(_image(comparison, "test metric of the methods by round"))
    if curves:
        parts.append(f"<h2>{escape(key)}</h2>")
        parts.append(_table(curve_table(curves, key, collapse=True)))
    if curve_plot is not None:
        parts.append(_image(curve_plot, f"test metric of the methods by {key}"))
    if reach is not None:
        parts.append(f"<h2>{100 * reach:g} % of the final test metric</h2>")
        parts.append(_table(target_table(rows, reach, collapse=True)))
    for run in runs:
        parts.append(f"<h2>{escape(title(run))}</h2><p class='path'>{escape(str(run.path))}</p>")
        parts.extend(_image(path, f"{path.stem} of {title(run)}") for path in plots.get(run.path, ()))
        parts.extend(_exchange(exchange) for exchange in run.figures.get("exchanges") or [])
        if sentence := round_time(run):
            parts.append(f"<p>{escape(sentence)}</p>")
        settings = yaml.safe_dump(dict(run.config), sort_keys=False, allow_unicode=True)
        parts.append(f"<details><summary>configuration</summary><pre>{escape(settings)}</pre></details>")
    body = "\n".join(parts)
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>subfl report</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_CSS}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in table.heads)
    body = "".join(
        f"<tr{'' if completed else ' class=partial'}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in line)
        + "</tr>\n"
        for completed, line in zip(table.whole, table.lines, strict=True)
    )
    shared = f"<p>{escape(table.title)}</p>" if table.title else ""
    text = f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}</tbody></table>"
    return f"{shared}<div class='wide'>{text}</div>"


def _exchange(exchange: Mapping[str, Any]) -> str:
    up, down = (human_bytes(exchange[f"bytes_{way}"]) for way in ("up", "down"))
    words = f"{exchange['action']}, outside of rounds: {up} up, {down} down, {exchange['seconds']:.3g} s"
    return f"<p>{escape(words)}</p>"


def _image(path: Path, description: str) -> str:
    try:
        content = base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise SubflError(f"cannot read {path}: {error.strerror or error}") from None
    return f"<img alt='{escape(description, quote=True)}' src='data:image/png;base64,{content}'>"
