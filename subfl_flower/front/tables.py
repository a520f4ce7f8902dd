"""Small tables of a notebook, as HTML without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape


def html_table(rows: Mapping[str, object]) -> str:
    """A table of two columns, all text escaped.

    Args:
        rows: the values by their names.
    """
    lines = (f"<tr><th>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in rows.items())
    return f"<table><tbody>{''.join(lines)}</tbody></table>"


def html_rows(heads: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """A table with a line of heads, all text escaped."""
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in line) + "</tr>" for line in lines)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
