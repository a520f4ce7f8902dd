"""Hooks of MkDocs: fill in the generated tables, and turn links that leave docs/ into links to the repository."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from api_reference import api_reference  # type: ignore[import-not-found]  # noqa: E402
from commands import commands_table  # type: ignore[import-not-found]  # noqa: E402
from configuration import configuration_tables, method_table  # type: ignore[import-not-found]  # noqa: E402
from contracts import contract_table  # type: ignore[import-not-found]  # noqa: E402
from threats import threat_table  # type: ignore[import-not-found]  # noqa: E402

_DOCS = Path(__file__).parents[1]
_TABLES = {
    "commands": commands_table,
    "contracts": contract_table,
    "configuration": configuration_tables,
    "methods": method_table,
    "reference": api_reference,
    "threats": threat_table,
}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in tables at their comments (``<!-- contracts -->``), and mend links out of the folder.

    Args:
        markdown: text of the page.
        page: of MkDocs.
        config: of MkDocs; its ``repo_url`` is where the files outside of docs/ are.
        files: of MkDocs.
    """
    for name, table in _TABLES.items():
        comment = f"<!-- {name} -->"
        if comment in markdown:
            markdown = markdown.replace(comment, table())
    here = _DOCS / Path(page.file.src_uri).parent

    def link(match: re.Match[str]) -> str:
        target = (here / match[1]).resolve()
        if target.is_relative_to(_DOCS) or not target.exists():
            return match[0]
        kind = "tree" if target.is_dir() else "blob"
        place = target.relative_to(_DOCS.parent).as_posix()
        return f"]({config.repo_url.rstrip('/')}/{kind}/main/{place}{match[2] or ''})"

    return re.sub(r"\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)", link, markdown)
