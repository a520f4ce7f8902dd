"""Python arguments of a run as overrides of its configuration, those that `subfl` takes on the command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from subfl_flower.catalogue.groups import GROUPS, choices
from subfl_flower.doors import TARGET, DoorSettings, full_name
from subfl_flower.errors import SubflError
from subfl_flower.front.given_data import GivenData, dataset_of_files, given_data
from subfl_flower.overrides import as_value, section_keys

Overrides = Sequence[str] | Mapping[str, Any]
"""Overrides of a configuration: ``["method.tau=5"]`` or ``{"method": {"tau": 5}}``."""

SHORT = {"clients": "partition.clients", "rounds": "federation.rounds"}
"""Arguments that stand for a setting of a section."""

CHOICES = ("method", "dataset", "partition", "model", "task", "runtime", *SHORT, "seed")
"""Arguments that choose something, of `run` and of `sweep`; the first varies last in a sweep."""

_OWN_NETWORK = "module"
"""The model that is any `torch.nn.Module`."""


def chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that choose something, among all of a call (``locals()`` where it begins)."""
    return {name: given[name] for name in CHOICES}


class Arguments:
    """Overrides, and the objects in memory that they name.

    Args:
        chosen: an argument's name and value; a value of None says nothing.
        overrides: further overrides, which count before these.

    Attributes:
        overrides: overrides as text.
        objects: objects in memory by path; see `in_memory.held`.

    Raises:
        SubflError: a value is of a kind that no setting has.
    """

    def __init__(self, chosen: Mapping[str, Any], overrides: Overrides = ()) -> None:
        self.objects: dict[Path, Any] = {}
        found = [line for key, value in chosen.items() if value is not None for line in self._choice(key, value)]
        self.overrides = [*found, *self._further(overrides)]

    def _choice(self, key: str, value: Any) -> Iterator[str]:
        """Overrides of one argument: the choice of a section, or a plain setting."""
        given = value if isinstance(value, GivenData) else given_data(value, key) if key == "dataset" else None
        if given is not None:
            self.objects |= given.objects
            yield f"{key}={given.dataset}"
            yield f"{key}.path={as_value(str(given.path))}"
        elif key == "dataset" and _is_path(value):
            yield f"{key}={dataset_of_files(Path(value).expanduser())}"
            yield f"{key}.path={as_value(str(value))}"
        elif key in SHORT or key == "seed":
            yield f"{SHORT.get(key, key)}={self._value(key, value)}"
        elif isinstance(value, str):
            yield f"{key}={value}"  # the choice of a group, which Hydra wants without quotes
        elif isinstance(value, DoorSettings):
            yield from _settings(key, value)
        elif isinstance(value, type) and issubclass(value, DoorSettings):
            yield f"{key}.{TARGET}={full_name(value)}"
        elif isinstance(value, type) and key == "model":
            yield from (f"{key}={_OWN_NETWORK}", f"{key}.{TARGET}={full_name(value)}")
        else:
            raise SubflError(f"{key}: {_ALLOWED.get(key, _NAME)} (found {type(value).__name__})")

    def _further(self, overrides: Overrides) -> Iterator[str]:
        if isinstance(overrides, str) or not isinstance(overrides, Mapping | Sequence):
            raise SubflError(f"overrides: must be a list such as ['method.tau=5'] or a dict (found {overrides!r})")
        if not isinstance(overrides, Mapping):
            for line in overrides:
                if not isinstance(line, str):
                    raise SubflError(f"overrides: each must be a text such as 'method.tau=5' (found {line!r})")
                yield line
            return
        for key, value in overrides.items():
            yield from self._nested(str(key), value)

    def _nested(self, key: str, value: Any) -> Iterator[str]:
        """Overrides of a setting, or of all that a dict says of a section."""
        if key in section_keys() and isinstance(value, Mapping):
            for name, each in value.items():
                yield from self._nested(f"{key}.{name}", each)
        elif key in (*GROUPS.values(), *SHORT):
            yield from self._choice(key, value)
        else:
            yield f"{key}={self._value(key, value)}"

    def _value(self, key: str, value: Any) -> str:
        """A value in Hydra's grammar; of data in memory their path."""
        given = given_data(value, key)
        if given is None:
            return as_value(_plain(key, value))
        self.objects |= given.objects
        return as_value(str(given.path))


_NAME = "must be the name of a choice, or a class or an object of its settings"
_ALLOWED = {
    "dataset": f"{_NAME}, a path, a PyG Data, a pandas DataFrame of ratings or a dict of DataFrames",
    "method": "must be the name of a method, such as 'fedpub'",
    "runtime": "must be the name of a runtime, 'inline' or 'ray'",
}


def _is_path(value: Any) -> bool:
    """True for a `Path`, and for text that names no choice because it has a point or a slash."""
    return isinstance(value, Path) or (isinstance(value, str) and any(sign in value for sign in "./~"))


def _settings(section: str, settings: DoorSettings) -> Iterator[str]:
    """Overrides that give a section the class and the values of a settings object."""
    values = settings.model_dump(mode="json", by_alias=True)
    target = values.pop(TARGET, None)
    if target is None:
        yield f"{section}={values.pop('name')}"
    else:
        yield f"{section}.{TARGET}={target}"
    for key, value in values.items():
        yield f"++{section}.{key}={as_value(value)}"


def _plain(key: str, value: Any) -> Any:
    """A value in types that a configuration has.

    Raises:
        SubflError: it is of another type.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(f"{key}.{name}", each) for name, each in value.items()}
    if isinstance(value, list | tuple | range):
        return [_plain(key, each) for each in value]
    if value is None or isinstance(value, str | int | float):
        return value
    raise SubflError(f"{key}: a setting is a text, a number, a list or a dict (found {type(value).__name__})")


def path_given(argument: str, value: Any, what: str = "a folder") -> Path:
    """The path that an argument names.

    Args:
        argument: begins an error.
        value: its value.
        what: what the path is of, for an error.

    Raises:
        SubflError: it is neither a text nor a path, or is empty.
    """
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise SubflError(f"{argument}: must be the path of {what} (found {value!r})")
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise SubflError(f"{argument}: {value} begins with the home folder of an unknown user") from None


def experiment_axes(overrides: Sequence[str]) -> dict[str, str]:
    """The values that chosen experiments run through, by key; empty where none is chosen, or it is one run."""
    found: dict[str, str] = {}
    for line in overrides:
        group, _, name = line.partition("=")
        if group.lstrip("+") == "experiment":
            known = choices("experiment")
            for each in name.strip("[]").split(","):
                found |= known[each.strip()].sweep if each.strip() in known else {}
    return found
