"""The list of commands, as `subfl --help` shows it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from subfl_flower.catalogue.groups import GROUPS, choices, group_of, override_of
from subfl_flower.catalogue.suggestions import nearest


@dataclass(frozen=True)
class Listed:
    """A command in the list.

    Attributes:
        module: module of the shape of `commands.parser.Command`, imported on use.
        section: heading of the list.
    """

    module: str
    section: str

    @property
    def summary(self) -> str:
        """The command's ``SUMMARY``, read from the text of its module, because an import may take seconds."""
        spec = find_spec(self.module)
        assert spec is not None and spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                names = node.targets if isinstance(node, ast.Assign) else [node.target]
                if any(isinstance(name, ast.Name) and name.id == "SUMMARY" for name in names):
                    return str(ast.literal_eval(node.value))
        return (ast.get_docstring(tree) or "").partition("\n")[0]


COMMANDS = {
    "launch": Listed("subfl_flower.launch.command", "Train"),
    "app": Listed("subfl_flower.launch.app_command", "Train"),
    "list": Listed("subfl_flower.commands.list", "Choose settings and check data"),
    "inspect": Listed("subfl_flower.commands.inspect", "Choose settings and check data"),
    "report": Listed("subfl_flower.evaluation.report", "Look at results"),
    "reproduce": Listed("subfl_flower.reproduction.reproduce", "Look at results"),
    "analyse": Listed("subfl_flower.analysis.analyse", "Look at results"),
    "predict": Listed("subfl_flower.commands.predict", "Use trained models"),
    "recommend": Listed("subfl_flower.commands.recommend", "Use trained models"),
    "partition": Listed("subfl_flower.commands.partition", "Real machines"),
    "deploy": Listed("subfl_flower.deploy.command", "Real machines"),
    "completion": Listed("subfl_flower.commands.completion", "Shell"),
}

TRAINING = {
    "KEY=VALUE ...": "Train one run; without settings, FED-PUB on a small data set.",
    "-m KEY=A,B ...": "Train a sweep: one run for each combination of values.",
    "resume=RUN": "Continue an interrupted run.",
}
_OPTIONS = {
    "--code DIR": "Import your modules and choices from this folder instead of the working directory.",
    "--cfg job": "With settings: print the configuration, and train nothing.",
    "--version": "Print the version.",
    "--hydra-help": "Explain the options of Hydra, which reads the settings.",
}


def overview() -> str:
    """The text of `subfl --help`."""
    sections = {"Train": {f"subfl {form}": text for form, text in TRAINING.items()}}
    for name, listed in COMMANDS.items():
        sections.setdefault(listed.section, {})[f"subfl {name}"] = listed.summary
    sections["Options"] = {f"subfl {form}": text for form, text in _OPTIONS.items()}
    width = max(len(form) for lines in sections.values() for form in lines) + 2
    parts = ["usage: subfl [COMMAND] [ARGUMENTS]\n\nFederated learning on graphs that may not be shared."]
    for section, lines in sections.items():
        parts.append("\n".join([f"{section}:", *(f"  {form:<{width}}{text}" for form, text in lines.items())]))
    parts.append(_SETTINGS)
    parts.append("subfl COMMAND --help tells more about a command, with examples.")
    return "\n\n".join(parts)


_SETTINGS = f"""\
Settings are given as KEY=VALUE. KEY is a group, whose VALUE is one of its choices (method=fedpub), or the dotted
name of a single setting (federation.rounds=50). The groups are
{", ".join(GROUPS.values())}.
subfl list methods names the choices of method, and subfl list methods fedpub the settings of one of them.
  subfl method=fedpub dataset=cora partition.clients=10 federation.rounds=50
  subfl -m method=local,fedavg,fedpub dataset=cora seed=0,1,2"""


def unknown_command(word: str) -> str | None:
    """One sentence on a first argument that is neither a command nor an override or option; None for these."""
    if not re.fullmatch(r"[A-Za-z][\w-]*", word):
        return None
    begin = f"{word}: there is no such command"
    if near := nearest(word, COMMANDS):
        return f"{begin}; did you mean subfl {near}?"
    if title := next((title for title, group in GROUPS.items() if word in (title, group)), nearest(word, GROUPS)):
        return f"{begin}; did you mean subfl list {title}?"
    if group := group_of(word):
        return f"{begin}; did you mean subfl {override_of(group, word)}?"
    names = {name: group for group in ("method", "dataset") for name in choices(group)}
    if near := nearest(word, names):
        return f"{begin}; did you mean subfl {override_of(names[near], near)}?"
    return f"{begin}; there are {', '.join(COMMANDS)}, and settings are given as KEY=VALUE"
