"""The files of this package, wherever they are installed, and the version that they are.

A wheel holds all of them in one folder. In a checkout, and in the bundle that Flower makes of one, ``conf``,
``clients`` and ``strategies`` are next to the package. Here each file has the path that it has in a wheel.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache
from pathlib import Path

from subfl_flower.code_folder import config_directory
from subfl_flower.errors import SubflError

PACKAGE = Path(__file__).resolve().parents[1]
COMMIT_FILE = "commit.json"
"""File of a staged app, in the package's folder; it states the commit, because a bundle is no checkout."""

_SUFFIXES = frozenset({".py", ".yaml"})


def package_files() -> dict[str, Path]:
    """All modules and YAML files of the package, by their paths inside its folder in a wheel, in their order."""
    folders = {"": PACKAGE, "conf": config_directory()}
    for name in ("clients", "strategies"):
        folders[name] = PACKAGE / name if (PACKAGE / name).is_dir() else PACKAGE.parent / name
    found = {
        (Path(name) / path.relative_to(folder)).as_posix(): path
        for name, folder in folders.items()
        for path in folder.rglob("*.*")
        if path.suffix in _SUFFIXES
    }
    return dict(sorted(found.items()))


def sent_choices() -> Path | None:
    """The folder whose ``conf`` has choices of the user who staged this app; None where there are none."""
    sent = (PACKAGE / COMMIT_FILE).is_file() and (PACKAGE.parent / "conf").is_dir()
    return PACKAGE.parent if sent else None


def project_file() -> Path:
    """The ``pyproject.toml``: next to the package in a checkout, inside it in a wheel.

    Raises:
        SubflError: there is none.
    """
    for folder in (PACKAGE.parent, PACKAGE):
        if (folder / "pyproject.toml").is_file():
            return folder / "pyproject.toml"
    raise SubflError(f"no pyproject.toml in {PACKAGE}: install the package again, or run it in a checkout")


@cache
def app_hash() -> str:
    """SHA-256 over the paths and contents of all modules and YAML files, as hexadecimal digits.

    It is the same in a checkout, a wheel and a bundle of Flower's, where these hold the same code.
    """
    digest = hashlib.sha256()
    for name, path in package_files().items():
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


@cache
def commit() -> str | None:
    """The checked-out commit, followed by ``-dirty`` where files differ from it; None outside of a checkout.

    A staged app has the commit of the checkout that it is a copy of.
    """
    if (PACKAGE / COMMIT_FILE).is_file():
        stated = json.loads((PACKAGE / COMMIT_FILE).read_text(encoding="utf-8"))["commit"]
        return None if stated is None else str(stated)
    if not (PACKAGE.parent / ".git").exists():
        return None
    described = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(described, cwd=PACKAGE, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
