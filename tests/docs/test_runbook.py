"""The runbook and the code say the same sentences: none is missing, and none is left of code that is gone."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNBOOK = ROOT / "docs" / "runbook.md"
FLOWERS = "Flower's"
"""First word of the meaning of a sentence that Flower says."""

FAILURES = ("RunFailure", "TornStateError")
REFUSING = tuple(
    f"subfl_flower/{name}.py"
    for name in (
        "server/membership",
        "server/schema_fit",
        "trust/orders",
        "trust/site_records",
        "trust/app_code",
        "privacy/ledger",
    )
)
ELSEWHERE = (
    "subfl_flower/launch/",
    "subfl_flower/sweeps/",
    "subfl_flower/flower/inline_grid.py",
    "subfl_flower/flower/log.py",
)
"""Code that does not take part in a deployed run."""


def template(node: ast.AST) -> str | None:
    """The text of an expression, with … for each value; None where it is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        return "".join(template(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        parts = [template(part) for part in (node.left, node.right)]
        return None if parts == [None, None] else "".join(part or "…" for part in parts)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "one_line":
        return template(node.args[0])
    return None


def normal(sentence: str) -> str:
    """A sentence whose values, however they are written, are one … each."""
    sentence = re.sub(r"%(?:s|d|r|\.\d+f|\.\d+g)", "…", " ".join(sentence.split()))
    return re.sub(r"…(?:[ ]?…)+", "…", sentence)


@cache
def trees() -> dict[str, ast.Module]:
    paths = [path for name in ("subfl_flower", "clients", "strategies") for path in (ROOT / name).rglob("*.py")]
    found = {path.resolve().relative_to(ROOT).as_posix(): path for path in paths}
    return {name: ast.parse(path.read_text()) for name, path in found.items()}


@cache
def all_sentences() -> frozenset[str]:
    """Every text in the code."""
    nodes = (node for tree in trees().values() for node in ast.walk(tree))
    return frozenset(normal(text) for node in nodes if (text := template(node)))


def needed(path: str, tree: ast.Module) -> Iterator[str]:
    """Warnings, failures and refusals that a module says in a deployed run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            if node.func.id == "log" and len(node.args) > 1 and (text := template(node.args[1])):
                yield text
            if (node.func.id in FAILURES or (node.func.id == "SubflError" and path in REFUSING)) and (
                text := template(node.args[0])
            ):
                yield text
        if path in REFUSING and isinstance(node, ast.Return) and isinstance(node.value, ast.JoinedStr):
            yield template(node.value) or ""


def entries() -> list[tuple[str, str]]:
    """Sentence and meaning of each row."""
    rows = re.findall(r"^\| `(.+?)` \| (.+?) \| .+ \|$", RUNBOOK.read_text(), re.MULTILINE)
    assert len({sentence for sentence, _ in rows}) == len(rows) > 50
    return [(sentence, meaning) for sentence, meaning in rows]


def test_every_warning_failure_and_refusal_is_in_the_runbook() -> None:
    known = {normal(sentence) for sentence, _ in entries()}
    missing = [
        f"{path}: {sentence}"
        for path, tree in sorted(trees().items())
        if not path.startswith(ELSEWHERE)
        for text in needed(path, tree)
        if (sentence := normal(text)) not in known
        and len(re.sub(r"\W", "", sentence)) > 12
        and not sentence.startswith("cannot write")
    ]
    assert missing == []


def test_the_runbook_has_no_sentence_that_the_code_does_not_say() -> None:
    own = [sentence for sentence, meaning in entries() if not meaning.startswith(FLOWERS)]
    texts = all_sentences()
    assert [sentence for sentence in own if not is_said(normal(sentence), texts)] == []


def is_said(sentence: str, texts: frozenset[str]) -> bool:
    """True where a text of the code is the sentence, or begins it and leaves the rest to another text."""
    return sentence in texts or any(
        sentence.startswith(text) and len(text) > 25 for text in texts if sentence.endswith("…")
    )


@cache
def flowers_text() -> str:
    spec = importlib.util.find_spec("flwr")
    assert spec is not None and spec.origin is not None
    texts: list[str] = []
    for path in Path(spec.origin).parent.rglob("*.py"):
        if "/proto/" not in str(path):
            texts += filter(None, map(template, ast.walk(ast.parse(path.read_text()))))
    return "\n".join(texts)


@pytest.mark.parametrize("sentence", [sentence for sentence, meaning in entries() if meaning.startswith(FLOWERS)])
def test_flower_says_the_sentences_that_the_runbook_gives_as_its(sentence: str) -> None:
    assert re.sub(r"^\[code: \d+\] ", "", sentence) in flowers_text()


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ('log(WARNING, "%d clients gave no sums", 3)', ["%d clients gave no sums"]),
        ('raise RunFailure(f"client {client} failed" + more)', ["client … failed…"]),
        ('raise RunFailure(one_line(f"the reply of {node} is odd"))', ["the reply of … is odd"]),
        ('print("nothing")', []),
    ],
)
def test_sentences_are_found_in_code(code: str, found: list[str]) -> None:
    assert list(needed("a.py", ast.parse(code))) == found
