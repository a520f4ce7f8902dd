"""Write the requirements of the images by version and hash: to build with, to run with, and those of CUDA.

    pip install uv && python docker/requirements.py

Versions are those of constraints.txt. Hashes are those that PyPI states of sources and of files for Linux on x86-64:
pip then takes no other file, whoever serves it. PyTorch is in torch.txt, with a hash for each of its builds: where its
version changes, take them from the simple indexes of PyPI and of https://download.pytorch.org/whl/cpu.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import tomllib
from pathlib import Path
from typing import Any

BUILD = ("hatchling", "setuptools", "wheel")
"""Packages that build this one, and those that PyPI has as sources alone."""

DOCKER = Path(__file__).resolve().parent
ROOT = DOCKER.parent
EXTRAS = ("dp", "douban", "gcfl", "metrics", "parquet", "plots")
HEAD = "# Made by docker/requirements.py; not to be changed by hand.\n"


def main() -> None:
    """Resolve, and write the files."""
    pinned = {re.split("[=<>]", line)[0].lower().replace("_", "-") for line in lines(ROOT / "constraints.txt")}
    extras = [word for extra in EXTRAS for word in ("--extra", extra)]
    texts = {"requirements-build.txt": "".join(map(entry, resolved("-", *BUILD)))}
    for package in resolved("pyproject.toml", *extras):
        if package["name"] != "torch":
            name = "requirements.txt" if package["name"] in pinned else "requirements-cuda.txt"
            texts[name] = texts.get(name, "") + entry(package)
    for name, text in texts.items():
        (DOCKER / name).write_text(HEAD + text)


def lines(path: Path) -> list[str]:
    """A file's lines but for comments."""
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def resolved(source: str, *words: str) -> list[dict[str, Any]]:
    """All packages for Linux on x86-64, with their files.

    Args:
        source: a file with requirements, or ``-``.
        words: options; the requirements themselves where `source` is ``-``.
    """
    given = "\n".join(words) if source == "-" else None
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "pylock.toml"
        command = [
            "uv",
            "pip",
            "compile",
            source,
            *(() if given else words),
            "--constraint",
            "constraints.txt",
            "--quiet",
        ]
        platform = ["--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28"]
        options = [*platform, "--format", "pylock.toml", "--output-file", str(lock)]
        subprocess.run([*command, *options], cwd=ROOT, check=True, input=given, text=True)
        packages: list[dict[str, Any]] = tomllib.loads(lock.read_text())["packages"]
        return packages


def entry(package: dict[str, Any]) -> str:
    """A requirement with the hash of each of its files."""
    files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
    hashes = sorted(file["hashes"]["sha256"] for file in files)
    head = f"{package['name']}=={package['version']}"
    return " \\\n".join([head, *(f"    --hash=sha256:{each}" for each in hashes)]) + "\n"


if __name__ == "__main__":
    main()
