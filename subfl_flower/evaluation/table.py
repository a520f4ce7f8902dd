"""The table of a report: for the terminal, Markdown, HTML and CSV."""

import csv
import math
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import Row, Spread
from subfl_flower.evaluation.summary import lower_is_better, number

MISSING = "–"
_MAJORITY, _MACRO_F1, _BALANCED = "test.majority", "test.macro_f1", "test.balanced_accuracy"
_CLASS_FIGURES = (_MAJORITY, _MACRO_F1, _BALANCED, "test.one_class")
_WORTH = ("worst_client", "bias_row", "popularity", "user_level_epsilon")
_HEAD_WIDTH = 7
_MEASURES = {"hr": "HR", "ndcg": "NDCG", "full_hr": "full HR"}


def cells(rows: Sequence[Row], collapse: bool) -> tuple[str, list[str], list[list[str]]]:
    """The table as text: title, column heads, rows.

    Args:
        rows: result of `build_rows`.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
    """
    further = _further(rows)
    floors = [_floors(row) for row in rows]
    known = [name for name in floors[0] if any(found[name] != MISSING for found in floors)]
    worths = [{**_floor_cells(found, known), **_worth(row)} for found, row in zip(floors, rows, strict=True)]
    lines = [
        {
            **identity(row),
            "seeds": str(len(row.counted)),
            "test at best validation": metric_text(row.spread("test_at_best_validation"), row.metric),
            "as received": metric_text(row.spread("test_as_received_at_best_validation"), row.metric),
            **{head: metric_text(row.further(figure), figure) for figure, head in further.items()},
            **worth,
            "best round": spread_text(row.spread("best_round"), 1.0, 0),
            "model size": _model_size(row),
            "up": human_bytes(row.spread("bytes_up")),
            "down": human_bytes(row.spread("bytes_down")),
            "exchanged": _exchanged(row),
            "bytes vs FedAvg": MISSING if row.relative_bytes is None else f"{100 * row.relative_bytes:.1f} %",
            "s / round": MISSING if row.seconds_per_round is None else f"{row.seconds_per_round.mean:.3g}",
            "note": row.note,
        }
        for row, worth in zip(rows, worths, strict=True)
    ]
    optional = {"settings", "note", "as received", "model size", "exchanged", "bytes vs FedAvg", *worths[0]}
    return layout(lines, optional, collapse)


def _floors(row: Row) -> dict[str, str]:
    """Results of baselines without learning, to compare a row's result with, by name."""
    found = {"majority class": row.further(_MAJORITY), "bias row": row.bias_row, "popularity": row.popularity}
    return {name: metric_text(spread, row.metric) for name, spread in found.items()}


def _floor_cells(found: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    """A row's floors as columns: the only floor of a table under its name, several floors as one column."""
    if len(known) < 2:
        return {name: found[name] for name in known}
    named = [f"{text} ({name})" for name, text in found.items() if text != MISSING]
    return {"floor": ", ".join(named) or MISSING}


def _worth(row: Row) -> dict[str, str]:
    """Figures that the mean of the metric hides, and the privacy loss."""
    macro_f1, balanced = (metric_text(row.further(figure), figure) for figure in (_MACRO_F1, _BALANCED))
    return {
        "macro-F1 (balanced accuracy)": MISSING if macro_f1 == MISSING else f"{macro_f1} ({balanced})",
        "worst client": metric_text(row.worst_client, row.metric),
        "user-level epsilon": _epsilon(row),
    }


def _epsilon(row: Row) -> str:
    """The user-level epsilon, with its delta where all runs have the same one above 0."""
    found = row.user_level_epsilon
    if found is None or math.isinf(found.mean):
        return MISSING if found is None else "no bound"
    text = f"{found.mean:.4g}" if found.std is None else f"{found.mean:.4g} ± {found.std:.2g}"
    deltas = {number(run.figures["privacy"].get("delta")) for run in row.counted}
    delta = deltas.pop()
    return text if deltas or not delta else f"{text} (delta {delta:g})"


def _model_size(row: Row) -> str:
    """Bytes of a client's model, and the share of its weights that remain after pruning."""
    kept = row.weights_kept
    size = human_bytes(row.model_bytes)
    return size if kept is None or size == MISSING else f"{size} ({100 * kept.mean:.0f} % kept)"


def _exchanged(row: Row) -> str:
    """Bytes exchanged outside of rounds, if any."""
    found = row.bytes_exchanged
    return human_bytes(found) if found and found.mean else MISSING


def _further(rows: Sequence[Row]) -> dict[str, str]:
    """Further ranking figures that the rows have, at the metrics' cutoffs, with their column heads."""
    metrics = {row.metric for row in rows}
    found: dict[str, str] = {}
    for cutoff in dict.fromkeys(row.metric.partition("@")[2] for row in rows if "@" in row.metric):
        found |= {f"test.{name}@{cutoff}": f"{head}@{cutoff}" for name, head in _MEASURES.items()}
    return {
        figure: head
        for figure, head in found.items()
        if metrics != {figure.removeprefix("test.")} and any(row.further(figure) for row in rows)
    }


def layout(
    lines: Sequence[Mapping[str, str]], optional: Collection[str], collapse: bool
) -> tuple[str, list[str], list[list[str]]]:
    """Cells by column head as title, column heads, rows.

    Args:
        lines: at least one row, all with the same heads.
        optional: heads of columns that are left out where they are empty in all rows.
        collapse: put columns in which all rows agree (the data, mostly) into the title.
    """
    heads = [
        head for head in lines[0] if head not in optional or any(line[head] not in ("", MISSING) for line in lines)
    ]
    shared = [
        head
        for head in ("dataset", "partition", "clients", "metric")
        if collapse and all(line[head] == lines[0][head] for line in lines)
    ]
    title = ", ".join(lines[0][head] + (" clients" if head == "clients" else "") for head in shared)
    heads = [head for head in heads if head not in shared]
    return title, heads, [[line[head] for head in heads] for line in lines]


def rich_table(rows: Sequence[Row]) -> Table:
    """The table for a terminal."""
    return rich_layout(*cells(rows, collapse=True), [row.completed for row in rows])


def rich_layout(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]], whole: Sequence[bool]) -> Table:
    """Laid out cells for a terminal, as narrow as possible: settings stand under the method, and heads are broken.

    Args:
        title: title above the table.
        heads: column heads.
        lines: rows.
        whole: for each row, true if its runs were completed; the others are marked by colour.
    """
    table = Table(
        title=title or None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
    )
    words = ("dataset", "partition", "metric", "method", "note")
    for head in heads:
        if head in words:
            table.add_column(head)
        elif head != "settings":
            words_of_head = textwrap.wrap(head, _HEAD_WIDTH, break_long_words=False, break_on_hyphens=False)
            table.add_column("\n".join(words_of_head), justify="right", no_wrap=True)
    for completed, line in zip(whole, lines, strict=True):
        text = dict(zip(heads, line, strict=True))
        if settings := text.pop("settings", ""):
            text["method"] += "\n  " + settings.replace(", ", "\n  ")
        shown = (cell if head in words else cell.replace(" (", "\n(") for head, cell in text.items())
        table.add_row(*shown, style=None if completed else "yellow")
    return table


