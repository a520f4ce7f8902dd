"""The files of the page on methods of one's own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "new_method.md"


def block(language: str) -> str:
    """The first block of the page in a language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return found[0]


def write_method(folder: Path) -> Path:
    """Write the page's method into a folder, as a user has it."""
    (folder / "conf" / "method").mkdir(parents=True)
    (folder / "fedgta.py").write_text(block("python"))
    (folder / "conf" / "method" / "fedgta.yaml").write_text(block("yaml"))
    return folder


def lines_of_code(code: str) -> int:
    """Lines without blanks, imports and docstrings."""
    tree, left_out = ast.parse(code), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            text = node.body[0]
            left_out |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    lines = enumerate(code.splitlines(), start=1)
    return sum(bool(line.strip()) and number not in left_out for number, line in lines)
