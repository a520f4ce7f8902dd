"""Doors: the sections of the configuration that may name a class of any package.

A section chooses one of its door's built-in classes by `name`, or any class of the door's base by its dotted path:
``dataset._target_: my_package.MyData``. The machine that imports decides which packages are allowed. On a user's
machine, every package that the user names is imported. A SuperNode imports this project's packages, and installed ones
that its operator allowed. Its configuration comes from a server, so a name is checked before it is imported.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, model_serializer, model_validator
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from subfl_flower.errors import SubflError
from subfl_flower.installed import require_installed

TARGET = "_target_"
"""The key that names a class by its dotted path, as in Hydra."""

OWN_PACKAGE = "subfl_flower"
"""The package of this project, which every machine of a federation has."""

_OF_BASE = {"torch.nn.modules.module.Module": ("torch_geometric",)}
"""Packages from which every machine takes classes of a base, by the base's full name."""

_allowed: ContextVar[frozenset[str] | None] = ContextVar("allowed packages", default=None)
_built_in: set[type] = set()


@contextmanager
def only_packages(names: Sequence[str]) -> Iterator[None]:
    """Allow inside the block only imports from this project's packages and from some installed ones.

    Args:
        names: names of the packages, without dots.
    """
    token = _allowed.set(frozenset(names))
    try:
        yield
    finally:
        _allowed.reset(token)


def load_class(path: str, base: type[Any] | tuple[type[Any], ...], key: str) -> type[Any]:
    """Import the class that a dotted `path` names; `key` is the configuration key it came from.

    Args:
        path: path of the class.
        base: base class, or classes, of which it must be a subclass.
        key: key for the error.

    Raises:
        SubflError: it cannot be imported, is not a subclass of `base`, or lies in a package that this machine is not
            allowed to import.
    """
    bases = base if isinstance(base, tuple) else (base,)
    _require_allowed(path, path, bases, key)
    module_name, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # a user's module may raise anything
        reason = (f"{type(error).__name__}: {error}".splitlines() or [""])[0]
        raise SubflError(f"{key}: cannot import {path!r} ({reason}); give the dotted path of a class") from error
    if not (isinstance(found, type) and issubclass(found, bases)):
        raise SubflError(f"{key}: {path!r} is not a subclass of {' or '.join(one.__name__ for one in bases)}")
    _require_allowed(found.__module__, path, bases, key)  # an allowed package may contain classes of other packages
    return found


def _require_allowed(module: str, path: str, bases: Sequence[type], key: str) -> None:
    """Raise SubflError unless this machine may import from a module; the check imports nothing."""
    allowed = _allowed.get()
    package = module.partition(".")[0]
    if allowed is None or package == OWN_PACKAGE:
        return
    of_door = [name for base in bases for name in _OF_BASE.get(full_name(base), ())]
    if package not in allowed and package not in of_door:
        raise SubflError(
            f"{key}: {path!r} is not allowed on this machine; its operator can allow it by --allow-package "
            f"{package if package.isidentifier() else 'NAME'}"
        )
    require_installed(package, key)


def full_name(found: type) -> str:
    """The dotted path of a class."""
    return f"{found.__module__}.{found.__qualname__}"


class DoorSettings(BaseModel, ABC):
    """Settings of a class that a section of the configuration chooses; frozen, and closed to unknown keys.

    Your class adds fields, and may leave `name` out: it is then the class' name in lower case.

    Attributes:
        version: version of the class' code, part of the key of its prepared data. None: a digest of the source file,
            so that every change of it counts; state a version where the class depends on other files.
        name: name in tables, and in the name of a prepared folder.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: ClassVar[str | None] = None

    name: Annotated[str, Field(pattern=r"^[\w.-]+$")]

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        field = cls.model_fields["name"]
        if not isinstance(values, Mapping) or "name" in values or not field.is_required():
            return values
        stated = getattr(field.annotation, "__args__", ())  # by the Literal of a built-in class that this one extends
        return {"name": stated[0] if stated else cls.__name__.lower(), **values}

    @model_serializer(mode="wrap")
    def _with_target(self, values: Any) -> dict[str, Any]:
        stated: dict[str, Any] = values(self)
        return stated if type(self) in _built_in else {TARGET: full_name(type(self)), **stated}

    def code_version(self) -> dict[str, str]:
        """The versions of code outside this project, by class; empty for a built-in class.

        Raises:
            SubflError: a class states no version, and its source file cannot be found.
        """
        found: dict[str, str] = {}
        for owner in type(self).__mro__:
            if owner.__module__.partition(".")[0] not in {OWN_PACKAGE, *sys.stdlib_module_names, "pydantic"}:
                found[full_name(owner)] = owner.__dict__.get("version") or _source_digest(owner)
        return found


def _source_digest(owner: type) -> str:
    try:
        return hashlib.sha256(Path(inspect.getfile(owner)).read_bytes()).hexdigest()
    except (OSError, TypeError) as error:
        raise SubflError(
            f"{full_name(owner)}: its source file cannot be read ({error}); state a `version` in the class"
        ) from error


class Door:
    """An annotation for a section that chooses a class; pydantic parses the section by the class that it chooses.

    Args:
        key: key of the section.
        bases: allowed base classes of a class outside this project.
        built_in: the classes that are chosen by name.
    """

    def __init__(self, key: str, bases: tuple[type[DoorSettings], ...], built_in: Sequence[type[DoorSettings]]) -> None:
        self.key, self.bases, self.built_in = key, bases, tuple(built_in)
        self._by_name = {name: owner for owner in built_in for name in _names(owner)}
        _built_in.update(built_in)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the built-in classes."""
        return tuple(self._by_name)

    def chosen(self, section: Any) -> type[DoorSettings] | None:
        """The class that a section chooses; None where there is no such class.

        Raises:
            SubflError: it names by path a class that cannot be used.
        """
        if not isinstance(section, Mapping):
            return None
        if TARGET not in section:
            return self._by_name.get(str(section.get("name")))
        key = f"{self.key}.{TARGET}"
        path = section[TARGET]
        if not isinstance(path, str):
            raise SubflError(f"{key}: must be the dotted path of a class (found {path!r})")
        found: type[DoorSettings] = load_class(path, self.bases, key)
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise SubflError(f"{key}: {path!r} does not define {', '.join(missing)}, which its base leaves to it")
        return found

    def parse(self, section: Any) -> DoorSettings:
        """Settings of the class that a section chooses."""
        if isinstance(section, self.bases):
            return section
        if not isinstance(section, Mapping):
            raise PydanticKnownError("model_attributes_type")
        owner = self.chosen(section)
        if owner is None and "name" not in section:
            raise PydanticKnownError("union_tag_not_found", {"discriminator": "'name'"})
        if owner is None:
            expected = ", ".join(map(repr, self.names))
            tag = {"discriminator": "'name'", "tag": str(section["name"]), "expected_tags": expected}
            raise PydanticKnownError("union_tag_invalid", tag)
        return owner.model_validate({key: value for key, value in section.items() if key != TARGET})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.parse)


def _names(owner: type[BaseModel]) -> Iterator[str]:
    """The names of a built-in class: those of its `name`'s Literal."""
    yield from owner.model_fields["name"].annotation.__args__  # type: ignore[union-attr]
