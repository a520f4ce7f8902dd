"""The page of a sweep of 84 runs in a browser."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, Page, browser
from plotly.offline import get_plotlyjs
from report_command import report
from synthetic_runs import run_maker

METHODS = ("local", "fedavg", "fedprox", "fedper", "gcfl", "fedpub", "subpfed")
MEGABYTE = 1_000_000

OVERLAPS = """
(() => {
  const boxes = [...document.querySelectorAll("main > h2, .wide, .legend, .panel h4, .plot, summary")]
    .filter(one => one.checkVisibility())
    .map(one => ({name: one.className || one.tagName, ...one.getBoundingClientRect().toJSON()}))
    .filter(box => box.width > 0 && box.height > 0);
  const found = [];
  boxes.forEach((a, i) => boxes.slice(i + 1).forEach(b => {
    const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
    const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
    if (width > 1 && height > 1) found.push([a.name, b.name, width, height]);
  }));
  return found;
})()
"""
"""Pairs of headings, tables, legends and figures that cover each other."""

DRAWN_OVERLAPS = """
(() => {
  const found = [];
  for (const plot of document.querySelectorAll(".plot[data-drawn]")) {
    const frame = plot.getBoundingClientRect();
    if (!plot.checkVisibility()) continue;
    const titles = [...plot.querySelectorAll(".xtitle, .ytitle")].map(one => one.getBoundingClientRect());
    const ticks = [...plot.querySelectorAll(".xtick text, .ytick text")].map(one => one.getBoundingClientRect())
      .filter(box => box.width > 0);
    for (const box of [...titles, ...ticks])
      if (box.left < frame.left - 2 || box.right > frame.right + 2 || box.bottom > frame.bottom + 2)
        found.push(["cut", plot.getAttribute("aria-label"), box.left - frame.left, box.right - frame.right]);
    for (const a of titles) for (const b of ticks)
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2
          && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2) found.push("title over tick");
  }
  return found;
})()
"""
"""Axis titles that are cut or cover the labels of ticks."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven methods for 5, 10 and 20 clients with four seeds each, 100 rounds: 84 runs."""
    folder = tmp_path_factory.mktemp("sweep")
    make = run_maker(folder)
    for clients in (5, 10, 20):
        for method in METHODS:
            for seed in range(4):
                make(f"{clients}-{method}-{seed}", method, seed, clients, rounds=100)
    assert report(folder, "--html", "--no-plots") == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def figures(page: Path) -> list[dict[str, Any]]:
    """All figures of the page."""
    return [
        json.loads(found) for found in re.findall(r"<script type='application/json'>(.*?)</script>", page.read_text())
    ]


def test_the_page_is_below_two_megabytes_in_addition_to_plotly(page: Path) -> None:
    text = page.read_text()
    library = get_plotlyjs()
    assert text.count(library[-2000:]) == 1  # once
    assert len(text.encode()) - len(library.encode()) < 2 * MEGABYTE
    assert len(re.findall("<details", text)) >= 84


def test_the_page_tells_where_it_comes_from(page: Path) -> None:
    text = page.read_text()
    assert "<title>7 methods on cora: 84 runs</title>" in text
    for fact in ("command", "written", "runs finished"):
        assert f"<dt>{fact}</dt>" in text
    for address in re.findall(r"<a href='#([^']+)'", text):
        assert f" id='{address}'" in text
    assert not re.search(r"(?:src|href)=['\"](?:https?:)?//", text.replace(get_plotlyjs(), ""))


def test_lines_of_one_method_have_one_colour_in_all_figures(page: Path) -> None:
    colours: dict[str, set[str]] = {}
    for figure in figures(page):
        for trace in figure["data"]:
            if trace["name" if "name" in trace else "type"] in METHODS:
                look = trace.get("line") or trace.get("marker")
                if look:
                    colours.setdefault(trace["name"], set()).add(look["color"])
    assert set(colours) == set(METHODS)
    assert all(len(found) == 1 for found in colours.values())
    assert len(set.union(*colours.values())) == len(METHODS)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_it_opens_without_a_request_or_an_error_and_nothing_overlaps(
    page: Path, opened: Page, width: int, dark: bool
) -> None:
    opened.requests.clear()
    opened.errors.clear()
    opened.open(page, width, dark=dark)
    opened.ask("document.querySelectorAll('details')[0].open = true; document.getElementById('run-0').open = true")
    opened.ask("document.querySelectorAll('main > figure .plot, #run-0 .plot').forEach(draw)")
    opened.ask("new Promise(done => setTimeout(done, 1500))")
    assert opened.ask("document.querySelectorAll('main > figure .plot svg.main-svg').length") >= 9
    assert opened.ask("document.documentElement.scrollWidth <= innerWidth")
    assert opened.ask(OVERLAPS) == []
    assert opened.ask(DRAWN_OVERLAPS) == []
    background = opened.ask("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")
    assert [found for found in opened.requests if not found.startswith("data:")] == [page.resolve().as_uri()]
    assert opened.errors == []


def column(opened: Page, head: str) -> list[str]:
    """Cells of a column of the first table, from above."""
    return opened.ask(
        f"(() => {{const table = document.querySelector('table'); const place = [...table.tHead.rows[0].cells]"
        f".findIndex(one => one.textContent === {json.dumps(head)});"
        f"return [...table.tBodies[0].rows].map(row => row.cells[place].textContent)}})()"
    )


def press(opened: Page, head: str) -> None:
    """Press the head of a column by keyboard."""
    opened.ask(
        f"[...document.querySelectorAll('table')[0].querySelectorAll('th button')]"
        f".find(one => one.textContent === {json.dumps(head)}).focus()"
    )
    for kind in ("keyDown", "keyUp"):
        opened.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)


def test_a_press_on_a_head_sorts_the_table_and_another_reverses_it(page: Path, opened: Page) -> None:
    opened.open(page, 1280)
    head = "test at best validation"
    before = column(opened, head)
    press(opened, head)
    numbers = [float(cell.split(" ±")[0]) for cell in column(opened, head)]
    assert numbers == sorted((float(cell.split(" ±")[0]) for cell in before), reverse=True)
    press(opened, head)
    assert [float(cell.split(" ±")[0]) for cell in column(opened, head)] == numbers[::-1]
    press(opened, "method")
    assert column(opened, "method") == sorted(METHODS * 3)
    press(opened, "up")  # by the number of bytes, not by the text
    assert column(opened, "up")[0] == "2 GB" and column(opened, "up")[-1] == "0 B"


def test_an_entry_of_a_legend_hides_and_shows_its_lines(page: Path, opened: Page) -> None:
    opened.open(page, 1280)
    opened.ask("document.querySelectorAll('#figure-convergence .plot').forEach(draw)")
    shown = "document.querySelector('#figure-convergence .plot').data.filter(one => one.visible !== false).length"
    before = opened.ask(shown)
    click = "document.querySelector('#figure-convergence .legend [data-name=fedpub]').click()"
    opened.ask(click)
    assert opened.ask(shown) == before - 2  # line and band
    opened.ask(click)
    assert opened.ask(shown) == before


def test_runs_are_folded_with_their_figures(page: Path) -> None:
    summaries = [html.unescape(found) for found in re.findall("<summary>(.*?)</summary>", page.read_text())]
    assert sum("fedpub on cora, metis, 10 clients, seed" in found for found in summaries) == 4
