"""The notebooks of examples/ run from top to bottom, with one round, and are stored without outputs."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
VALUE = "_value_of_the_last_line"


def cells(notebook: Path) -> list[dict[str, Any]]:
    content = json.loads(notebook.read_text())
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    found: list[dict[str, Any]] = content["cells"]
    return found


def code_of(notebook: Path) -> list[str]:
    return ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]


def carried_out(source: str, names: dict[str, Any]) -> Any:
    """Carry out a cell; the value of its last line, if that is an expression, shown as a notebook shows it."""
    tree = ast.parse(source)
    if isinstance(tree.body[-1], ast.Expr):
        tree.body[-1] = ast.Assign([ast.Name(VALUE, ast.Store())], tree.body[-1].value)
    names[VALUE] = None
    exec(compile(ast.fix_missing_locations(tree), source, "exec"), names)
    value = names[VALUE]
    for shown in ("_repr_html_", "__repr__"):
        if hasattr(value, shown):
            getattr(value, shown)()
    return value


def test_there_are_three() -> None:
    assert [notebook.stem for notebook in NOTEBOOKS] == ["compare_methods", "recommendation", "your_own_data"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_runs_from_top_to_bottom(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, Any] = {}
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(io.StringIO()):
        values = [carried_out(re.sub(r"\brounds=\d+", "rounds=1", source), names) for source in code_of(notebook)]
    assert sum(value is not None for value in values) >= 5


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_it_is_stored_without_outputs_and_each_cell_has_a_name(notebook: Path) -> None:
    found = cells(notebook)
    for cell in found:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
        else:
            assert cell["cell_type"] == "markdown" and {"outputs", "execution_count"}.isdisjoint(cell)
    assert len({cell["id"] for cell in found}) == len(found)
    assert found[0]["source"][0].startswith("# ")
