"""Names of modules, classes, files and links in the documentation: each is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
CONF = sorted((ROOT / "conf").rglob("*.yaml"))
FOLDERS = ("clients", "strategies", "subfl_flower", "docs", "tests", "benchmarks", "conf", "examples", "docker")
INSIDE = ("", "subfl_flower", "subfl_flower/subgraphs", "subfl_flower/recommendation")
"""Folders that paths of pages begin from."""


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
    text = page.read_text()
    named = files_named(text) - {"conf/method/fedgta.yaml"}  # the reader writes it
    missing = [name for name in named if not any((ROOT / start / name).exists() for start in INSIDE)]
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text)
    assert missing == [] and [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=identify)
def test_each_client_and_strategy_class_is_there(page: Path) -> None:
    sources = "\n".join(path.read_text() for path in (ROOT / "clients").glob("*.py"))
    sources += "\n".join(path.read_text() for path in (ROOT / "strategies").glob("*.py"))
    sources += "\n".join(path.read_text() for path in (ROOT / "subfl_flower").rglob("*.py"))
    defined = set(re.findall(r"^class (\w+)", sources + "\n" + page.read_text(), re.MULTILINE))
    from_flower = {"NumPyClient"}
    named = set(re.findall(r"`(\w+(?:Client|Strategy|Settings|Weights))`", page.read_text()))
    assert sorted(named - defined - from_flower) == []


def test_the_layout_names_every_file() -> None:
    layout = (ROOT / "docs" / "architecture.md").read_text().split("## Layout")[1].split("```")[1]
    files = [*(ROOT / "clients").glob("*.py"), *(ROOT / "strategies").glob("*.py")]
    files += (ROOT / "subfl_flower" / "runtime").glob("*.py")
    missing = [identify(path) for path in files if path.name != "__init__.py" and path.name not in layout]
    assert missing == []
    named = set(re.findall(r"\b\w+\.py\b", layout))
    there = {
        path.name for folder in ("clients", "strategies", "subfl_flower") for path in (ROOT / folder).rglob("*.py")
    }
    assert sorted(named - there) == []


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
    assert files_named("`server/rounds.py`, `clients/masked.py`") == {"runtime/rounds.py", "clients/masked.py"}
