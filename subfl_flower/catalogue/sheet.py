"""One YAML file of ``conf/``: its opening comment, and its settings with theirs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from subfl_flower.errors import SubflError

FACTS = ("Source", "Needs", "Sends", "Protects", "Cost")
"""Words that begin a fact in an opening comment, as in ``# Source: McMahan et al., AISTATS 2017``."""

FIGURE = "Figure"
"""Word that begins an experiment's figures: ``rounds``, ``bytes``, or a numeric key, separated by commas."""

_NO_SETTINGS = ("defaults", "name", "mechanism", "strategy", "client", "_target_", "hydra")
_FACT = re.compile(rf"({'|'.join((*FACTS, FIGURE))}): (.*)")
_END_OF_SENTENCE = re.compile(r"(?<=[.!?])(?<!Fig\.)(?<!App\.)\s+(?=[A-Z0-9`(])")


@dataclass(frozen=True)
class Setting:
    """A setting of a YAML file.

    Attributes:
        key: key with dots.
        value: value as it is written.
        comment: the comment behind the line, or the block of comments above it.
    """

    key: str
    value: str
    comment: str


@dataclass(frozen=True)
class Sheet:
    """The description of one choice of a group.

    Attributes:
        path: the YAML file.
    """

    path: Path

    @cached_property
    def _text(self) -> str:
        with _reading(self.path):
            return self.path.read_text(encoding="utf-8")

    @property
    def name(self) -> str:
        """Name of the choice."""
        return self.path.stem

    @cached_property
    def _opening(self) -> list[str]:
        """Lines of the comment at the top of the file, without their ``#``."""
        lines = []
        for line in self._text.splitlines():
            if not line.startswith("#"):
                break
            lines.append(line[1:].removeprefix(" ").rstrip())
        return [line for line in lines if not line.startswith("@package")]

    @cached_property
    def examples(self) -> list[str]:
        """Command lines."""
        return [line.strip() for line in self._opening if line.lstrip().startswith("subfl ")]

    @cached_property
    def facts(self) -> dict[str, str]:
        """Facts by their words of `FACTS`."""
        return {match[1]: match[2] for line in self._opening if (match := _FACT.fullmatch(line))}

    @cached_property
    def description(self) -> str:
        """The opening comment without command lines and facts."""
        prose = (line.strip() for line in self._opening if not _FACT.fullmatch(line))
        return " ".join(line for line in prose if line and not line.startswith("subfl "))

    @property
    def summary(self) -> str:
        """The first sentence of the description."""
        return _END_OF_SENTENCE.split(self.description, maxsplit=1)[0].rstrip(":")

    @cached_property
    def chosen(self) -> dict[str, str]:
        """Choices of other groups that this one takes, by group."""
        found: dict[str, str] = {}
        for base in self.bases:
            found |= base.chosen
        for each in self._values.get("defaults", []):
            if isinstance(each, dict):
                for key, choice in each.items():
                    found[re.sub(r"^override /|@.*$", "", str(key))] = str(choice)
        return found

    @cached_property
    def sweep(self) -> dict[str, str]:
        """The values that a sweep runs through, by key."""
        found: dict[str, str] = {}
        for base in self.bases:
            found |= base.sweep
        params = self._values.get("hydra", {}).get("sweeper", {}).get("params", {})
        return found | {str(key): str(value) for key, value in params.items()}

    @cached_property
    def bases(self) -> list[Sheet]:
        """The choices of the same group that this one extends."""
        names = [each for each in self._values.get("defaults", []) if isinstance(each, str) and each != "_self_"]
        return [Sheet(path) for name in names if (path := self.path.with_name(f"{name}.yaml")).is_file()]

    @cached_property
    def _values(self) -> dict[str, Any]:
        with _reading(self.path):
            values = yaml.safe_load(self._text)
        return values if isinstance(values, dict) else {}

    @cached_property
    def settings(self) -> list[Setting]:
        """The settings in the file's order, after those of `bases`; without names of classes."""
        found: dict[str, Setting] = {}
        for base in self.bases:
            found |= {setting.key: setting for setting in base.settings}
        with _reading(self.path):
            own = list(settings_of(self._text, *_NO_SETTINGS))
        for setting in own:
            inherited = found.get(setting.key)
            comment = setting.comment or (inherited.comment if inherited else "")
            found[setting.key] = replace(setting, comment=comment)
        return list(found.values())


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file, which may be a user's, in one sentence where it cannot be read."""
    try:
        yield
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise SubflError(f"{path} is no readable YAML file: {' '.join(str(error).split())}") from None


def settings_of(text: str, *left_out: str) -> Iterator[Setting]:
    """The settings of the text of a YAML file in their order, without the top-level keys in `left_out`."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if isinstance(root, yaml.MappingNode):
        yield from _settings(root, text.splitlines(), "", left_out)


def _settings(node: yaml.MappingNode, lines: list[str], prefix: str, left_out: tuple[str, ...]) -> Iterator[Setting]:
    for key, value in node.value:
        if not prefix and key.value in left_out:
            continue
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value:
            yield from _settings(value, lines, f"{name}.", left_out)
        else:
            written = lines[value.start_mark.line][value.start_mark.column :] if value.value != "" else ""
            yield Setting(name, re.sub(r"\s+#.*", "", written).strip(), _comment(lines, key.start_mark.line))


def _comment(lines: list[str], number: int) -> str:
    """The comment behind a line, or the block of comments directly above it."""
    if behind := re.search(r"\s#\s*(.*)", lines[number]):
        return behind[1]
    above: list[str] = []
    while number > 0 and lines[number - 1].lstrip().startswith("#"):
        number -= 1
        above.insert(0, lines[number].lstrip("# ").rstrip())
    return " ".join(above) if number > 0 else ""  # a comment at the top of a file describes the file
