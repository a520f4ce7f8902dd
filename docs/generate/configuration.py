"""The reference of all settings, made from the files of ``conf/`` and from the classes that check their values."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from subfl_flower.catalogue.groups import general_settings
from subfl_flower.catalogue.sheet import Setting, Sheet
from subfl_flower.composition import config_directory
from subfl_flower.config import DOORS, Config, Method
from subfl_flower.registry import client_class, strategy_class
from subfl_flower.wire.contract import joined_settings

_GROUPS = {
    "method": "The method, and its knobs.",
    "dataset": "The data.",
    "partition": "The cut of the data into clients.",
    "task": "What is predicted.",
    "model": "The network.",
    "optimizer": "The clients' optimiser.",
    "privacy": "Protection of what users of a recommender upload.",
    "runtime": "Where clients run.",
    "logger": "Further places for the figures of a run.",
}


_WORDS: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "`true`, `false`",
    str: "text",
    Path: "path",
    type(None): "`null`",
}


def configuration_tables() -> str:
    """Sections in Markdown: first the settings of every run, then each group with a table for each choice."""
    conf = config_directory()
    parts = ["## Every run\n", _table(general_settings(), Config)]
    for group, sentence in _GROUPS.items():
        parts.append(f"## `{group}`\n\n{sentence}\n")
        for path in sorted((conf / group).glob("*.yaml")):
            values = _values(path)
            sheet = Sheet(path)
            parts.append(f"### `{group}={path.stem}`\n\n{_opening(sheet)}\n")
            parts.append(_table(sheet.settings, _settings_class(group, values), f"{group}."))
    parts.append("## `+experiment`\n\nExperiments set several of the above at once, most of them for a sweep.\n")
    lines = ["| `+experiment=` | content |", "|---|---|"]
    for path in sorted((conf / "experiment").glob("*.yaml")):
        lines.append(f"| `{path.stem}` | {_cell(Sheet(path).description)} |")
    return "\n".join([*parts, *lines]) + "\n"


def method_table() -> str:
    """A table in Markdown of what each method needs, sends, protects and costs, as its YAML file says."""
    facts = ("Needs", "Sends", "Protects", "Cost")
    lines = [f"| `method=` | idea | {' | '.join(fact.lower() for fact in facts)} |", "|---" * (2 + len(facts)) + "|"]
    for path in sorted((config_directory() / "method").glob("*.yaml")):
        sheet = Sheet(path)
        cells = [sheet.summary, *(sheet.facts.get(fact, "") for fact in facts)]
        lines.append(" | ".join([f"| `{sheet.name}`", *(_cell(_escaped(cell)) for cell in cells)]) + " |")
    return "\n".join(lines) + "\n"


def _values(path: Path) -> dict[str, Any]:
    """The values of a choice, those of the choices that it extends included."""
    values = yaml.safe_load(path.read_text()) or {}
    for base in values.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            values = {**_values(path.with_name(f"{base}.yaml")), **values}
    return values


def _opening(sheet: Sheet) -> str:
    """The opening comment in Markdown: command lines as code, the rest as prose, facts as a list."""
    shown = "```\n" + "\n".join(sheet.examples) + "\n```\n" if sheet.examples else ""
    facts = "".join(f"\n- {word}: {_escaped(text)}" for word, text in sheet.facts.items())
    return f"{shown}\n{_escaped(sheet.description)}\n{facts}"


def _settings_class(group: str, values: Mapping[str, Any]) -> type[BaseModel] | None:
    """The class that checks a choice's values; None where a YAML leaves the class to the user."""
    if group in DOORS:
        return DOORS[group].chosen(values) if "_target_" not in values else None
    if group == "method":
        kinds = values["strategy"] if isinstance(values["strategy"], Mapping) else {"": ""}
        found: type[BaseModel] | None = None
        for kind in kinds:
            paths = {side: values[side][kind] if kind else values[side] for side in ("strategy", "client")}
            method = Method(name=values["name"], **paths)
            found = joined_settings(client_class(method).Settings, strategy_class(method).Settings)
            if len(kinds) == 1 or set(values) - {"name", "strategy", "client"} <= set(found.model_fields):
                return found
        return found
    tags = {values.get("name"), values.get("mechanism")}
    for candidate in _members(Config.model_fields[group].annotation):
        for tag in ("name", "mechanism"):
            field = candidate.model_fields.get(tag)
            if field is not None and tags & {*typing.get_args(field.annotation), field.default} - {None}:
                return candidate
    return None


def _members(annotation: Any) -> list[type[BaseModel]]:
    """The classes of a union, or the class itself."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for part in typing.get_args(annotation) for member in _members(part)]


def _table(settings: list[Setting], owner: type[BaseModel] | None, prefix: str = "") -> str:
    if not settings:
        return "No settings.\n"
    lines = ["| setting | value | allowed | meaning |", "|---|---|---|---|"]
    for setting in settings:
        value = f"`{setting.value}`" if setting.value else ""
        allowed = _allowed(owner, setting.key.split("."))
        lines.append(
            f"| `{prefix}{setting.key}` | {_cell(value)} | {_cell(allowed)} | {_cell(_escaped(setting.comment))} |"
        )
    return "\n".join(lines) + "\n"


def _documented(owner: type[BaseModel] | None, key: str) -> str:
    """The meaning of a field as the docstring of its class, or of a base, states it under ``Attributes``."""
    for base in owner.__mro__ if owner is not None else ():
        _, _, attributes = inspect.getdoc(base).partition("Attributes:") if base.__doc__ else ("", "", "")
        if found := re.search(rf"^\s*{re.escape(key)}: ((?:.+)(?:\n {{8,}}.+)*)", attributes, re.MULTILINE):
            return " ".join(found[1].split()).replace("``", "`")
    return ""


def _allowed(owner: type[BaseModel] | None, path: list[str]) -> str:
    """The allowed values of a setting in words, from its field's type and bounds."""
    for part in path:
        fields = owner.model_fields if owner is not None else {}
        by_alias = {field.alias: field for field in fields.values() if field.alias}
        field = fields.get(part) or by_alias.get(part)
        if field is None:
            return ""
        inner = _members(field.annotation)
        owner = inner[0] if inner else None
    return "" if inner else _type_words(field.annotation, field.metadata)


def _type_words(annotation: Any, metadata: typing.Sequence[Any] = ()) -> str:
    bounds = " and ".join(
        f"{sign} {getattr(constraint, name)}"
        for constraint in metadata
        for name, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))
        if getattr(constraint, name, None) is not None
    )
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        first, *further = typing.get_args(annotation)
        inner = [constraint for each in further for constraint in [each, *getattr(each, "metadata", [])]]
        return _type_words(first, inner)
    if origin in (typing.Union, types.UnionType):
        members = [_type_words(part) for part in typing.get_args(annotation)]
        return ", ".join(dict.fromkeys(word for word in members if word)) + (f" ({bounds})" if bounds else "")
    if origin is typing.Literal:
        values = (str(value).lower() if isinstance(value, bool) else value for value in typing.get_args(annotation))
        return ", ".join(f"`{value}`" for value in values)
    word = _WORDS.get(annotation, "list" if origin in (list, tuple) else "")
    return f"{word} {bounds}".strip() if word else ""


def _escaped(text: str) -> str:
    """Text whose placeholders in angle brackets are shown, not read as HTML."""
    return re.sub(r"<([^>`]*)>", r"`<\1>`", text)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
