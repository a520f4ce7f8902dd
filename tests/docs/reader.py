"""A reader of the pages, who carries out what they show in a folder, with few rounds on small data."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from page_code import DOCS, ROOT, Block, blocks_of, commands_of, write_files
from page_commands import EXPERIMENT, PLACEHOLDER, check, sweeps, values_of
from run_outcomes import SMALL_GENERATOR, subfl

from subfl_flower.commands.overview import COMMANDS

SMALL_GRAPH = ("dataset=sbm", "dataset.nodes_per_community=40", "dataset.p_class=0.3", "dataset.features=8")
SMALL_RATINGS = (
    *("dataset=synthetic_ratings", "dataset.num_users=24", "dataset.num_items=130", "dataset.ratings_per_user=12"),
)
INSTEAD = {
    **dict.fromkeys(("cora", "citeseer", "pubmed", "photo", "computers", "ogbn_arxiv"), SMALL_GRAPH),
    **dict.fromkeys(("ml100k", "ml1m", "ml10m", "douban", "flixster", "yahoo_music"), SMALL_RATINGS),
}
"""Data that need no download, by the data set that a page names."""
SHORTER = ("federation.rounds=1", "record.checkpoint_every=0")
CHECKED_ONLY = {
    **dict.fromkeys(("superlink", "supernode", "submit", "register"), "needs other machines"),
    "launch": "needs Flower's processes; tests/launch starts them",
    "--curve": "needs a sweep over that setting; tests/evaluation has some",
}
"""Words of commands that are not carried out, and why."""
FASTER = {"fedsage_plus": SMALL_GENERATOR}
"""Settings of methods whose own make a round long."""


@dataclass(frozen=True)
class Done:
    """A command of a page.

    Attributes:
        command: as it stands there.
        output: standard output; None where it was checked and not carried out.
    """

    command: str
    output: str | None


@dataclass
class Reader:
    """Carries out one page.

    Attributes:
        page: the page.
        folder: where it does so.
        done: the commands so far.
    """

    page: Path
    folder: Path
    done: list[Done] = field(default_factory=list)
    _names: dict[str, Any] = field(default_factory=dict)
    _runs: int = 0

    def read(self) -> Reader:
        """Write the page's files, and carry out its blocks in order; those first that the page says come first."""
        write_files(self.page, self.folder)
        if not any(block.use == "first" for block in blocks_of(self.page)):
            write_tables(self.folder)
        blocks = [block for block in blocks_of(self.page) if not block.file]
        for block in sorted(blocks, key=lambda block: block.use != "first"):
            self._carry_out(block)
        return self

    def outputs(self) -> list[str]:
        """Standard output of the commands that were carried out, in the page's order."""
        return [done.output for done in self.done if done.output is not None]

    def command(self, *words: str) -> str:
        """The output of a further command, which is not on the page."""
        return self._run(words)

    def _carry_out(self, block: Block) -> None:
        if block.language == "python":
            if block.use in ("run", "first"):
                self.done.append(Done(block.text, self._python(block.text)))
            else:
                ast.parse(block.text)
        elif block.language == "bash" and block.use != "shown":
            for line in commands_of(block.text):
                words = shlex.split(line)
                if block.use == "parsed" or not self._can_run(words):
                    check(words)
                    self.done.append(Done(line, None))
                else:
                    self.done.append(Done(line, self._run(words)))

    def _can_run(self, words: Sequence[str]) -> bool:
        if words[0] != "subfl" or any(word.startswith(EXPERIMENT) for word in words):
            return False
        return not set(words) & CHECKED_ONLY.keys() and not any(PLACEHOLDER.search(self.in_place(w)) for w in words)

    def _run(self, words: Sequence[str]) -> str:
        short = self.shortened([self.in_place(word) for word in words[1:]])
        outcome = subfl(*short, cwd=self.folder, env={"FLWR_HOME": str(self.folder / ".flwr"), "MPLBACKEND": "agg"})
        assert outcome.code == 0, f"{shlex.join(words)}\n{shlex.join(short)}\n{outcome.stdout}{outcome.stderr}"
        return outcome.stdout

    def shortened(self, words: Sequence[str]) -> list[str]:
        """A command on small data with one round, two values of a sweep's first setting and one of the others."""
        swept, rest = 0, list[str]()
        for word in words:
            values = values_of(word) if sweeps(words) and "=" in word else [word]
            if len(values) > 1:
                swept += 1
                key = word.partition("=")[0]
                word = f"{key}={','.join(value.partition('=')[2] for value in values[: 2 if swept == 1 else 1])}"
            key, _, value = word.partition("=")
            rest += INSTEAD.get(value, (word,)) if key == "dataset" else (word,)
        if words[0] not in COMMANDS:
            settings = [word.partition("=")[0] for word in SHORTER]
            rest = [word for word in rest if word.partition("=")[0] not in settings]
            self._runs += 1
            own = "hydra.sweep.dir" if sweeps(rest) else "hydra.run.dir"
            place = [] if any(word.startswith(own) for word in rest) else [f"{own}={self._place(own)}"]
            chosen = [value for word in rest for key, _, value in (word.partition("="),) if key == "method"]
            rest += [*SHORTER, *place, *(setting for method in chosen for setting in FASTER.get(method, ()))]
        return rest

    def _place(self, own: str) -> str:
        return f"{'multirun' if 'sweep' in own else 'outputs'}/day/{self._runs:03}"

    def in_place(self, word: str) -> str:
        """A word with the folder of the last run or sweep for a folder that is named by a date."""

        def last(found: re.Match[str]) -> str:
            made = sorted((self.folder / found[1] / "day").glob("*"))
            return f"{found[1]}/day/{made[-1].name}" if made else found[0]

        return re.sub(r"\b(outputs|multirun)/(?:<date>/<time>|20\d\d-\d\d-\d\d/\d\d-\d\d-\d\d)", last, word)

    def _python(self, text: str) -> str:
        short = re.sub(r"\brounds=\d+", "rounds=1", text)
        printed = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
            exec(compile(short, str(self.page), "exec"), self._names)
        return printed.getvalue()


def write_tables(folder: Path) -> None:
    """Write the tables that pages assume a reader to have: a graph in ``wards/`` and ``ratings.csv``."""
    nodes, items = range(200), range(60)
    (folder / "wards").mkdir()
    rows = {
        "wards/nodes.csv": ["id,label,age", *(f"n{n},{'xyz'[n % 3]},{20 + n % 3 * 9 + n % 7}" for n in nodes)],
        "wards/edges.csv": ["source,target,weight", *(f"n{n},n{(n + k) % 200},{k}" for n in nodes for k in (1, 3))],
        "ratings.csv": [
            "user,item,rating",
            *(f"user-{u},i{i},{1 + (u + i) % 5}" for u in range(20) for i in items[u % 4 :: 4]),
        ],
    }
    for name, lines in rows.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def pages() -> list[Path]:
    """All pages for readers, except those of examples, which have their own tests."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
