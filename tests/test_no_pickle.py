"""No code can run what somebody else wrote: no module unpickles, and a whole run does without."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(path for folder in ("subfl_flower", "clients", "strategies") for path in (ROOT / folder).rglob("*.py"))
PICKLING = {"pickle", "cPickle", "_pickle", "dill", "joblib", "cloudpickle", "shelve", "marshal", "torch.load"}
HARMLESS = {"joblib.cpu_count"}
"""Functions of modules that can unpickle, which themselves read nothing."""
TENSOR_FILES = {"subfl_flower/data/datasets/custom_pyg.py"}
"""Modules that may read PyTorch's own files; with ``weights_only=True`` it makes tensors and containers only."""


def unsafe(tree: ast.AST) -> Iterator[str]:
    """Imports and calls of a module that can unpickle, by line."""
    for node in ast.walk(tree):
        imported: list[str] = []
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names} - HARMLESS
            imported = [node.module or "", *names] if names else []
        for name in imported:
            if name in PICKLING or name.split(".")[0] in PICKLING:
                yield f"line {node.lineno}: imports {name}"
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                yield f"line {node.lineno}: {called} without weights_only=True"
            if given.get("allow_pickle", "False") != "False":
                yield f"line {node.lineno}: {called} with allow_pickle"
            if called.endswith("read_pickle"):
                yield f"line {node.lineno}: {called}"
            if called.endswith(("import_module", "__import__")) and any(
                isinstance(argument, ast.Constant) and argument.value in PICKLING for argument in node.args
            ):
                yield f"line {node.lineno}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_can_unpickle(path: Path) -> None:
    assert list(unsafe(ast.parse(path.read_text()))) == []


def test_tensor_files_are_read_where_it_is_known_and_nowhere_else() -> None:
    reading = {str(path.relative_to(ROOT)) for path in MODULES if "torch.load" in path.read_text()}
    assert reading == TENSOR_FILES


@pytest.mark.parametrize(
    "code",
    [
        "import pickle",
        "import cloudpickle as harmless",
        "from joblib import load",
        "from shelve import open",
        "import numpy, marshal",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=anything)",
        "pandas.read_pickle(path)",
        "importlib.import_module('pickle')",
    ],
)
def test_what_can_unpickle_is_found(code: str) -> None:
    assert len(list(unsafe(ast.parse(code)))) >= 1


@pytest.mark.parametrize("code", ["torch.load(path, weights_only=True)", "np.load(path)", "json.loads(text)"])
def test_what_cannot_is_not(code: str) -> None:
    assert list(unsafe(ast.parse(code))) == []


RUN = """
import pickle, sys
from pathlib import Path

from subfl_flower.composition import composed_config
from subfl_flower.simulation import simulate


def refuse(*arguments, **keywords):
    raise AssertionError("something was to be unpickled")


class Refusing(pickle._Unpickler):
    __init__ = refuse


config, _ = composed_config([
    "dataset=digits", "method=fedpub", "model.hidden=8", "federation.rounds=2", "runtime.nodes=2",
    "method.random_blocks=2", "method.random_block_nodes=20",
])
pickle.load = pickle.loads = pickle._loads = pickle._load = refuse
pickle.Unpickler = pickle._Unpickler = Refusing
summary = simulate(config, Path(sys.argv[1]))
assert summary["status"] == "completed", summary
assert "ray" not in sys.modules
try:
    pickle.loads(b"")
except AssertionError:
    print("unpickled nothing")
"""


def test_a_whole_run_unpickles_nothing(tmp_path: Path) -> None:
    """The cache is empty, so that data are read, partitioned, stored and read again, too."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(tmp_path / "run")],
        env={**os.environ, "SUBFL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "unpickled nothing"
