"""Declared dependencies are those that are imported; extras are imported by nothing that does without them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
OF_USERS = sorted(set(EXTRAS) - {"all", "dev", "docs"})

IMPORTED_BY_FLOWER = {"ray"}
"""Mandatory packages that are not imported here; Flower's extra leaves open which versions were run."""

HALVES = {"pydantic-core": "pydantic"}
"""Packages that are released together with a declared one, which asks for one version."""


RUN = """
import importlib, pkgutil, sys

class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

BLOCKED = set(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Missing())
import subfl_flower
for module in pkgutil.walk_packages(subfl_flower.__path__, "subfl_flower."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
        print("imported", module.name)
from subfl_flower.cli import main
main()
"""


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


@cache
def imported() -> dict[str, set[str]]:
    """The distributions that the package imports, by the files that do, wherever in their text."""
    providers = packages_distributions()
    found: dict[str, set[str]] = {}
    for folder in ("subfl_flower", "clients", "strategies"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                whole = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                whole += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                for name in {name.partition(".")[0] for name in whole} - set(sys.stdlib_module_names):
                    for distribution in providers.get(name, [name]):
                        found.setdefault(canonicalize_name(distribution), set()).add(path.name)
    found.pop("subfl-flower", None)
    return found


def test_every_import_is_declared_and_every_mandatory_package_is_imported() -> None:
    mandatory, optional = names(PROJECT["dependencies"]), names([text for name in OF_USERS for text in EXTRAS[name]])
    assert {
        name: files for name, files in imported().items() if HALVES.get(name, name) not in mandatory | optional
    } == {}
    assert mandatory - set(imported()) == IMPORTED_BY_FLOWER
    assert not mandatory & optional


def test_all_has_every_extra_of_users() -> None:
    (everything,) = map(Requirement, EXTRAS["all"])
    assert everything.name == PROJECT["name"] and sorted(everything.extras) == OF_USERS


def modules_of_extras() -> set[str]:
    """The modules that extras alone install, at the top level."""
    optional = names([text for name in OF_USERS for text in EXTRAS[name]])
    providers = packages_distributions()
    installed = {
        module for module, owners in providers.items() if {canonicalize_name(owner) for owner in owners} <= optional
    }
    return installed | {name.replace("-", "_") for name in optional}


@pytest.fixture(scope="module")
def ran_without_extras(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """All modules imported, and a run of the embedded default, where no extra is installed."""
    folder = tmp_path_factory.mktemp("run")
    overrides = ["federation.rounds=1", "partition.clients=3", "hydra.run.dir=run", f"data.cache={folder / 'cache'}"]
    command = [sys.executable, "-c", RUN, ",".join(sorted(modules_of_extras())), *overrides]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_package_and_a_run_need_no_extra(ran_without_extras: subprocess.CompletedProcess[str]) -> None:
    assert ran_without_extras.returncode == 0, ran_without_extras.stderr
    done = ran_without_extras.stdout
    for module in ("strategies.subgraphs.gcfl", "clients.recommendation.fedgnn", "loggers.wandb", "data.ratings"):
        assert f"imported subfl_flower.{module}\n" in done
    assert "fedpub on digits: test " in done


def test_modules_of_extras_are_known() -> None:
    assert {"dp_accounting", "absl", "h5py", "dtaidistance", "pyarrow", "wandb", "mlflow", "ogb"} <= modules_of_extras()
    assert not {"numpy", "yaml", "sklearn", "google"} & modules_of_extras()


_WITH_SENTENCES = (".py", ".yaml", ".md", ".ipynb")


def test_every_extra_that_is_named_exists() -> None:
    named = {}
    folders = ("conf", "subfl_flower", "clients", "strategies", "docs", "examples")
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml", ".md", ".ipynb")
    ]
    for path in (*files, *ROOT.glob("*.md")):
        for extras in re.findall(r"subfl-flower\[([\w,]+)\]", path.read_text()):
            named |= dict.fromkeys(extras.split(","), path)
    assert {"loggers", "plots", "sweep"} <= set(named)
    assert {name: path for name, path in named.items() if name not in EXTRAS} == {}
