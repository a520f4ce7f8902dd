"""The app as Flower packs it: a folder with the few files that travel.

`flwr run` looks at every file below the app's folder, a virtual environment's fifty thousand included, which
takes seconds. A copy of the files that it would pack anyway is cheap, and Flower may modify it. An installed package
has no folder that Flower could pack, so one is written.
"""

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

from subfl_flower.code_folder import config_directory
from subfl_flower.errors import SubflError
from subfl_flower.storage.package_files import COMMIT_FILE, PACKAGE, commit, package_files, project_file

PACKED_SUFFIXES = frozenset({".py", ".toml", ".md", ".yaml", ".yml", ".json", ".jsonl"})
PACKED_NAMES = frozenset({".gitignore", "LICENSE"})
_OF_AN_APP = re.compile(rb"^\s*\[\s*tool\s*\.\s*flwr\b", re.MULTILINE)
SKIPPED_FOLDERS = frozenset({"__pycache__", "outputs", "multirun"})


def find_app(folder: Path | None) -> Path | None:
    """The absolute path of the folder that holds an app's `pyproject.toml`; `None` for the app of this package.

    Args:
        folder: where it is; `None` means the current directory, if it holds a Flower app and not some other project
            of the user's, else the app of this package.

    Raises:
        SubflError: there is no `pyproject.toml` in `folder`.
    """
    candidate = (folder or Path.cwd()).resolve()
    project = candidate / "pyproject.toml"
    if folder is not None and not project.is_file():
        raise SubflError(f"no pyproject.toml in {candidate}: --app must name the folder that holds the Flower app's")
    if candidate == PACKAGE.parent or not project.is_file():
        return None
    return candidate if folder is not None or _OF_AN_APP.search(project.read_bytes()) else None


def stage_app(app: Path | None, target: Path, own: Path | None = None) -> None:
    """Write what Flower would pack of `app` to the new folder `target`.

    Hidden folders, virtual environments, caches and the runs of earlier launches stay behind. Flower itself
    later leaves out the files that the app's `.gitignore` names.

    Args:
        app: folder of the app; `None` for the app of this package.
        target: the new folder.
        own: a folder whose ``conf`` has choices of the user's, which travel with this package's app.
    """
    if app is None:
        _stage_package(target)
        _add_choices(own, target)
        return
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


def app_bundle(app: Path | None) -> bytes:
    """The bundle that Flower makes of an app.

    Args:
        app: folder of the app; None for the app of this package.
    """
    from flwr.cli.build import build_fab_from_disk

    with tempfile.TemporaryDirectory(prefix="subfl-") as folder:
        stage_app(app, Path(folder) / "app")
        return build_fab_from_disk(Path(folder) / "app")


def _stage_package(target: Path) -> None:
    """Copy this package, as it lies in a wheel, with its commit and its `pyproject.toml`."""
    package = target / PACKAGE.name
    for name, path in package_files().items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, package / name)
    (package / COMMIT_FILE).write_text(json.dumps({"commit": commit()}), encoding="utf-8")
    shutil.copyfile(project_file(), target / "pyproject.toml")


def _add_choices(own: Path | None, target: Path) -> None:
    """Copy the groups of a user's ``conf``; the files next to them, such as ``config.yaml``, are no choices."""
    conf = None if own is None else own / "conf"
    if conf is None or not conf.is_dir() or conf.samefile(config_directory()):
        return
    for path in conf.glob("*/**/*.yaml"):
        place = target / "conf" / path.relative_to(conf)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)
