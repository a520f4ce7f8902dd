"""Names of modules, classes, files and links in the documentation: each is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
CONF = sorted((ROOT / "conf").rglob("*.yaml"))
FOLDERS = ("clients", "strategies", "subfl_flower", "docs", "tests", "benchmarks", "conf", "examples", "docker")
INSIDE = ("", "subfl_flower", "subfl_flower/subgraphs", "subfl_flower/recommendation")
"""Folders that paths of pages begin from."""


def text_of(page: Path) -> str:
    """A page's text; README's links to files of the repository, which a package index shows, as links to files here."""
    return re.sub(r"\]\(https://github\.com/subfl-flower/subfl-flower/(?:blob|tree)/main/", "](", page.read_text())


def identify(path: Path) -> str:
    return str(path.relative_to(ROOT))


def dotted_paths(text: str) -> set[str]:
    """Paths of modules of this project, and of what is in them."""
    return set(re.findall(r"(?<![\w./])(?:clients|strategies|subfl_flower)(?:\.[A-Za-z_]\w*)+", text))


def exists(path: str) -> bool:
    """True where a module has this name, or a module has an attribute, or a class one, of this name."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


def files_named(text: str) -> set[str]:
    """Files of this project in backticks, such as `server/rounds.py`."""
    own = "|".join((*FOLDERS, *(path.name for path in (ROOT / "subfl_flower").rglob("*") if path.is_dir())))
    return set(re.findall(rf"`((?:{own})/[\w/.-]+\.(?:py|md|yaml))`", text))


@pytest.mark.parametrize("page", [*PAGES, *CONF], ids=identify)
def test_each_dotted_path_is_there(page: Path) -> None:
    # `clients.key` is a file of a user, and `clients.ids` an entry of a record.
    named = dotted_paths(page.read_text()) - {"clients.key", "clients.ids"}
    assert [path for path in sorted(named) if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_each_file_and_link_is_there(page: Path) -> None:
    text = text_of(page)
    named = files_named(text) - {"conf/method/fedamp.yaml"}  # the reader writes it
    missing = [name for name in named if not any((ROOT / start / name).exists() for start in INSIDE)]
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    assert missing == [] and [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_each_client_and_strategy_class_is_there(page: Path) -> None:
    packages = ("clients", "strategies", "subfl_flower")
    sources = "\n".join(path.read_text() for package in packages for path in (ROOT / package).rglob("*.py"))
    defined = set(re.findall(r"^class (\w+)", sources + "\n" + page.read_text(), re.MULTILINE))
    from_flower = {"NumPyClient"}
    named = set(re.findall(r"`(\w+(?:Client|Strategy|Settings|Weights))`", page.read_text()))
    assert sorted(named - defined - from_flower) == []


def test_the_layout_names_every_folder() -> None:
    layout = (ROOT / "docs" / "architecture.md").read_text().split("## Where each thing lives")[1].split("\n## ")[0]
    named = set(re.findall(r"`((?:\w+/)+)`", layout))
    packages = [path.parent for name in ("clients", "strategies") for path in (ROOT / name).glob("*/__init__.py")]
    packages += [path.parent for path in (ROOT / "subfl_flower").glob("*/__init__.py")]
    assert {f"{identify(path)}/" for path in packages if not path.is_symlink()} - named == set()
    assert [name for name in sorted(named) if not any((ROOT / start / name).is_dir() for start in INSIDE)] == []


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_each_heading_that_a_link_leads_to_is_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]*)#([^)\s]+)\)", text_of(page))
    missing = [link for link in links if link[1] not in headings(page.parent / link[0] if link[0] else page)]
    assert missing == []


def test_a_renamed_class_is_found() -> None:
    assert dotted_paths(
        "see `clients.masked.MaskedClient`, a/clients.x and subfl_flower.clients.subgraphs.fedpub."
    ) == {
        "clients.masked.MaskedClient",
        "subfl_flower.clients.subgraphs.fedpub",
    }
    assert exists("subfl_flower.clients.subgraphs.fedpub.FedPUBClient.Settings") and exists(
        "subfl_flower.server.rounds"
    )
    assert not exists("clients.masked.MaskedClient") and not exists(
        "subfl_flower.clients.subgraphs.fedpub.MaskedClient"
    )
    assert files_named("`server/rounds.py`, `clients/masked.py`") == {"server/rounds.py", "clients/masked.py"}
