"""The wheel, in a fresh environment and a user's folder: one package with all its files, and everything works there."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO

import pytest

import subfl_flower
from subfl_flower.flower.ports import free_port

ROOT = Path(__file__).parents[1]
BUILD = "import sys, hatchling.build; print(hatchling.build.build_wheel(sys.argv[1]))"
API = """
from subfl_flower import run
result = run("fedavg", "sbm", clients=3, rounds=1, overrides=["model.hidden=8"], run_dir="runs/api", progress=False)
print(result.summary["method"], result.metrics["round"].max())
"""
ORIGIN = "import subfl_flower.strategies.subgraphs.fedpub as module; print(module.__file__)"
PROGRAM = "#!{python}\nimport sys\nfrom {module} import {attribute}\nsys.exit({attribute}())\n"

CLIENT = "from subfl_flower.api import SubgraphClient\n\n\nclass Mine(SubgraphClient):\n    '''Another name.'''\n"
METHOD = "defaults: [fedavg, _self_]\nname: mine\nclient: clients.mine.Mine\n"
OVERRIDES = ("+experiment=quick", "partition.clients=4", "hydra.run.dir=runs/one")


@dataclass(frozen=True)
class Installed:
    """A fresh environment with the wheel, and the packages of the running one."""

    folder: Path
    site: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**kept, "OMP_NUM_THREADS": "1", "FLWR_HOME": str(self.folder / "flower")}

    def run(self, where: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [self.folder / "bin" / program, *arguments]
        return subprocess.run(command, cwd=where, env=self.environment, capture_output=True, text=True, timeout=1500)

    def start(self, where: Path, *arguments: str, output: IO[str]) -> subprocess.Popen[bytes]:
        command = [self.folder / "bin" / "subfl", *arguments]
        environment = {**self.environment, "FLWR_HOME": str(where / "flower")}
        return subprocess.Popen(command, cwd=where, env=environment, stdout=output, stderr=subprocess.STDOUT)


def build(folder: Path) -> Path:
    """The wheel, built where the checkout's links were lost."""
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("subfl_flower", "clients", "strategies", "conf"):
        links = [path.name for path in (ROOT / name).iterdir() if path.is_symlink()]
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", *links))
    command = [sys.executable, "-c", BUILD, folder]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=120)
    assert built.returncode == 0, built.stderr
    return folder / built.stdout.split()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    wheel, fresh = build(folder), folder / "fresh"
    venv.create(fresh, with_pip=False, symlinks=True)
    python = fresh / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, timeout=120)
    (site,) = fresh.glob("lib/python*/site-packages")
    # Lines of a .pth file in that folder are not read, so that the checkout is not found by them.
    (site / "running.pth").write_text(sysconfig.get_path("purelib") + "\n")
    for program in entry_points(group="console_scripts"):
        if program.dist is not None and program.dist.name in ("flwr", "ray"):
            text = PROGRAM.format(python=python, module=program.module, attribute=program.attr)
            (fresh / "bin" / program.name).write_text(text)
            (fresh / "bin" / program.name).chmod(0o755)
    return Installed(fresh, site)


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's folder, with packages of the names that the checkout has at its top, and choices."""
    files = {
        "clients/mine.py": CLIENT,
        "strategies/__init__.py": "raise RuntimeError('nobody asked for this package')\n",
        "conf/method/mine.yaml": METHOD,
        "conf/experiment/quick.yaml": (
            "# @package _global_\ndefaults: [{override /method: mine}, {override /dataset: sbm}]\n"
            "federation: {rounds: 1}\nmodel: {hidden: 8}\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def summary(folder: Path) -> dict[str, object]:
    found = json.loads((folder / "summary.json").read_text())
    assert isinstance(found, dict)
    return found


def test_it_has_one_package_and_every_module_and_choice_of_the_checkout(installed: Installed) -> None:
    added = {path.name for path in installed.site.iterdir() if not path.name.endswith(".dist-info")}
    assert added == {"subfl_flower", "running.pth"}
    package = installed.site / "subfl_flower"
    for folder in ("subfl_flower", "clients", "strategies", "conf"):
        place = package if folder == "subfl_flower" else package / folder
        for path in (ROOT / folder).rglob("*.*"):
            if path.suffix in (".py", ".yaml", ".typed"):
                assert (place / path.relative_to(ROOT / folder)).is_file(), path


def test_its_description_has_no_link_to_a_file_that_a_package_index_lacks(installed: Installed) -> None:
    (metadata,) = installed.site.glob("subfl_flower-*.dist-info/METADATA")
    links = re.findall(r"\]\(([^)]+)\)", metadata.read_text())
    assert len(links) > 20 and [link for link in links if not link.startswith(("https://", "#"))] == []


def test_its_version_is_the_packages() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == subfl_flower.__version__


def test_it_trains_in_a_users_folder(installed: Installed, user: Path) -> None:
    ran = installed.run(user, "subfl", *OVERRIDES)
    assert ran.returncode == 0, ran.stderr
    found = summary(user / "runs" / "one")
    assert (found["method"], found["git_commit"]) == ("mine", None)
    assert found["versions"]["subfl-flower"] == subfl_flower.__version__  # type: ignore[index]
    said = installed.run(user, "python", "-c", API)
    assert said.returncode == 0 and said.stdout.split() == ["fedavg", "1"], said.stderr
    origin = installed.run(user, "python", "-c", ORIGIN).stdout.strip()
    assert Path(origin) == installed.site / "subfl_flower" / "strategies" / "subgraphs" / "fedpub.py"


def test_it_writes_its_app_for_flwr_run(installed: Installed, user: Path) -> None:
    ran = installed.run(user, "subfl", "app", "graphs")
    assert ran.returncode == 0, ran.stderr
    files = {path.relative_to(user / "graphs").as_posix() for path in (user / "graphs").rglob("*.*")}
    assert {"pyproject.toml", "subfl_flower/server_app.py", "subfl_flower/conf/config.yaml"} <= files
    assert {name for name in files if name.startswith("conf")} == {
        "conf/method/mine.yaml",
        "conf/experiment/quick.yaml",
    }
    again = installed.run(user, "subfl", "app", "graphs")
    assert again.returncode == 2
    assert again.stderr == "subfl app: graphs is there already: name a folder that is new or empty\n"


@pytest.mark.slow
def test_it_launches_in_a_users_folder(installed: Installed, user: Path) -> None:
    (user / "inner").mkdir()
    ran = installed.run(user / "inner", "subfl", "--code", "..", "launch", *OVERRIDES, "--supernodes", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = summary(user / "inner" / "runs" / "one")
    assert (found["method"], found["git_commit"]) == ("mine", None)
    assert len(str(found["app_hash"])) == 64
    assert {path.name for path in (user / "inner").iterdir()} == {"runs"}


@contextmanager
def running(installed: Installed, where: Path, *arguments: str) -> Iterator[None]:
    """A process of `subfl deploy` at work; its log lies in its folder."""
    with (where / "log.txt").open("w") as output:
        process = installed.start(where, *arguments, output=output)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_it_deploys_and_submits_with_the_users_experiment(installed: Installed, user: Path) -> None:
    """Server and node stand in empty folders: the choices come with the app, whose method is in the package."""
    (user / "conf/method/mine.yaml").write_text("defaults: [fedavg, _self_]\nname: mine\n")
    for name in ("server", "node"):
        (user / name).mkdir()
    quick = ("+experiment=quick", "partition.clients=2")
    port = free_port()
    assert installed.run(user, "subfl", "partition", *quick, "out=parts").returncode == 0
    address = f"127.0.0.1:{port}"
    assert installed.run(user, "subfl", "deploy", "connect", "lab", "--address", address, "--insecure").returncode == 0
    superlink = ("deploy", "superlink", "--insecure", "--host", "127.0.0.1", "--port", str(port))
    node = ("deploy", "supernode", "--insecure", "--superlink", address)
    node += ("--client", "../parts/client-00", "--client", "../parts/client-01")
    with running(installed, user / "server", *superlink):
        wait_until(lambda: listens(port))
        with running(installed, user / "node", *node):
            schema = ("schema=parts/federation.json", "hydra.run.dir=here")
            ran = installed.run(user, "subfl", "deploy", "submit", *quick[:1], *schema, "--connection", "lab")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert summary(user / "server" / "here")["method"] == "mine"
