"""Hydra overrides as a user writes them: literal paths, replaced files, and errors for unreadable ones.

Hydra reads the value of an override by a grammar in which ``= , # ( [ { ~`` and others have a meaning. A folder may
have any of them in its name, so a value that is a path is quoted before Hydra sees it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from pydantic import BaseModel

from subfl_flower.catalogue.groups import group_of, override_of
from subfl_flower.config import DOORS, Config
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.doors import TARGET, Door
from subfl_flower.errors import SubflError

OWN = "own"
"""The choice of a group for a user's class."""

RUN_DIR, SWEEP_DIR = "hydra.run.dir", "hydra.sweep.dir"
"""The settings that name the folder of a run, and of a sweep."""
_SCHEMA = "schema"
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_INTERPOLATION = r"\$\{(?:[^{}]|\{[^{}]*\})*\}"
_PART = re.compile(rf"\s*{_QUOTED}\s*(?=,|\Z)|(?:{_INTERPOLATION}|[^,])*", re.DOTALL)
"""One of the values that commas separate; commas in quotes and in interpolations separate nothing."""
_SWEEP_FUNCTION = re.compile(r"(?:choice|glob|shuffle|sort|tag)\(.*\)", re.DOTALL)


@cache
def path_keys() -> frozenset[str]:
    """The keys whose value is a path: those that are a `Path` in the schema, and Hydra's run directories."""
    return frozenset({RUN_DIR, SWEEP_DIR, *_paths_below(Config, "")})


@cache
def section_keys() -> frozenset[str]:
    """The dotted keys of sections in the schema, such as ``dataset`` and ``dataset.features``."""
    return frozenset(_sections_below(Config, ""))


def literal_paths(overrides: Sequence[str], multirun: bool = False) -> list[str]:
    """Quote the values of paths for Hydra; other arguments do not change.

    A quoted value and ``null`` do not change. ``${...}`` stays an interpolation, and the text around it is literal,
    unless there are both kinds of quotes in the value.

    Args:
        overrides: Hydra overrides, as ``KEY=VALUE``, ``+KEY=VALUE`` or ``++KEY=VALUE``.
        multirun: true where commas separate the values of a sweep, as with ``subfl -m``; each value is then a path, and
            Hydra's functions such as ``choice(...)`` do not change. Without it a comma is part of the path.
    """
    return [_literal(override, multirun) for override in overrides]


def schema_in_place(overrides: Sequence[str]) -> list[str]:
    """Replace ``schema=FILE`` by the content of the file, as overrides of the section's keys.

    Raises:
        SubflError: the file cannot be read, or is not the schema of a federation.
    """
    found: list[str] = []
    for override in overrides:
        key, _, path = override.partition("=")
        found += FederationSchema.read(Path(path).expanduser()).as_overrides() if key == _SCHEMA else [override]
    return found


