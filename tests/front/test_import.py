"""Import of the package: names are there, and slow libraries are not imported before they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import subfl_flower

SLOW = ("torch", "torch_geometric", "ray", "flwr", "pandas", "matplotlib", "hydra", "numpy", "pydantic")
NAMES = ("run", "sweep", "load_run", "predict", "datasets", "methods", "RunResult", "SweepResult", "SubflError")


def loaded_by(program: str) -> set[str]:
    """The slow libraries that a program imports."""
    asked = f"import sys\n{program}\nprint(*sorted(set(sys.modules) & {set(SLOW)!r}))"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=True)
    return set(done.stdout.split())


def test_import_and_dir_load_no_slow_library() -> None:
    assert loaded_by(f"import subfl_flower; assert set({NAMES!r}) <= set(dir(subfl_flower))") == set()


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_there_and_documented(name: str) -> None:
    found = getattr(subfl_flower, name)
    assert found.__name__ == name
    assert found.__doc__ and found.__module__.startswith("subfl_flower.")
    assert name in subfl_flower.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'subfl_flower' has no attribute 'trian'"):
        subfl_flower.trian  # noqa: B018


def test_the_use_of_a_name_leaves_warning_filters_alone() -> None:
    program = """
import warnings
before = list(warnings.filters)
from subfl_flower import run
assert list(warnings.filters) == before, warnings.filters
"""
    assert "torch" in loaded_by(program)
