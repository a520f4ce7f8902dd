"""Each snippet of README and documentation works: a reader carries the pages out in a folder, one after the other.

A page that is written later is read, too. `page_code.USES` says how a page excepts a block, and what is then checked.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from page_code import DOCS, ROOT, USES, Block, blocks_of, commands_of, lines_of_code, modules
from page_commands import check
from reader import Reader, pages

from subfl_flower.errors import SubflError


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Reader]:
    """Carry out a page, once."""
    readers: dict[Path, Reader] = {}

    def reader(page: Path) -> Reader:
        if page not in readers:
            readers[page] = Reader(page, tmp_path_factory.mktemp(page.stem)).read()
        return readers[page]

    return reader


def identify(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=identify)
def test_each_snippet_works(page: Path, read: Callable[[Path], Reader]) -> None:
    read(page)


@pytest.mark.parametrize("page", pages(), ids=identify)
def test_what_is_not_carried_out_has_a_reason(page: Path) -> None:
    for block in blocks_of(page):
        assert block.use in USES, f"line {block.line}: {block.use}"
        assert bool(block.reason) == (block.use in ("parsed", "shown")), f"line {block.line}"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_way_of_a_graph(read: Callable[[Path], Reader]) -> None:
    reader = read(DOCS / "your_graph.md")
    shown, folder = next(text for text in reader.outputs() if "categories 3" in text), reader.folder
    assert "categories 3, standardized 2, as they are 1" in shown and "transferred" in shown
    assert (folder / "outputs/wards/report.html").is_file()
    nodes = {row["id"]: row["label"] for row in rows(folder / "nodes.csv")}
    predictions = rows(folder / "predictions.csv")
    assert {row["node"]: row["label"] for row in predictions} == nodes
    names = ("died", "home", "transferred")
    for row in predictions:
        probabilities = {name: float(row[f"p_{name}"]) for name in names}
        assert row["prediction"] == max(names, key=lambda name: probabilities[name])
        assert abs(sum(probabilities.values()) - 1) < 1e-4
    given = ["inspect", "dataset=custom", "dataset.path=.", "dataset.features.ignore=[ward,age]", "partition=given"]
    assert re.search(r"│\s+1 │\s+2 │", reader.command("subfl", *given, "partition.file=mine.npz"))


def test_the_way_of_ratings(read: Callable[[Path], Reader]) -> None:
    reader = read(DOCS / "your_ratings.md")
    shown, folder = "\n".join(reader.outputs()), reader.folder
    assert "genre (3 values)" in shown and "user user-7 (client" in shown and " film, no. " in shown
    rated = {(row["user"], row["item"]) for row in rows(folder / "ratings.csv")}
    recommended = rows(folder / "recommendations.csv")
    users = {user for user, _ in rated}
    assert {row["user"] for row in recommended} == users and len(recommended) == 10 * len(users)
    again = sum((row["user"], row["item"]) in rated for row in recommended)
    assert again <= 240  # at most those that are held out for the test


@pytest.mark.parametrize("name", modules())
def test_a_class_is_forty_lines_at_most(name: str) -> None:
    assert 5 < lines_of_code(modules()[name]) <= 40


def test_the_way_of_a_class(read: Callable[[Path], Reader]) -> None:
    reader = read(DOCS / "your_code.md")
    shown = reader.outputs()
    assert [text.split(": test")[0].splitlines()[-1] for text in shown if ": test" in text] == [
        *("fedavg on rings",) * 4,
        "fedpub on rings",
        *("fedavg on rings",) * 2,
    ]
    # 6 cliques of 10 nodes: 6 * 45 edges inside, 6 between.
    facts = dict(re.findall(r"│ (\w+) +│ (\S+) +│", shown[1]))
    assert (facts["nodes"], facts["edges"]) == ("60", "276")
    figures = (reader.folder / "outputs/signs/figures.csv").read_text().split()
    assert [line.split(",")[0] for line in figures] == ["1"]
    kept = reader.folder / "outputs/kept/kept"
    assert [row["client"] for row in rows(kept / "per_client.csv")] == ["0", "1"]
    assert {"convergence.png", "clients.png"} <= {path.name for path in kept.iterdir()}


# The reader -----------------------------------------------------------------------------------------------------------


PAGE = """
<!-- snippet: first -->
```python
print("two")
```

```
subfl method=fedavg \\
    seed=1   # a remark
D="a=1 b"
subfl $D && make test
```

    subfl list methods

    some quoted text

<!-- snippet: shown, because it is half a program -->
```python
# given.py
x = 1
```

```yaml
# conf/dataset/mine.yaml
name: mine
```
"""


def test_blocks_of_all_kinds_are_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    found = blocks_of(tmp_path / "page.md")
    assert [(block.language, block.use, block.file) for block in found] == [
        ("python", "first", ""),
        ("bash", "run", ""),
        ("bash", "run", ""),
        ("python", "shown", "given.py"),
        ("yaml", "run", "conf/dataset/mine.yaml"),
    ]
    assert found[0] == Block("python", 'print("two")\n', 4, "first")
    assert found[3].reason == "because it is half a program" and found[3].text == "x = 1\n"
    assert [re.sub(r"\s+", " ", line) for line in commands_of(found[1].text)] == [
        *("subfl method=fedavg seed=1", "subfl a=1 b", "make test"),
    ]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ("subfl method=fedpubb", SubflError),
        ("subfl -m method=fedavg,fedpubb", SubflError),
        ("subfl method=fedpub method.nothing=1", SubflError),
        ("subfl report --nothing", SystemExit),
        ("subfl deploy nothing", AssertionError),
        ("make nothing", AssertionError),
        ("make test NOTHING=1", AssertionError),
        ("pip install subfl-flower[nothing]", AssertionError),
        ("flwr nothing", AssertionError),
        ("flwr run . local --nothing", click.UsageError),
        ("python benchmarks/speed.py --nothing", AssertionError),
        ("nothing at all", AssertionError),
    ],
)
def test_what_a_reader_would_be_refused_is_found(command: str, error: type[BaseException]) -> None:
    with pytest.raises(error, match=r"nothing|NOTHING|fedpubb|^2$"):
        check(command.split())


def test_a_command_that_fails_is_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```\nsubfl predict nowhere\n```\n")
    with pytest.raises(AssertionError, match="subfl predict nowhere"):
        Reader(tmp_path / "page.md", tmp_path).read()


def test_runs_are_short_and_on_data_that_are_here(tmp_path: Path) -> None:
    reader = Reader(tmp_path / "page.md", tmp_path)
    short = reader.shortened(["-m", "method=local,fedavg,fedpub", "dataset=cora", "seed=0,1,2", "federation.rounds=50"])
    assert short[:4] == ["-m", "method=local,fedavg", "dataset=sbm", "dataset.nodes_per_community=40"]
    assert "seed=0" in short and "federation.rounds=1" in short and "federation.rounds=50" not in short
    assert short[-1] == "hydra.sweep.dir=multirun/day/001"
    (tmp_path / "multirun/day/001").mkdir(parents=True)
    for place in ("multirun/2026-01-01/12-00-00", "multirun/<date>/<time>"):
        assert reader.in_place(place) == "multirun/day/001"
