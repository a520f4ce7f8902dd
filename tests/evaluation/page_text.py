"""Text of a page."""

import html
import re


def heads_and_cells(page: str) -> str:
    """Heads and cells of all tables, separated by bars."""
    found = re.findall(r"<button type='button'>(.*?)</button></th>|<td[^>]*>(.*?)</td>", page)
    return "|".join(html.unescape(head or cell) for head, cell in found)
