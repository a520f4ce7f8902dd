"""The page on Python classes: a section for each name that users import."""

from __future__ import annotations

import inspect

import subfl_flower
from subfl_flower import api


def api_reference() -> str:
    """Directives of mkdocstrings: the functions of `subfl_flower`, then the classes of `subfl_flower.api`."""
    functions = [name for name in getattr(subfl_flower, "__all__", ()) if callable(getattr(subfl_flower, name))]
    parts = ["## Runs", *(_directive("subfl_flower", name) for name in functions)] if functions else []
    documented = [name for name in api.__all__ if _has_docstring(getattr(api, name))]
    values = [f"`{name}` is {getattr(api, name)!r}" for name in api.__all__ if isinstance(getattr(api, name), int)]
    parts += ["## Base classes and functions of `subfl_flower.api`", f"Parts of a split: {', '.join(values)}."]
    return "\n\n".join([*parts, *(_directive("subfl_flower.api", name) for name in documented)]) + "\n"


def _has_docstring(value: object) -> bool:
    return inspect.isclass(value) or inspect.isfunction(value)


def _directive(module: str, name: str) -> str:
    return f"::: {module}.{name}\n    options:\n      heading_level: 3"
