"""`subfl list`: the choices of every group, and the details of one."""

from __future__ import annotations

import argparse
import shutil
import sys
import textwrap

from subfl_flower.catalogue.groups import GROUPS, choices, is_built_in, override_of
from subfl_flower.catalogue.sheet import Sheet
from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.commands.exit_codes import OK
from subfl_flower.errors import SubflError

SUMMARY = "List methods, data sets, partitions, models, experiments ..., or describe one of them."
EXAMPLE = """
subfl list methods
subfl list methods fedpub
subfl list datasets
"""

_NARROW = 100


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the list's name and the choice's."""
    parser.description = f"{SUMMARY}\nChoices in the folder conf/ where you stand are listed, too."
    parser.add_argument("what", nargs="?", metavar="WHAT", help=", ".join(GROUPS))
    parser.add_argument("name", nargs="?", metavar="NAME", help="the choice to describe, with its settings")


def run(options: argparse.Namespace) -> int:
    """Print a list, or a description.

    Raises:
        SubflError: there is no such list, or no such choice.
    """
    if options.what is None:
        for title, group in GROUPS.items():
            print(f"subfl list {title:<12} {len(choices(group)):>3} choices of {override_of(group, '...')}")
        return OK
    title = _title(options.what)
    group = GROUPS[title]
    found = choices(group)
    if options.name is None:
        width = max(map(len, found)) + 2
        for name, sheet in found.items():
            print(_cut(f"{name:<{width}}{_marked(sheet)}"))
        return OK
    name = options.name.removeprefix("+").removeprefix(f"{group}=")
    if name not in found:
        advice = did_you_mean(name, found) or f"; subfl list {title} names all of them"
        raise SubflError(f"{name}: there is no such choice of {override_of(group, '...')}{advice}")
    _describe(group, found[name])
    return OK


def _title(word: str) -> str:
    for title, group in GROUPS.items():
        if word in (title, group):
            return title
    advice = did_you_mean(word, GROUPS)
    raise SubflError(f"{word}: there is no such list; there are {', '.join(GROUPS)}{advice}")


def _marked(sheet: Sheet) -> str:
    try:
        summary = sheet.summary
    except SubflError as error:  # a file of the user's, which must not hide the other choices
        return str(error)
    return summary if is_built_in(sheet.path) else f"{summary} (yours: {sheet.path})".lstrip()


def _cut(line: str) -> str:
    """A line that fits the terminal; whole where the output is read by a program."""
    width = shutil.get_terminal_size().columns
    return line if not sys.stdout.isatty() or len(line) <= width else f"{line[: width - 4]} ..."


def _describe(group: str, sheet: Sheet) -> None:
    print(override_of(group, sheet.name))
    if sheet.description:
        print(_wrapped(sheet.description))
    for word, text in sheet.facts.items():
        print(_wrapped(text, f"{word + ':':<10}"))
    for word, overrides in (("Takes:", sheet.chosen), ("Runs:", sheet.sweep)):
        if overrides:
            print(_wrapped(" ".join(f"{key}={value}" for key, value in overrides.items()), f"{word:<10}"))
    settings = sheet.settings
    if settings:
        prefix = "" if group == "experiment" else f"{group}."
        print(f"\nsettings, to be changed by {prefix}KEY=VALUE:")
        for setting in settings:
            print(f"  {setting.key} = {setting.value}")
            if setting.comment:
                print(_wrapped(setting.comment, " " * 6))
    if sheet.examples:
        print("\nexamples:" if len(sheet.examples) > 1 else "\nexample:")
        for line in sheet.examples:
            print(f"  {line}")
    print(f"\nfile: {sheet.path}")


def _wrapped(text: str, first: str = "") -> str:
    width = min(_NARROW, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=" " * len(first))
