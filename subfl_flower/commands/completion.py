"""`subfl completion`: completion of commands, options, groups, choices and settings by the shell."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterator, Sequence

from subfl_flower.catalogue.groups import GROUPS, choices, general_settings, override_of
from subfl_flower.commands.exit_codes import OK

SUMMARY = "Print a script for bash that completes commands and settings."
EXAMPLE = """
eval "$(subfl completion bash)"
subfl completion bash >> ~/.bashrc
"""

_WITH_OVERRIDES = ("inspect", "partition", "launch", "analyse")

_BASH = r"""
_subfl() {
    local line="${COMP_LINE:0:COMP_POINT}" word known IFS=$'\n'
    word="${line##*[[:space:]]}"
    COMPREPLY=($(subfl completion query "$line" 2>/dev/null))
    known="${word%"${word##*[=:]}"}"  # bash takes "=" and ":" for the end of a word
    [[ -n "$known" && "$COMP_WORDBREAKS" == *"="* ]] && COMPREPLY=("${COMPREPLY[@]#"$known"}")
    return 0
}
complete -o default -o nospace -F _subfl subfl
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell, and the line to complete."""
    parser.usage = "subfl completion bash"
    parser.add_argument("shell", choices=("bash", "query"), metavar="SHELL", help="bash")
    parser.add_argument("line", nargs="?", default="", help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Print the script; or the words by which a line may go on, one a line."""
    print(_BASH.strip() if options.shell == "bash" else "\n".join(continued(options.line)))
    return OK


def continued(line: str) -> list[str]:
    """The words that the last word of a command line may become.

    Args:
        line: the line up to the cursor, with the program's name; a blank at its end begins a new word.
    """
    *before, last = line.split() if not line[-1:].isspace() else [*line.split(), ""]
    return sorted({word for word in _words(before[1:], last) if word.startswith(last) and word != last})


def _words(before: Sequence[str], last: str) -> Iterator[str]:
    from subfl_flower.commands.overview import COMMANDS

    while before[:1] == ["--code"]:
        before = before[2:]
    if not before:
        yield from COMMANDS
        yield from ("--code", "--help", "--version", "-m", "resume=")
    elif before[0] in COMMANDS:
        yield from _arguments(COMMANDS[before[0]].module, before)
        if before[0] not in _WITH_OVERRIDES and before[:2] != ["deploy", "submit"]:
            return
    yield from _overrides(before, last)


def _arguments(name: str, before: Sequence[str]) -> Iterator[str]:
    """Options and values of a command, as its help tells them."""
    from subfl_flower.commands.parser import Commands, parser_of

    if before[0] == "list":
        yield from GROUPS if len(before) == 1 else choices(GROUPS.get(before[1], before[1]))
    command = importlib.import_module(name)
    if isinstance(command, Commands):
        if len(before) == 1:
            yield from command.SUBCOMMANDS
            return
        command = command.SUBCOMMANDS[before[1]]
    yield from re.findall(r"--[\w-]+", parser_of(before[0], command).format_help())


def _overrides(before: Sequence[str], last: str) -> Iterator[str]:
    """Overrides: groups, the choices of the one that is begun, and settings."""
    chosen = dict(word.lstrip("+").split("=", 1) for word in before if "=" in word)
    for group in GROUPS.values():
        begin = override_of(group, "")
        if last.startswith(begin):
            earlier, comma, _ = last.rpartition(",")  # a sweep has several values
            yield from (f"{earlier + comma or begin}{name}" for name in choices(group))
            return
        yield begin
        if last.startswith(f"{group}."):
            sheets = choices(group)
            one = sheets.get(chosen.get(group, ""))
            for sheet in sheets.values() if one is None else [one]:
                yield from (f"{group}.{setting.key}=" for setting in sheet.settings)
    yield from (f"{setting.key}=" for setting in general_settings())