def as_value(value: Any) -> str:
    """A value in Hydra's grammar: a text, number, truth value, None, or a list or mapping of these."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{as_value(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_value, value)) + "]"
    if isinstance(value, str):
        return _quoted(value, Quote.single)
    return "null" if value is None else str(value).lower()


def classes_chosen(overrides: Sequence[str]) -> list[str]:
    """Complete overrides that choose a class: ``dataset._target_=mine.Rings dataset.rings=7`` needs nothing else.

    The choice ``own`` empties the section, unless another choice is named. The class' settings are then added to it,
    because Hydra does not know them.
    """
    keys = [override.partition("=")[0].lstrip("+") for override in overrides]
    completed, chosen = list(overrides), []
    for section in DOORS:
        if f"{section}.{TARGET}" not in keys:
            continue
        if section not in keys:
            chosen.append(f"{section}={OWN}")
        completed = [
            f"++{override}" if override.startswith(f"{section}.") and "=" in override else override
            for override in completed
        ]
    return chosen + completed


def sweeps(arguments: Sequence[str]) -> bool:
    """True if the arguments of `subfl` ask for a multirun."""
    return any(
        argument in ("-m", "hydra.mode=MULTIRUN") or (argument.startswith("--m") and "--multirun".startswith(argument))
        for argument in arguments
    )


def swept(override: str, multirun: bool = True) -> list[str]:
    """The overrides that a sweep makes of one, as ``seed=0`` and ``seed=1`` of ``seed=0,1``.

    Args:
        override: as on the command line.
        multirun: see `literal_paths`.

    Raises:
        SubflError: it cannot be read.
    """
    try:
        (parsed,) = OverridesParser.create().parse_overrides(literal_paths([override], multirun))
    except HydraException:
        raise SubflError(unreadable(override)) from None
    if not parsed.is_sweep_override():
        return [override]
    key = parsed.get_key_element()
    return [f"{key}={value}" for value in parsed.sweep_string_iterator()]


def unreadable(override: str) -> str:
    """One sentence on an override that Hydra's grammar does not allow: the key, and a correct form of the value."""
    key, equals, value = override.partition("=")
    if not (key and equals and _is_readable(f"{key}=0")):
        return f"{override}: {_advice_on_word(override)}"
    quoted = '["..."]' if value.startswith("[") else _quoted(value, Quote.double)
    return (
        f"{key}: the value {value} cannot be read; put a text with special characters in quotes, "
        f"as in {shlex.quote(f'{key}={quoted}')}"
    )


def _advice_on_word(word: str) -> str:
    """The end of an error on a word that is no override: what was probably meant."""
    if group := group_of(word):
        return f"is not KEY=VALUE; did you mean {override_of(group, word)}?"
    return "an override is KEY=VALUE with the dotted name of a setting, for instance seed=1"


def _paths_below(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, kind in _fields(model):
        if kind is Path:
            yield prefix + name
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _paths_below(kind, f"{prefix}{name}.")


def _sections_below(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, kind in _fields(model):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield prefix + name
            yield from _sections_below(kind, f"{prefix}{name}.")


def _fields(model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Name and type of each field, once for each alternative of its type."""
    for name, field in model.model_fields.items():
        doors = [each for each in field.metadata if isinstance(each, Door)]
        for kind in doors[0].built_in if doors else _alternatives(field.annotation):
            yield field.alias or name, kind


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The types in an annotation, including those inside unions."""
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for part in inner:
        yield from _alternatives(part)


def _literal(override: str, multirun: bool) -> str:
    key, equals, value = override.partition("=")
    name = re.sub(r"^\+{1,2}", "", key)
    if name in (RUN_DIR, SWEEP_DIR) and equals:
        if not value.strip("'\""):
            raise SubflError(f"{name}: a folder is required, as in {name}=outputs/first")
        return f"{key}={_as_text(str(Path(value).expanduser()) if value.startswith('~/') else value)}"
    if not (equals and value and name in path_keys()):
        return override
    if not multirun:
        return f"{key}={_as_text(value)}"
    parts = _separated(value)
    if _SWEEP_FUNCTION.fullmatch(value) or "" in parts:  # Hydra reports an empty part
        return override
    return f"{key}={','.join(map(_as_text, parts))}"


def _separated(value: str) -> list[str]:
    """The values that commas separate, without the blanks around them."""
    parts, end = [], -1
    while end < len(value):
        found = _PART.match(value, end + 1)
        assert found is not None  # it may be empty
        parts.append(found[0].strip())
        end = found.end()
    return parts


def _as_text(value: str) -> str:
    if value.lower() == "null" or re.fullmatch(_QUOTED, value, re.DOTALL):
        return value
    quoted = _quoted(value, Quote.double if "'" in value and '"' not in value else Quote.single)
    # Hydra keeps overrides as written, and OmegaConf cannot read an interpolation with escaped quotes.
    return value if "${" in value and quoted[1:-1] != value else quoted


def _quoted(value: str, quote: Quote) -> str:
    return QuotedString(value, quote).with_quotes()


def _is_readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True