def markdown_table(rows: Sequence[Row]) -> str:
    """The table in Markdown, every column spelt out."""
    return markdown_layout(*cells(rows, collapse=False)[1:])


def markdown_layout(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Laid out cells in Markdown."""
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (heads, *lines)]
    rule = ["---"] * len(heads)
    return "\n".join("| " + " | ".join(line) + " |" for line in (escaped[0], rule, *escaped[1:]))


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Write the table as CSV with plain numbers: fractions, bytes, seconds; empty where unknown."""
    heads = ["dataset", "partition", "clients", "method", "settings", "metric", "runs", "seeds", "status"]
    figures = ["test_at_best_validation", "test_as_received_at_best_validation", "test_last", "best_round"]
    figures += ["bytes_up", "bytes_down"]
    further = [*_further(rows), *(name for name in _CLASS_FIGURES if any(row.further(name) for row in rows))]
    worth = [name for name in _WORTH if any(getattr(row, name) for row in rows)]
    heads += [f"{name}_{part}" for name in (*figures, *further, *worth) for part in ("mean", "std")]
    heads += ["model_bytes", "weights_kept", "bytes_exchanged", "bytes_relative_to_fedavg", "seconds_per_round"]
    heads += ["note", "directories"]
    lines = []
    for row in rows:
        line: list[Any] = [*row.data, row.method, row.settings, row.metric, len(row.counted)]
        line += [" ".join(str(run.seed) for run in row.counted)]
        line += [" ".join(sorted({run.status for run in row.runs}))]
        for name in figures:
            line += row.spread(name) or (None, None)
        for name in further:
            line += row.further(name) or (None, None)
        for name in worth:
            line += getattr(row, name) or (None, None)
        means = [found.mean if found else None for found in (row.model_bytes, row.weights_kept, row.bytes_exchanged)]
        seconds = row.seconds_per_round
        line += [*means, row.relative_bytes, seconds.mean if seconds else None, row.note]
        lines.append([*line, " ".join(str(run.path) for run in row.runs)])
    write_lines(heads, lines, path)


def write_lines(heads: Sequence[str], lines: Iterable[Sequence[Any]], path: Path) -> None:
    """Write a head and lines as CSV; SubflError where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows((heads, *lines))
    except OSError as error:
        raise SubflError(f"cannot write {path}: {error.strerror or error}") from None


def scale(metric: str) -> float:
    """Factor from a stored to a displayed value: 100 for fractions, 1 for errors, which have a unit."""
    return 1.0 if lower_is_better(metric) else 100.0


def unit_suffix(metric: str) -> str:
    """Suffix of a metric's name that gives the unit of its values."""
    return "" if lower_is_better(metric) else " (%)"


def axis_text(metric: str) -> str:
    """The axis label of a metric over all clients; an error is over all their ratings together."""
    over = "over all clients' ratings" if lower_is_better(metric) else "mean over clients"
    return f"{metric}{unit_suffix(metric)}, {over}"


def human_bytes(spread: Spread | None) -> str:
    """A mean number of bytes in decimal units: 999 B, 1.50 kB, 23.4 MB."""
    if spread is None:
        return MISSING
    size = spread.mean
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def identity(row: Row) -> dict[str, str]:
    """The columns that identify a row: data, metric, method, settings."""
    return {
        "dataset": row.data[0],
        "partition": row.data[1],
        "clients": row.data[2],
        "metric": row.metric + unit_suffix(row.metric),
        "method": row.method,
        "settings": row.settings,
    }


def metric_text(spread: Spread | None, metric: str) -> str:
    """Mean and deviation of a metric in its unit: two decimals of a percentage, four of an error."""
    return spread_text(spread, scale(metric), 4 if lower_is_better(metric) else 2)


def spread_text(spread: Spread | None, factor: float, digits: int) -> str:
    """`mean ± deviation` of values times `factor`; the mean alone of one value."""
    if spread is None:
        return MISSING
    mean = f"{factor * spread.mean:.{digits}f}"
    return mean if spread.std is None else f"{mean} ± {factor * spread.std:.{digits}f}"
