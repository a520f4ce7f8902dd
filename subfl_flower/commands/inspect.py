"""`subfl inspect`: describe the data of a run with the same overrides, without training."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from subfl_flower.commands.exit_codes import OK
from subfl_flower.commands.parser import own_settings
from subfl_flower.errors import SubflError

SUMMARY = "Describe the data of a run with the same overrides; nothing is trained."
EXAMPLE = """
subfl inspect dataset=custom dataset.path=my_tables/ partition.clients=5
subfl inspect dataset=custom_ratings dataset.path=ratings.csv task=ranking out=facts.json
"""

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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the overrides; ``out=FILE`` is among them."""
    parser.usage = "subfl inspect [KEY=VALUE ...] [out=FILE]"
    parser.description = """\
Show what a run with the same overrides would be trained on: nodes, edges, features, classes,
masks, users, items, ratings, the sizes of clients, what of the files is not used and why, and what looks
wrong. Nothing is trained."""
    parser.epilog = "out=FILE     write the same as JSON; every simulation keeps it as data.json"
    parser.add_argument("arguments", nargs="*", metavar="KEY=VALUE", help="overrides as of subfl")


def run(options: argparse.Namespace) -> int:
    """Show the facts on the data; with ``out=FILE`` write them too.

    Raises:
        SubflError: the configuration or the data cannot be used, or a run would be refused.
    """
    from subfl_flower.composition import composed_config
    from subfl_flower.node.domain import domain_of

    own, overrides = own_settings(options.arguments, ["out"])
    config, _ = composed_config(_with_a_method(overrides))
    facts, problem = domain_of(config).inspect(config)
    _show(facts, f"dataset={config.dataset.name}, partition={config.partition.name}, task={config.task.name}")
    if "out" in own:
        _write(Path(own["out"]).expanduser(), facts)
    if problem is not None:
        raise SubflError(f"a run would be refused: {problem}")
    return OK


def _write(path: Path, facts: Mapping[str, Any]) -> None:
    from subfl_flower.storage.durable_files import write_durably

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, json.dumps(facts, indent=1).encode() + b"\n")
    except OSError as error:
        raise SubflError(f"out: {path} cannot be written: {error.strerror or error}") from None
    print(f"the same as JSON in {path}")


def _with_a_method(overrides: Sequence[str]) -> list[str]:
    """Overrides that name a method for the kind of data. Data do not depend on it, but the default is for graphs."""
    from subfl_flower.composition import chosen_dataset
    from subfl_flower.node.domain import domain_named

    if any(override.startswith("method=") for override in overrides):
        return list(overrides)
    domain = domain_named(getattr(chosen_dataset(overrides), "kind", ""))
    named = () if domain is None or domain.example_method is None else (f"method={domain.example_method}",)
    return [*named, *overrides]


def _show(facts: Mapping[str, Any], title: str) -> None:
    from subfl_flower.commands.tables import print_table

    print(title)
    print_table((), list(_rows(facts)))
    if classes := facts.get("classes"):
        total = max(sum(classes.values()), 1)
        counts = [(label, f"{count:,}", f"{count / total:.1%}") for label, count in classes.items()]
        print_table(("class", "nodes", "share"), counts, _MOST_ROWS)
    if clients := facts.get("clients"):
        sizes = [(number, *(f"{value:,}" for value in client.values())) for number, client in enumerate(clients)]
        print_table(("client", *clients[0]), sizes, _MOST_ROWS, numbers=True)
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
