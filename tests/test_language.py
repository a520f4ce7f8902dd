"""Rules on prose: docstrings begin with a noun or a verb, and pages with something that a reader can do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("subfl_flower", "clients", "strategies", "benchmarks", "examples", "tests")

OPENINGS = ("What", "Whether", "Who", "Whom", "Whose", "Which", "Adds", "And", "As in", "The same", "Nothing")
_OPENING = re.compile(rf"(?:{'|'.join(OPENINGS)})\b")
_MANNERISM = re.compile(r"\bof (?:its|their|one's) own\b|\banew\b")


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of all docstrings, of attributes included."""
    for node in ast.walk(ast.parse(source)):
        for each in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            text = each.value.value if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant) else None
            if isinstance(text, str):
                yield each.lineno, text.strip()


def discouraged(text: str) -> list[str]:
    """First lines of docstrings that begin with a word that makes a clause of them, and mannerisms."""
    found = []
    for line, words in docstrings(text):
        if _OPENING.match(words) or _MANNERISM.search(" ".join(words.split())):
            found.append(f"{line}: {words.splitlines()[0]}")
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_begin_with_a_noun_or_a_verb(folder: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path in sorted((ROOT / folder).rglob("*.py"))
        if (lines := discouraged(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("What a run leaves.", 1),
        ("As in the paper.", 1),
        ("The same, with weights.", 1),
        ("A folder of its own.", 1),
        ("Files that a run leaves.", 0),
        ("Whatever comes first.", 0),
        ("Assign nodes to clients.", 0),
        ("Android users.", 0),
    ],
)
def test_discouraged_openings_are_told_from_others(docstring: str, expected: int) -> None:
    assert len(discouraged(f'def f():\n    """{docstring}"""\n')) == expected
    assert len(discouraged(f'class A:\n    x: int = 1\n    """{docstring}"""\n')) == expected


PAGES = sorted([ROOT / "README.md", *ROOT.glob("C*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_sentences_of_pages_do_not_begin_with_a_clause(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    wrong = [line for line in prose.splitlines() if re.match(r"(?:[-*] )?(?:What|Whether|Which) .*[^?]$", line)]
    assert wrong == []
