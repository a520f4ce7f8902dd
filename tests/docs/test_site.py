"""The documentation site builds without a warning, and its generated pages hold every method and setting."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytest.importorskip("mkdocs", reason="needs the extra docs")
pytest.importorskip("mkdocstrings", reason="needs the extra docs")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    return folder


def text(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def test_the_configuration_page_has_every_choice(site: Path) -> None:
    page = text(site / "configuration" / "index.html")
    choices = [path for path in (ROOT / "conf").glob("*/*.yaml") if path.parent.name != "experiment"]
    assert [path for path in choices if f"{path.parent.name}={path.stem}" not in page] == []
    assert "method.mask_threshold" in page and "federation.round_timeout" in page


def test_the_privacy_page_has_the_arrays_of_every_method(site: Path) -> None:
    page = text(site / "privacy" / "index.html")
    assert [path.stem for path in (ROOT / "conf" / "method").glob("*.yaml") if f"{path.stem}\n" not in page] == []
    row = re.search(r"^fedpub\n(.*?)^fedpub_released", page, re.MULTILINE | re.DOTALL)
    assert row is not None and "wanted_features [features] uint8" in row[1]
    assert "masked [33 items + 1] uint64" in page  # FedMF's sum of 32 factors and a bias an item, and the global bias


def test_the_threat_model_has_a_row_for_every_method(site: Path) -> None:
    page = text(site / "threat_model" / "index.html")
    assert [path.stem for path in (ROOT / "conf" / "method").glob("*.yaml") if f"{path.stem}\n" not in page] == []


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = [*site.rglob("*.html")]
    loads = r"""<(?:script|img|iframe|link rel="(?:stylesheet|preconnect)")[^>]*(?:src|href)="(https?:)?//"""
    assert len(pages) > 20
    assert [page for page in pages if re.search(loads, page.read_text())] == []
