"""`subfl reproduce NAME`: the runs of an experiment, a small JSON for each, and a page with the paper's figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from subfl_flower.commands.exit_codes import FAILED, INTERRUPTED, OK
from subfl_flower.commands.parser import own_settings
from subfl_flower.errors import SubflError

if TYPE_CHECKING:
    from subfl_flower.reproduction.experiment import Experiment
    from subfl_flower.sweeps.job import Outcome

SUMMARY = "Run an experiment, or go on with it, and write its table beside the paper's figures."
EXAMPLE = """
subfl reproduce --list
subfl reproduce fedpub_table2 sweep.jobs=2
subfl reproduce fedpub_table2+strong_subgraphs dataset=photo partition.seed=11,12,13
subfl reproduce fedpub_table2 --only-report
"""

_OWN = ("out", "runs", "sweep.jobs", "sweep.redo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the experiment, overrides and options."""
    parser.description = f"""{SUMMARY}

Completed runs are reused, and runs that were cut off go on, so that the same command can be repeated. A small JSON
for each run, README.md with the table, and figures are written into out=DIR (docs/results/NAME, or results/NAME
where there is no folder docs). The runs themselves are in runs=DIR (multirun/reproduce/NAME)."""
    parser.add_argument("experiment", nargs="?", metavar="NAME", help="an experiment; several are joined by +")
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="out=, runs=, sweep.jobs=, and overrides")
    parser.add_argument("--list", action="store_true", help="list the experiments")
    parser.add_argument("--only-report", action="store_true", help="train nothing; make the page from the JSONs")
    parser.add_argument("--baseline", metavar="METHOD", help="method that differences are to (fedavg)")


def run(options: argparse.Namespace) -> int:
    """Run and report.

    Returns:
        1 where a run failed, 130 where the user stopped; the page is of the completed runs.

    Raises:
        SubflError: there is no such experiment, a setting cannot be used, or a file cannot be read or written.
    """
    from subfl_flower.reproduction.experiment import Experiment, is_search

    if options.list:
        return _list()
    if options.experiment is None or "=" in options.experiment:
        raise SubflError("the name of an experiment comes first; subfl reproduce --list names all of them")
    experiment = Experiment.named(options.experiment)
    own, overrides = own_settings(options.arguments, _OWN)
    if overrides and options.only_report:
        raise SubflError(f"{overrides[0]}: --only-report trains nothing, and takes out= alone")
    for sheet in filter(is_search, experiment.sheets):
        raise SubflError(f"{sheet.name}: is a search, whose runs depend on each other; use subfl {experiment.override}")
    top = Path("docs/results" if Path("docs").is_dir() else "results")
    folder = Path(own.get("out") or top / experiment.name).expanduser()
    code = OK if options.only_report else _train(experiment, overrides, own, folder)
    _report(experiment, folder, options.baseline)
    return code


def _list() -> int:
    from subfl_flower.reproduction.experiment import listed
    from subfl_flower.reproduction.papers import printed_table

    found = listed()
    width = max(map(len, found)) + 2
    for name, experiment in found.items():
        printed = printed_table(name)
        at_hand = "" if printed is None else f" [{printed.source}{'' if printed.at_hand else ', not at hand'}]"
        print(f"{name:<{width}}{experiment.sheets[0].summary}{at_hand}")
    return OK


def _train(experiment: Experiment, overrides: list[str], own: Mapping[str, str], folder: Path) -> int:
    """Train what is left of the runs, and write a card whenever one ends; return the exit code."""
    from subfl_flower.reproduction.cards import write_card
    from subfl_flower.sweeps.engine import checked_settings, run_sweep

    jobs = experiment.jobs(overrides)
    runs = Path(own.get("runs") or Path("multirun/reproduce") / experiment.name).expanduser()
    estimate = f"; {experiment.cost}" if experiment.cost else ""
    print(f"{experiment.name}: {len(jobs)} runs in {runs}{estimate}", file=sys.stderr, flush=True)
    failed: list[str] = []

    def ended(outcome: Outcome) -> None:
        if outcome.status == "completed":
            write_card(outcome.directory, folder)
        else:
            failed.append(f"{outcome.directory.name}: {outcome.error or outcome.status}")

    settings = checked_settings(
        {name: own[f"sweep.{name}"] for name in ("jobs", "redo") if f"sweep.{name}" in own}, "sweep."
    )
    try:
        places = run_sweep(
            jobs,
            runs,
            jobs=settings.jobs,
            redo=settings.redo,
            ended=ended,
        )
    except KeyboardInterrupt:
        print(f"subfl reproduce: interrupted; the same command goes on, with the runs in {runs}", file=sys.stderr)
        return INTERRUPTED
    of_others = {path.stem for path in folder.glob("*.json")} - {place.name for place in places}
    if of_others:
        words = f"{len(of_others)} results in {folder} are of other settings or calls, and are in the table, too"
        print(f"subfl reproduce: {words}: {', '.join(sorted(of_others))}", file=sys.stderr)
    if failed:
        print(f"subfl reproduce: {len(failed)} of {len(jobs)} runs failed:", *failed, sep="\n  ", file=sys.stderr)
        return FAILED
    return OK


def _report(experiment: Experiment, folder: Path, baseline: str | None) -> None:
    from subfl_flower.reproduction.cards import read_cards
    from subfl_flower.reproduction.papers import printed_table
    from subfl_flower.reproduction.result_page import cost_text, write_page

    runs = read_cards(folder)
    for path in write_page(experiment, runs, printed_table(experiment.name), folder, baseline):
        print(path)
    print(cost_text(runs), flush=True)
