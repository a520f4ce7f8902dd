"""One parser and one list of exit codes for all commands.

A command is a module with the attributes of `Command`. It neither parses its arguments nor catches errors.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.commands.exit_codes import BAD_INPUT, FAILED, INTERRUPTED, OK
from subfl_flower.errors import RunFailure, SubflError

_REFUSED = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EROFS}
"""The system's reasons to refuse a path, which no program can know before it uses the path."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one sentence, with a suggestion for a misspelt option or choice."""

    def error(self, message: str) -> NoReturn:
        """Print the sentence, and exit with the code of bad input."""
        advice = ""
        if found := re.match(r"unrecognized arguments: (--[\w-]+)", message):
            advice = did_you_mean(found[1], re.findall(r"--[\w-]+", self.format_help()))
        elif found := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            advice = did_you_mean(found[1], re.findall(r"[\w-]+", found[2]))
        self.exit(BAD_INPUT, f"{self.prog}: {message}{advice or f'; see {self.prog} --help'}\n")


class Command(Protocol):
    """A command of `subfl`; modules and `Subcommand` have this shape."""

    @property
    def SUMMARY(self) -> str:
        """One line for the list of commands."""

    @property
    def EXAMPLE(self) -> str:
        """One or more command lines."""

    @property
    def add_arguments(self) -> Callable[[argparse.ArgumentParser], None]:
        """Add the arguments to a parser; may replace its description and set an epilog, which the examples follow."""

    @property
    def run(self) -> Callable[[argparse.Namespace], int]:
        """Do what the parsed arguments ask for; return the exit code."""


@runtime_checkable
class Commands(Protocol):
    """A command that consists of others, as in ``subfl deploy submit``."""

    @property
    def SUMMARY(self) -> str:
        """One line for the list of commands."""

    @property
    def EXAMPLE(self) -> str:
        """One or more command lines."""

    @property
    def SUBCOMMANDS(self) -> Mapping[str, Command]:
        """The other commands, by name."""


@dataclass(frozen=True)
class Subcommand:
    """One of several commands of a module; see `Command`."""

    SUMMARY: str
    EXAMPLE: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def run_command(name: str, command: Command | Commands, argv: Sequence[str]) -> int:
    """Run a command.

    Args:
        name: name of the command, without ``subfl``.
        command: the command.
        argv: the arguments that follow the name.

    Returns:
        The exit code: that of the command; 2 for bad input, 1 for a run that failed, 130 after Ctrl-C. An error is one
        sentence on standard error.
    """
    try:
        while isinstance(command, Commands):
            chosen = _overview(name, command).parse_args(argv[:1]).subcommand
            name, command, argv = f"{name} {chosen}", command.SUBCOMMANDS[chosen], argv[1:]
        options = parser_of(name, command).parse_intermixed_args(argv)
    except SystemExit as exit_:  # argparse has printed its message, or the help that was asked for
        return int(exit_.code or 0)
    return exit_code(name, command.run, options)


def exit_code(name: str, run: Callable[..., int], *arguments: Any) -> int:
    """Call a function and return its exit code, or print one sentence on its error and return the code of that.

    Args:
        name: name of the command; empty for `subfl` itself.
        run: the function.
        arguments: its arguments.
    """
    try:
        code = run(*arguments)
        sys.stdout.flush()  # a closed pipe is noticed here, not when the interpreter ends
        return code
    except SubflError as error:
        _print_error(name, str(error))
        return FAILED if isinstance(error, RunFailure) else BAD_INPUT
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except MemoryError as error:
        _print_error(name, f"this machine has not enough memory: {error or 'all of it is in use'}")
        return FAILED
    except OSError as error:
        if error.errno not in _REFUSED or error.filename is None:
            raise
        _print_error(name, f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}")
        return BAD_INPUT


def _print_error(name: str, sentence: str) -> None:
    print(f"{' '.join(['subfl', *name.split()[:1]])}: {sentence}", file=sys.stderr)


def parser_of(name: str, command: Command) -> argparse.ArgumentParser:
    """The parser of a command's arguments."""
    parser = Parser(
        prog=f"subfl {name}", description=command.SUMMARY, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_arguments(parser)
    _add_examples(parser, command.EXAMPLE)
    return parser


def _add_examples(parser: argparse.ArgumentParser, text: str) -> None:
    lines = text.strip().splitlines()
    examples = "\n  ".join(["example:" if len(lines) == 1 else "examples:", *lines])
    parser.epilog = f"{parser.epilog}\n\n{examples}" if parser.epilog else examples


def own_settings(arguments: Sequence[str], names: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """Split the KEY=VALUE arguments of a command into its settings and overrides.

    Args:
        arguments: the arguments.
        names: names of the command's settings.

    Returns:
        The settings by name, the last value of each; and the other arguments.
    """
    own, others = {}, []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name in names:
            own[name] = value
        else:
            others.append(argument)
    return own, others


def _overview(name: str, commands: Commands) -> argparse.ArgumentParser:
    """The parser of the name of a subcommand."""
    width = max(map(len, commands.SUBCOMMANDS)) + 2
    listed = "\n".join(f"  {each:{width}}{command.SUMMARY}" for each, command in commands.SUBCOMMANDS.items())
    parser = Parser(
        prog=f"subfl {name}",
        description=f"{commands.SUMMARY}\n\n{listed}",
        epilog=f"subfl {name} SUBCOMMAND --help tells more about each.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subcommand", choices=commands.SUBCOMMANDS, metavar="SUBCOMMAND")
    _add_examples(parser, commands.EXAMPLE)
    return parser
