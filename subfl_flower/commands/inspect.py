"""`subfl inspect`: describe the data of a run with the same overrides, without training."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from subfl_flower.composition import chosen_dataset, composed_config
from subfl_flower.errors import SubflError
from subfl_flower.node.domain import domain_named, domain_of
from subfl_flower.storage.durable_files import write_durably

_MOST_ROWS = 30
_ELSEWHERE = {
    "schema",
    "classes",
    "clients",
    "dropped",
    "warnings",
    "fingerprints",
    "user_attributes",
    "item_attributes",
}


def main(argv: Sequence[str]) -> int:
    """Run `subfl inspect ARGV`; return the exit code, 2 for errors that the user can mend."""
    try:
        arguments: list[str] = _parser().parse_args(argv).arguments
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    try:
        _inspect(arguments)
    except SubflError as error:
        print(f"subfl inspect: {error}", file=sys.stderr)
        return 2
    return 0


def _inspect(arguments: Sequence[str]) -> None:
    overrides = [argument for argument in arguments if not argument.startswith("out=")]
    out = [argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")]
    config, _ = composed_config(_with_a_method(overrides))
    facts, problem = domain_of(config).inspect(config)
    _show(facts, f"dataset={config.dataset.name}, partition={config.partition.name}, task={config.task.name}")
    if out:
        path = Path(out[-1]).expanduser()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(path, json.dumps(facts, indent=1).encode() + b"\n")
        except OSError as error:
            raise SubflError(f"out: {path} cannot be written: {error.strerror or error}") from None
        print(f"the same as JSON in {path}")
    if problem is not None:
        raise SubflError(f"a run would be refused: {problem}")


def _with_a_method(overrides: Sequence[str]) -> list[str]:
    """Overrides that name a method for the kind of data. Data do not depend on it, but the default is for graphs."""
    if any(override.startswith("method=") for override in overrides):
        return list(overrides)
    domain = domain_named(getattr(chosen_dataset(overrides), "kind", ""))
    named = () if domain is None or domain.example_method is None else (f"method={domain.example_method}",)
    return [*named, *overrides]


def _show(facts: Mapping[str, Any], title: str) -> None:
    console = Console()
    print(title)
    table = Table("fact", "value", show_header=False)
    for name, value in _rows(facts):
        table.add_row(name, Text(value))
    console.print(table)
    if facts.get("classes"):
        _show_counts(console, "class", "nodes", facts["classes"])
    if facts.get("clients"):
        _show_clients(console, facts["clients"])
    for part, called in (("dropped", "not used"), ("warnings", "warning")):
        for line in facts.get(part, ()):
            print(f"{called}: {line}")
    for part, digest in facts.get("fingerprints", {}).items():
        if isinstance(digest, str):
            print(f"fingerprint of the {part}: {digest[:16]}")


def _rows(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if name in _ELSEWHERE or value is None:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {_number(part)}" for key, part in value.items())
        elif isinstance(value, list | tuple):
            value = " to ".join(map(_number, value))
        yield name.replace("_", " "), _number(value)
    for of in ("user", "item"):
        if attributes := facts.get(f"{of}_attributes"):
            yield f"{of} attributes", ", ".join(f"{field} ({count} values)" for field, count in attributes.items())


def _number(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show_counts(console: Console, name: str, counted: str, counts: Mapping[str, int]) -> None:
    table = Table(name, counted, "share")
    total = max(sum(counts.values()), 1)
    for label, count in list(counts.items())[:_MOST_ROWS]:
        table.add_row(Text(label), f"{count:,}", f"{count / total:.1%}")
    if len(counts) > _MOST_ROWS:
        table.add_row("...", f"{len(counts) - _MOST_ROWS} more", "")
    console.print(table)


def _show_clients(console: Console, clients: Sequence[Mapping[str, int]]) -> None:
    table = Table("client", *clients[0])
    for column in table.columns:
        column.justify = "right"
    for number, client in enumerate(clients[:_MOST_ROWS]):
        table.add_row(str(number), *(f"{value:,}" for value in client.values()))
    if len(clients) > _MOST_ROWS:
        table.add_row("...", *("" for _ in clients[0]))
    console.print(table)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subfl inspect",
        usage="subfl inspect [KEY=VALUE ...] [out=FILE]",
        description="Show what a run with the same overrides would be trained on: nodes, edges, features, classes,\n"
        "masks, users, items, ratings, the sizes of clients, what of the files is not used and why, and what looks\n"
        "wrong. Nothing is trained.",
        epilog="""\
out=FILE     write the same as JSON; every simulation keeps it as data.json

examples:
  subfl inspect dataset=custom dataset.path=my_tables/ partition.clients=5
  subfl inspect dataset=custom_ratings dataset.path=ratings.csv task=ranking out=facts.json""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="overrides as of subfl")
    return parser
