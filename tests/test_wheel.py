"""The wheel: one package with all its files, next to which a user may have packages of any other name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
ALONE = "import os, sys; sys.path = [p for p in sys.path if not os.path.isfile(p + '/pyproject.toml')]; "
"""Without the checkout, which is installed editable where tests run."""
SUBFL = ALONE + "from subfl_flower.cli import main; sys.exit(main())"
ORIGIN = ALONE + "import subfl_flower.strategies.subgraphs.fedpub as module; print(module.__file__)"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the content of the wheel, built where the checkout's links were lost."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("subfl_flower", "clients", "strategies", "conf"):
        links = [path.name for path in (ROOT / name).iterdir() if path.is_symlink()]
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", *links))
    build = [sys.executable, "-c", BUILD, folder]
    built = subprocess.run(build, cwd=source, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    place = folder / "site"
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        wheel.extractall(place)
    return place


def test_it_has_one_package_and_every_module_and_choice_of_the_checkout(installed: Path) -> None:
    assert {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")} == {"subfl_flower"}
    package = installed / "subfl_flower"
    for folder in ("subfl_flower", "clients", "strategies", "conf"):
        place = package if folder == "subfl_flower" else package / folder
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in (".py", ".yaml", ".typed"):
                assert (place / path.relative_to(ROOT / folder)).is_file(), path


def started(installed: Path, folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_users_packages_may_have_the_names_of_folders_of_the_checkout(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    (tmp_path / "strategies").mkdir()
    (tmp_path / "clients" / "mine.py").write_text(
        "from subfl_flower.api import SubgraphClient\n\n\nclass Mine(SubgraphClient):\n    '''Another name.'''\n"
    )
    (tmp_path / "strategies" / "__init__.py").write_text("raise RuntimeError('nobody asked for this package')\n")
    overrides = ("method=fedavg", "method.client=clients.mine.Mine", "dataset=sbm", "federation.rounds=1")
    ran = started(installed, tmp_path, SUBFL, *overrides, "partition.clients=4", "hydra.run.dir=run")
    assert ran.returncode == 0 and (tmp_path / "run" / "summary.json").is_file(), ran.stderr
    origin = started(installed, tmp_path, ORIGIN).stdout.strip()
    assert Path(origin) == installed / "subfl_flower" / "strategies" / "subgraphs" / "fedpub.py"
