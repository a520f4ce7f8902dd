"""Names and settings that mean something to a terminal, a page, LaTeX, Markdown, matplotlib or a spreadsheet."""

from __future__ import annotations

import csv
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_command import report
from synthetic_runs import MakeRun

NOTE = "[red]a|b`\n<script>alert(1) <img src=x onerror=alert(1)> '\"> \\input{x} $\\frac{$ % & #"
ON_ONE_LINE = " ".join(NOTE.split())
PARTITION = "metis[/blue]</script><b>"


class Markup(HTMLParser):
    """Elements of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[str]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))


@pytest.fixture
def runs(make_run: MakeRun, tmp_path: Path) -> Path:
    """Runs of two settings of a method; its name, the setting and the partition are hostile."""
    for seed in range(2):
        for name, note in (("a", NOTE), ("b", "plain")):
            of_run = {"method": "=1+1", "settings": {"note": note}, "partition": {"name": PARTITION}}
            make_run(f"runs/{name}{seed}", seed=seed, rounds=3, clients=3, **of_run)
    return tmp_path / "runs"


def test_no_name_becomes_markup_of_a_page(runs: Path) -> None:
    assert report(runs, "--html", "--no-plots") == 0
    page = Markup((runs / "report.html").read_text())
    assert not [tag for tag, _ in page.elements if tag in ("img", "b")]
    assert not [name for _, names in page.elements for name in names if name.startswith("on")]
    scripts = [names for tag, names in page.elements if tag == "script"]
    assert scripts.count([]) == 2  # plotly and the page's own; those of figures have a type
    assert {*map(tuple, scripts)} == {(), ("type",)}


def test_every_form_of_the_table_shows_them_as_they_are(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(runs, "--no-plots") == 0
    shown = capsys.readouterr().out
    assert PARTITION in shown and "[red]a|b`" in shown and "'\">" in shown
    assert report(runs, "--no-plots", "--markdown") == 0
    head, _, *lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 2 and r"method.note=\[red]a\|b\` \<script>alert(1) \<img" in lines[0]
    assert {line.replace(r"\|", "").count("|") for line in (head, *lines)} == {head.count("|")}
    assert report(runs, "--no-plots", "--latex") == 0
    title, *written = capsys.readouterr().out.strip().splitlines()
    assert title.startswith(f"% cora, {PARTITION}")
    assert r"\textbackslash{}input\{x\} \$\textbackslash{}frac\{\$ \% \& \#" in written[4]
    assert all(line.startswith("\\") or line.endswith("\\\\") for line in written)


def test_figures_take_a_dollar_for_a_dollar(runs: Path) -> None:
    assert report(runs, "--figures", "svg") == 0
    assert (runs / "convergence.png").is_file() and len(list((runs / "figures").glob("*.svg"))) > 2


def test_a_spreadsheet_sees_no_formula(runs: Path, tmp_path: Path) -> None:
    assert report(runs, "--no-plots", "--csv", tmp_path / "table.csv") == 0
    with (tmp_path / "table-means.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["method"] for line in lines] == ["'=1+1", "'=1+1"]
    assert all(float(line["test_at_best_validation_mean"]) > 0 for line in lines)
