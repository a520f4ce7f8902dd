"""Code and commands of the pages in docs/, as a reader takes them over into a folder of his own."""

from __future__ import annotations

import ast
import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page in a language; commands are those in none."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    return [content for name, content in found if name == language]


def write_method(folder: Path) -> Path:
    """Write the method of the page on methods into a folder."""
    (folder / "conf" / "method").mkdir(parents=True)
    (folder / "fedgta.py").write_text(blocks("new_method.md", "python")[0])
    (folder / "conf" / "method" / "fedgta.yaml").write_text(blocks("new_method.md", "yaml")[0])
    return folder


def modules() -> dict[str, str]:
    """Modules of the page on other classes, by the path that the first line of each states."""
    found = [block.removeprefix("# ").partition("\n") for block in blocks("your_code.md", "python")]
    return {name: content for name, _, content in found}


def write_modules(folder: Path) -> Path:
    """Write these modules, and the choice of a data set, into a folder."""
    name, _, content = blocks("your_code.md", "yaml")[0].removeprefix("# ").partition("\n")
    for path, text in {**modules(), name: content}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
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
