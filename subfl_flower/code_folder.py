"""The user's folder, which is searched for the user's modules and YAML choices.

It is the working directory of `subfl`, or the folder that ``--code`` names. Its modules can be imported. Installed
packages come first, so that a file there never hides a package of the same name. If it has a folder ``conf`` with
groups (``conf/method/x.yaml``), these choices are found in addition to the built-in ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from subfl_flower.errors import SubflError

_PACKAGE = Path(__file__).resolve().parent
_adopted: Path | None = None


def adopt(folder: Path) -> None:
    """Make a folder the user's folder, for this process.

    It becomes the last entry in the search path of modules, also if it was elsewhere before: Ray puts a driver's
    working directory first. The folder that contains this package keeps its place.
    """
    global _adopted
    _adopted = folder = folder.resolve()
    if folder != _PACKAGE.parent:
        sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder] + [str(folder)]


@contextmanager
def adopted_here() -> Iterator[None]:
    """Make the working directory the user's folder inside the block, for a program that has not adopted another one.

    The search path of modules has it at its end, unless it is in there already, and is afterwards what it was.
    """
    global _adopted
    if _adopted is not None:
        yield
        return
    folder = Path.cwd().resolve()
    added = str(folder) if all(Path(entry).resolve() != folder for entry in sys.path) else None
    _adopted = folder
    if added is not None:
        sys.path.append(added)
    try:
        yield
    finally:
        _adopted = None
        if added is not None and added in sys.path:
            sys.path.remove(added)


def config_directory() -> Path:
    """The folder of the built-in choices: next to the package in a checkout, inside it in a wheel."""
    checkout = _PACKAGE.parent / "conf"
    return checkout if (checkout / "config.yaml").is_file() else _PACKAGE / "conf"


def adopted() -> Path | None:
    """The user's folder; None where this process has none."""
    return _adopted


def require_own_names(choices: Mapping[str, str], built_in: Path) -> None:
    """Require that no choice of a configuration is both a built-in file and a different file of the user's.

    Args:
        choices: by group, as Hydra lists them.
        built_in: the folder of the built-in choices.

    Raises:
        SubflError: a choice is both.
    """
    if _adopted is None:
        return
    for group, choice in choices.items():
        own, theirs = (folder / group / f"{choice}.yaml" for folder in (_adopted / "conf", built_in))
        if own.is_file() and theirs.is_file() and own.read_bytes() != theirs.read_bytes():
            raise SubflError(f"{own}: {group}={choice} is built in; rename the file to choose it")
