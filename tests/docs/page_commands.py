"""Commands of the pages, checked without being carried out: options are there, and overrides compose."""

from __future__ import annotations

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence

import typer
from flwr.cli.app import app as flwr
from hydra.core.override_parser.overrides_parser import OverridesParser
from page_code import ROOT

from subfl_flower.commands.overview import COMMANDS
from subfl_flower.commands.parser import Commands, parser_of
from subfl_flower.composition import composed_config
from subfl_flower.overrides import literal_paths

SWEEP = ("-m", "--multirun")
EXPERIMENT = "+experiment="
"""Begins the choice of an experiment, which is a sweep."""
PLACEHOLDER = re.compile(r"<\w+>|\.\.\.|/RUN\b|\b20\d\d-\d\d-\d\d/")
"""Parts that a reader replaces: a date, a run's name, further arguments."""
WITH_OVERRIDES = ("inspect", "partition", "launch")
"""Commands that take the overrides of a run, besides settings that are theirs."""
ELSEWHERE = {
    "docker": "it needs a daemon; tests/docker reads the files",
    **dict.fromkeys(("sudo", "export", "cd", "head", "mkdir", "for", "subfl()", "ssh", "scp"), "the shell's"),
    **dict.fromkeys(("pre-commit", "mkdocs", "tensorboard", "mlflow", "wandb"), "another project's"),
}
"""Programs that are not looked at any further."""


def check(words: Sequence[str]) -> None:
    """Check a command that is not carried out; an AssertionError says what a reader would be refused."""
    program = words[0].rsplit("/", 1)[-1]
    if program in ELSEWHERE:
        return
    assert program in CHECKS, f"nobody checks {program}: {shlex.join(words)}"
    CHECKS[program](list(words[1:]))


def _check_subfl(words: list[str]) -> None:
    if words[:1] == ["--code"]:
        words = words[2:]
    name = words[0] if words else ""
    if name not in COMMANDS:
        for job in jobs(words):
            check_overrides(job)
        return
    command = importlib.import_module(COMMANDS[name].module)
    words = words[1:]
    while isinstance(command, Commands):
        assert words[0] in command.SUBCOMMANDS, f"subfl {name} {words[0]}: there is no such command"
        name, command, words = f"{name} {words[0]}", command.SUBCOMMANDS[words[0]], words[1:]
    parser = parser_of(name, command)
    if "..." in words:  # stands for arguments that are needed, too
        unknown = [word for word in words if word.startswith("--") and word not in parser._option_string_actions]
        assert not unknown, f"subfl {name} has no option {unknown[0]}"
        return
    parser.parse_intermixed_args(words)
    if name in WITH_OVERRIDES:
        check_overrides([word for word in words if "=" in word and not word.startswith("-")])


def check_overrides(overrides: Sequence[str]) -> None:
    """Compose overrides, as far as the file of a schema or a run to be resumed need not be there."""
    if not any(word.startswith(("resume=", "schema=")) or PLACEHOLDER.search(word) for word in overrides):
        composed_config([word for word in overrides if not word.startswith(("out=", "client=", "key="))])


def jobs(words: Sequence[str]) -> Iterator[list[str]]:
    """The first and the last job that a command line of a run or a sweep asks for."""
    values = [values_of(word) if sweeps(words) else [word] for word in words if word not in SWEEP]
    yield [each[0] for each in values]
    if any(len(each) > 1 for each in values):
        yield [each[-1] for each in values]


def sweeps(words: Sequence[str]) -> bool:
    """True where commas separate the values of a sweep."""
    return any(word in SWEEP or word.startswith(EXPERIMENT) for word in words)


def values_of(override: str) -> list[str]:
    """The overrides that one of a sweep stands for."""
    (parsed,) = OverridesParser.create().parse_overrides(literal_paths([override], multirun=True))
    if not parsed.is_sweep_override():
        return [override]
    key = override.partition("=")[0]
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def _check_flwr(words: list[str]) -> None:
    group = typer.main.get_command(flwr)
    command = group
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"flwr {words[0]}: there is no such command"
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context("flwr", list(words))
    for given in context.params.get("run_config_overrides") or ():
        check_overrides(shlex.split(tomllib.loads(given).get("overrides", "")))


def _check_make(words: list[str]) -> None:
    text = (ROOT / "Makefile").read_text()
    for word in words:
        name, equals, _ = word.partition("=")
        known = rf"\$\({name}\)" if equals else rf"^{name}:"
        assert re.search(known, text, re.MULTILINE), f"make {word}: the Makefile does not know it"


def _check_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for word in words[1:]:
        asked = re.search(r"(?:subfl-flower|^\.)\[([\w,-]+)\]", word)
        for extra in asked[1].split(",") if asked else ():
            assert extra in extras, f"pip install {word}: there is no extra {extra}"


def _check_python(words: list[str]) -> None:
    if words[:1] == ["-m"]:
        return
    script = ROOT / words[0]
    assert script.is_file(), f"python {words[0]}: there is no such file"
    for word in words[1:]:
        assert not word.startswith("--") or f'"{word}"' in script.read_text(), f"{words[0]} has no option {word}"


CHECKS = {"subfl": _check_subfl, "flwr": _check_flwr, "make": _check_make, "pip": _check_pip, "python": _check_python}
