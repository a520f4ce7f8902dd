"""The class that ``model._target_`` names, and its constructor's arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from subfl_flower.doors import load_class
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import ModuleSettings

INPUTS, OUTPUTS = "in_channels", "out_channels"
"""Arguments of PyG's models for the data's width and the task's output width."""

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def module_class(settings: ModuleSettings) -> type[torch.nn.Module]:
    """Import the module's class.

    Raises:
        SubflError: it cannot be imported, or is no ``torch.nn.Module`` that computes.
    """
    return load_class(settings.target, torch.nn.Module, "model._target_")


def constructor_arguments(settings: ModuleSettings, num_features: int, num_outputs: int) -> dict[str, Any]:
    """All arguments of the module's constructor by name.

    Widths are passed as ``in_channels`` and ``out_channels``, where the constructor has these. Else they are the first
    arguments without default that the settings do not give.

    Raises:
        SubflError: the class cannot be imported, or its constructor does not accept the settings.
    """
    given, path = settings.arguments, settings.target
    taken = dict(list(inspect.signature(module_class(settings).__init__).parameters.items())[1:])  # without self
    named = [name for name, parameter in taken.items() if parameter.kind in _BY_NAME]
    open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in taken.values())
    for name in given:
        if name not in named and not open_ended:
            raise SubflError(f"model.{name}: {path} has no such argument; it has: {', '.join(named) or 'none'}")
    needed = [name for name in named if taken[name].default is inspect.Parameter.empty and name not in given]
    free = [name for name in needed if name not in (INPUTS, OUTPUTS)]
    widths: dict[str, int] = {}
    for usual, of, width in ((INPUTS, "features", num_features), (OUTPUTS, "outputs", num_outputs)):
        if usual not in named and not free:
            raise SubflError(
                f"model._target_: {path} has no argument for the width of {of}: its constructor must have {INPUTS} and "
                f"{OUTPUTS}, or two arguments without default for them"
            )
        name = usual if usual in named else free.pop(0)
        if name in given:
            raise SubflError(f"model.{name}: the data and the task say it; leave it out")
        widths[name] = width
    if missing := [name for name in needed if name not in widths]:
        raise SubflError(f"model.{missing[0]}: a value is required by {path}, for instance +model.{missing[0]}=...")
    return {**widths, **given}


def takes(method: Callable[..., Any], name: str) -> bool:
    """True where a method has an argument of this name."""
    return name in inspect.signature(method).parameters
