"""The app as Flower packs it: a copy of the few files that travel.

`flwr run` looks at every file below the app's folder, a virtual environment's fifty thousand included, which
takes seconds. A copy of the files that it would pack anyway is cheap, and Flower may modify it.
"""

import os
import re
import shutil
from pathlib import Path

from subfl_flower.errors import SubflError

PACKED_SUFFIXES = frozenset({".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl"})
PACKED_NAMES = frozenset({".gitignore", "LICENSE"})
_OF_AN_APP = re.compile(rb"^\s*\[\s*tool\s*\.\s*flwr\b", re.MULTILINE)
SKIPPED_FOLDERS = frozenset({"__pycache__", "outputs", "multirun"})


def find_app(folder: Path | None) -> Path:
    """The absolute path of the folder that holds the app's `pyproject.toml`.

    Args:
        folder: where to look; `None` means the current directory, if it holds a Flower app and not some other project
            of the user's, then the folder that holds this package.

    Raises:
        SubflError: when there is no `pyproject.toml`.
    """
    candidates = [folder] if folder is not None else [Path.cwd(), Path(__file__).resolve().parents[2]]
    for candidate in candidates:
        project = candidate / "pyproject.toml"
        if project.is_file() and (folder is not None or _OF_AN_APP.search(project.read_bytes())):
            return candidate.resolve()
    looked = " or ".join(str(candidate.resolve()) for candidate in candidates)
    raise SubflError(f"no pyproject.toml in {looked}: --app must name the folder that holds the Flower app's")


def stage_app(app: Path, target: Path) -> None:
    """Copy the files of `app` that Flower would pack to the new folder `target`.

    Hidden folders, virtual environments, caches and the runs of earlier launches stay behind. Flower itself
    later leaves out the files that the app's `.gitignore` names.
    """
    for current, folders, files in os.walk(app):
        source = Path(current)
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and name not in SKIPPED_FOLDERS
            and not (source / name / "pyvenv.cfg").exists()
            and source / name != target
        ]
        destination = target / source.relative_to(app)
        for name in files:
            if Path(name).suffix in PACKED_SUFFIXES or name in PACKED_NAMES:
                destination.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / name, destination / name)
