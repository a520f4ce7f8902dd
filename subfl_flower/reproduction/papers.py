"""Figures that papers print, from the data files of the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict

from subfl_flower.errors import SubflError
from subfl_flower.evaluation.rows import CLIENTS, Row, flatten
from subfl_flower.evaluation.runs import RESULT, Run

FOLDER = Path(__file__).parent / "papers"

_FIGURES = {"test": RESULT, "test as received": "test_as_received_at_best_validation", "validation": "best_validation"}
_FACTOR = {"percent": 0.01, "fraction": 1.0, "rating": 1.0, "share": 1.0}
Value = str | int | float | bool | None


class PrintedFigure(BaseModel):
    """A figure of a paper's table, and the settings that it is of.

    Attributes:
        where: values of settings by dotted key; a group's name stands for the name of its choice.
        value: in the table's unit.
        deviation: as printed, in the same unit.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    where: dict[str, Value]
    value: float
    deviation: float | None = None

    def holds_for(self, run: Run) -> bool:
        """True where a run has all of the settings."""
        settings = {**flatten(run.config), CLIENTS: run.clients}
        return all(_equal(_setting(settings, key), value) for key, value in self.where.items())


class PrintedTable(BaseModel):
    """A table of a paper.

    Attributes:
        source: paper and number of the table.
        at_hand: False where the text that the figures are from was not at hand.
        figure: name of the figure, as ``test`` or ``test as received``, or as a run's summary has it.
        unit: of the values.
        columns: keys of settings that tell the table's columns apart.
        rows: the figures.
        note: a remark on the table.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    at_hand: bool
    figure: str = "test"
    unit: Literal["percent", "fraction", "rating", "share"] = "percent"
    columns: list[str] = []
    rows: list[PrintedFigure] = []
    note: str | None = None

    @property
    def of_rows(self) -> str:
        """Name of the figure in rows of the report."""
        return _FIGURES.get(self.figure, self.figure)

    @property
    def factor(self) -> float:
        """The factor from the printed unit to that of a run's figures."""
        return _FACTOR[self.unit]

    def printed_for(self, row: Row) -> PrintedFigure | None:
        """The figure of a row: that with the most settings, of those whose settings all of its runs have."""
        fitting = [each for each in self.rows if row.runs and all(each.holds_for(run) for run in row.runs)]
        return max(fitting, key=lambda each: len(each.where), default=None)


def printed_table(name: str) -> PrintedTable | None:
    """The table that goes with an experiment; None where the package has none.

    Args:
        name: of the experiment; of several joined ones the first that has a table.

    Raises:
        SubflError: the file has another form.
    """
    for part in name.split("+"):
        path = FOLDER / f"{part}.yaml"
        if path.is_file():
            return _read(path)
    return None


def _read(path: Path) -> PrintedTable:
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        return PrintedTable.model_validate(content)
    except (yaml.YAMLError, pydantic.ValidationError) as error:
        raise SubflError(f"{path} is no table of a paper: {' '.join(str(error).split())}") from None


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, or the name of a group's choice."""
    return settings.get(key, settings.get(f"{key}.name"))


def _equal(found: Any, wanted: Value) -> bool:
    if isinstance(wanted, bool) or isinstance(found, bool) or wanted is None:
        return found is wanted
    if isinstance(wanted, int | float) and isinstance(found, int | float):
        return float(found) == float(wanted)
    return str(found) == str(wanted)
