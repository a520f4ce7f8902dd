"""The points of an experiment's sweep, as overrides."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from hydra.core.override_parser.overrides_parser import OverridesParser

from subfl_flower.catalogue.groups import choices

CROSSED = ("method", "dataset")
"""Axes that are combined with every value of all others: what they choose decides which settings there are."""


def values(key: str, text: str) -> list[str]:
    """The overrides that an axis stands for."""
    (parsed,) = OverridesParser.create().parse_overrides([f"{key}={text}"])
    return (
        [f"{key}={each}" for each in parsed.sweep_string_iterator()]
        if parsed.is_sweep_override()
        else [f"{key}={text}"]
    )


def points(name: str) -> Iterator[list[str]]:
    """Overrides of an experiment: all combinations of `CROSSED`, each with every value of every other axis.

    Settings of a method are combined with one another, too.
    """
    axes = {key: values(key, text) for key, text in choices("experiment")[name].sweep.items()}
    crossed = [key for key in axes if key in CROSSED or key.startswith("method.")]
    single = [key for key in axes if key not in crossed]
    first = {key: axes[key][0] for key in single}
    others = [{**first, key: each} for key in single for each in axes[key][1:]]
    for chosen in product(*(axes[key] for key in crossed)):
        for rest in [first, *others]:
            yield [f"+experiment={name}", *chosen, *rest.values()]
