"""Lists of the methods and data sets that can be chosen, read from their YAML files alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from subfl_flower.composition import config_directory
from subfl_flower.front.tables import html_rows


class Choice(NamedTuple):
    """One choice of a section of the configuration.

    Attributes:
        name: the choice, as in ``run(method=name)``.
        about: first sentence of its description.
        settings: its settings with their defaults, as its YAML states them.
    """

    name: str
    about: str
    settings: dict[str, Any]


class Listing(Sequence[Choice]):
    """Choices by name; a table in a notebook, and lines of text elsewhere.

    Args:
        choices: the choices, in the order shown.
    """

    def __init__(self, choices: Sequence[Choice]) -> None:
        self._choices = list(choices)

    @property
    def names(self) -> list[str]:
        """The names of all choices."""
        return [choice.name for choice in self._choices]

    def __getitem__(self, place: Any) -> Any:
        """The choice at a place, or of a name."""
        if isinstance(place, str):
            return self._choices[self.names.index(place)]
        return self._choices[place]

    def __len__(self) -> int:
        return len(self._choices)

    def __repr__(self) -> str:
        width = max(map(len, self.names), default=0)
        return "\n".join(f"{choice.name:<{width}}  {choice.about}" for choice in self._choices)

    def _repr_html_(self) -> str:
        return html_rows(("name", "about"), [(choice.name, choice.about) for choice in self._choices])


def methods() -> Listing:
    """The methods that can be chosen, with a sentence on each.

    Those in the folder ``conf/method`` of the working directory are listed after the built-in ones.

    Example:
        >>> from subfl_flower import methods
        >>> methods()["fedprox"].settings
    """
    return _listing("method")


def datasets() -> Listing:
    """The data sets that can be chosen, with a sentence on each; public ones are downloaded on first use.

    Those in the folder ``conf/dataset`` of the working directory are listed after the built-in ones.

    Example:
        >>> from subfl_flower import datasets
        >>> datasets().names
    """
    return _listing("dataset")


def _listing(group: str) -> Listing:
    folders = dict.fromkeys((config_directory().resolve(), (Path.cwd() / "conf").resolve()))
    files = {path.stem: path for folder in reversed(folders) for path in (folder / group).glob("*.yaml")}
    built_in = {path.stem for path in (next(iter(folders)) / group).glob("*.yaml")}
    order = sorted(files, key=lambda name: (name not in built_in, name))
    return Listing([_choice(name, files[name]) for name in order])


def _choice(name: str, path: Path) -> Choice:
    text = path.read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    return Choice(name, _about(text), content if isinstance(content, dict) else {})


def _about(text: str) -> str:
    """The first sentence of the comment that a file begins with, after its example commands."""
    lines: list[str] = []
    for line in _head(text):
        if not line or line.startswith("subfl "):
            if lines:
                break
            continue
        lines.append(line)
    sentence = re.match(r".+?[.:](?=\s|$)", " ".join(lines))
    return sentence[0].rstrip(".:") if sentence else " ".join(lines)


def _head(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if not line.startswith("#"):
            return
        yield line.lstrip("# ").rstrip()
