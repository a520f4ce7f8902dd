"""Lists of the methods and data sets that can be chosen, those of ``subfl list``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import overload

from subfl_flower.catalogue.groups import choices
from subfl_flower.catalogue.sheet import Sheet
from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.code_folder import adopted_here
from subfl_flower.errors import SubflError
from subfl_flower.front.tables import html_rows


class Listing(Sequence[Sheet]):
    """Choices of a section of the configuration: a table in a notebook, lines of text elsewhere.

    A choice is found by its place or its name. It has ``name``, ``summary`` (one sentence), ``description``, ``facts``
    (by ``Source``, ``Needs``, ``Sends``, ``Protects``, ``Cost``), ``settings`` (each with ``key``, ``value``,
    ``comment``) and ``examples`` (command lines).

    Args:
        group: name of the section.
        found: the choices by name.
    """

    def __init__(self, group: str, found: Mapping[str, Sheet]) -> None:
        self._group = group
        self._found = dict(found)

    @property
    def names(self) -> list[str]:
        """The names of all choices."""
        return list(self._found)

    @overload
    def __getitem__(self, place: int | str) -> Sheet: ...

    @overload
    def __getitem__(self, place: slice) -> list[Sheet]: ...

    def __getitem__(self, place: int | str | slice) -> Sheet | list[Sheet]:
        """The choice at a place or of a name.

        Raises:
            SubflError: there is no choice of this name.
        """
        if not isinstance(place, str):
            return list(self._found.values())[place]
        if place not in self._found:
            raise SubflError(
                f"{self._group}={place}: there is no such choice; available: {', '.join(self._found)}"
                f"{did_you_mean(place, self._found)}"
            )
        return self._found[place]

    def __len__(self) -> int:
        return len(self._found)

    def __repr__(self) -> str:
        width = max(map(len, self._found), default=0)
        return "\n".join(f"{name:<{width}}  {sheet.summary}".rstrip() for name, sheet in self._found.items())

    def _repr_html_(self) -> str:
        return html_rows(("name", "about"), [(name, sheet.summary) for name, sheet in self._found.items()])


def methods() -> Listing:
    """The methods that can be chosen, also those in the folder ``conf/method`` of the working directory.

    Only YAML files are read.

    Example:
        >>> from subfl_flower import methods
        >>> methods()["fedprox"].facts["Source"]
    """
    with adopted_here():
        return Listing("method", choices("method"))


def datasets() -> Listing:
    """The data sets that can be chosen, also those in the folder ``conf/dataset`` of the working directory.

    Only YAML files are read; public data sets are downloaded when a run first uses them.

    Example:
        >>> from subfl_flower import datasets
        >>> datasets().names
    """
    with adopted_here():
        return Listing("dataset", choices("dataset"))
