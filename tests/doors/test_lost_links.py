"""A copy of the checkout whose links are lost, as in the bundle that Flower sends: which files it imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAM = """
from subfl_flower.doors import load_class, only_packages
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient

with only_packages([]):
    print(load_class("subfl_flower.clients.subgraphs.fedpub.FedPUBClient", CohortClient, "method.client").__module__)
    for path in ("subfl_flower.beside.Client", "subfl_flower.subfl_flower.node.client.CohortClient"):
        try:
            print("taken", load_class(path, CohortClient, "method.client"))
        except SubflError as error:
            print("refused", error)
"""


def test_it_finds_its_two_folders_and_no_other_file_next_to_the_package(tmp_path: Path) -> None:
    for folder in ("subfl_flower", "clients", "strategies"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for link in ("clients", "strategies"):
        shutil.rmtree(tmp_path / "subfl_flower" / link)
    beside = "print('it ran')\nfrom subfl_flower.node.client import CohortClient as Client\n"
    (tmp_path / "beside.py").write_text(beside)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first == "subfl_flower.clients.subgraphs.fedpub"
    assert len(others) == 2
    assert all(line.startswith("refused method.client: cannot import") for line in others), done.stdout
