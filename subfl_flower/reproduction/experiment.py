"""Experiments by name, and the runs that each consists of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

from subfl_flower.catalogue.groups import choices
from subfl_flower.catalogue.sheet import FIGURE, Sheet
from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.errors import SubflError
from subfl_flower.front.arguments import experiment_axes
from subfl_flower.overrides import swept

JOIN = "+"
"""Joins the names of experiments that are added to each other, as in ``fedpub_table2+strong_subgraphs``."""


@dataclass(frozen=True)
class Experiment:
    """A sweep by name.

    Attributes:
        name: of the experiment; several joined by `JOIN`.
        sheets: the choice of each name.
    """

    name: str
    sheets: tuple[Sheet, ...]

    @classmethod
    def named(cls, name: str) -> Experiment:
        """The experiment of a name.

        Raises:
            SubflError: there is none.
        """
        known = choices("experiment")
        parts = name.removeprefix("+experiment=").split(JOIN)
        for part in parts:
            if part not in known:
                advice = did_you_mean(part, known) or "; subfl reproduce --list names all of them"
                raise SubflError(f"{part or name}: there is no such experiment{advice}")
        return cls(JOIN.join(parts), tuple(known[part] for part in parts))

    @property
    def description(self) -> str:
        """The first comment of each file."""
        return " ".join(sheet.description for sheet in self.sheets)

    @property
    def override(self) -> str:
        """The override that takes the experiment."""
        names = self.name.split(JOIN)
        return f"+experiment={names[0]}" if len(names) == 1 else f"+experiment=[{','.join(names)}]"

    @property
    def figures(self) -> list[str]:
        """The figures that the files ask for, by a line such as ``# Figure: rounds, partition.rate``."""
        asked = [sheet.facts[FIGURE] for sheet in self.sheets if FIGURE in sheet.facts]
        return list(dict.fromkeys(word.strip() for line in asked for word in line.split(",")))

    @property
    def cost(self) -> str | None:
        """The estimate of the first file that has one."""
        return next((sheet.facts["Cost"] for sheet in self.sheets if "Cost" in sheet.facts), None)

    def jobs(self, further: Sequence[str] = ()) -> list[list[str]]:
        """The overrides of each run: one for each combination of the values that the experiment runs through.

        Args:
            further: overrides; their values replace those of the experiment, and commas separate values of a sweep.

        Raises:
            SubflError: an override cannot be read.
        """
        stated = {each.partition("=")[0].lstrip("+") for each in further}
        axes = {key: values for key, values in experiment_axes([self.override]).items() if key not in stated}
        lines = [*(f"{key}={values}" for key, values in axes.items()), *further]
        return [[self.override, *job] for job in product(*map(swept, lines))]


def is_search(sheet: Sheet) -> bool:
    """True for an experiment whose runs depend on each other's results."""
    return sheet.chosen.get("hydra/sweeper", "basic") != "basic"


def listed() -> dict[str, Experiment]:
    """The experiments that consist of known runs, by name; without those that are only added to others."""
    known = {name: sheet for name, sheet in choices("experiment").items() if not is_search(sheet)}
    return {name: Experiment(name, (sheet,)) for name, sheet in known.items()}
