"""Installed packages, in contrast to files in a process's working directory."""

from __future__ import annotations

import importlib
import importlib.util
import site
import sys
import sysconfig
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from subfl_flower.errors import SubflError


def optional_module(name: str, extra: str, needed_by: str) -> Any:
    """Import a module of a package that an extra of this project installs.

    Args:
        name: of the module.
        extra: the extra.
        needed_by: whoever needs it, for the error.

    Raises:
        SubflError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SubflError(
            f"{needed_by} needs the package {name.partition('.')[0]}: pip install 'subfl-flower[{extra}]'"
        ) from error


def require_installed(package: str, key: str) -> None:
    """Check that a package is found without the working directory and the app's folder; nothing is imported.

    An import must give the same package.

    Args:
        package: its name, without dots.
        key: begins the error.

    Raises:
        SubflError: it is not installed, or something of the same name comes before it.
    """
    installed = _origin(_installed_spec(package))
    if installed is None:
        raise SubflError(f"{key}: the package {package!r} is not installed on this machine; install it with pip")
    module = sys.modules.get(package)
    found = _origin(importlib.util.find_spec(package) if module is None else module.__spec__)
    if found != installed:
        raise SubflError(f"{key}: the package {package!r} is installed in {installed}, and {found} stands before it")


def _installed_spec(package: str) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if finder is PathFinder:
            spec = PathFinder.find_spec(package, list(_installed_places()))
        else:  # finders of editable installations
            spec = finder.find_spec(package, None)
        if spec is not None:
            return spec
    return None


def _installed_places() -> Iterator[str]:
    """The entries of the search path except the working directory and a folder that this app was unpacked to."""
    kept = {Path(place).resolve() for place in _site_places()}
    left_out = {Path.cwd().resolve(), Path(__file__).resolve().parents[1]} - kept
    for entry in sys.path:
        if entry and Path(entry).resolve() not in left_out:
            yield entry


def _site_places() -> Iterator[str]:
    yield from site.getsitepackages()
    yield site.getusersitepackages()
    yield from (sysconfig.get_path(name) for name in ("purelib", "platlib", "stdlib"))


def _origin(spec: ModuleSpec | None) -> str | None:
    """The file of a package, or the folder of one without an `__init__`; None where there is neither."""
    if spec is None:
        return None
    if spec.has_location and spec.origin:
        return str(Path(spec.origin).resolve())
    places = list(spec.submodule_search_locations or ())
    return str(Path(places[0]).resolve()) if places else spec.origin
