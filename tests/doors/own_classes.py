"""Classes that belong to nobody here: each is written to a folder outside the repository, as a user would."""

from __future__ import annotations

import textwrap
from pathlib import Path

DATASET = '''
from pathlib import Path

import numpy as np
from pydantic import Field

from subfl_flower.api import DatasetSettings, RawGraph


class RingOfCliques(DatasetSettings):
    """Cliques of two classes in turn, each joined with the next one by an edge between their first nodes."""

    cliques: int = Field(default=6, ge=3)
    size: int = Field(default=8, ge=2)
    train_fraction: float = 0.5

    def read(self, root: Path) -> RawGraph:
        """Build the graph; nothing is read from `root`."""
        first = np.arange(self.cliques) * self.size
        inside = np.stack(np.triu_indices(self.size, 1))
        edges = [*(inside + start for start in first), np.stack([first, np.roll(first, -1)])]
        labels = np.repeat(np.arange(self.cliques) % 2, self.size)
        features = np.random.default_rng(0).standard_normal((labels.size, 4)).astype(np.float32)
        features[:, 1] += 4 * labels - 2
        return RawGraph(features, np.concatenate(edges, axis=1), labels, 2)
'''

PARTITION = '''
import numpy as np

from subfl_flower.api import Graph, PartitionSettings


class BySign(PartitionSettings):
    """Two clients: nodes with a negative feature, and the others."""

    clients: int = 2
    feature: int = 0

    def assign(self, graph: Graph) -> list[np.ndarray]:
        """Divide by the sign of one column."""
        negative = graph.features[:, self.feature] < 0
        return [np.flatnonzero(negative), np.flatnonzero(~negative)]
'''

TASK = '''
import numpy as np
import torch

from subfl_flower.api import ClientGraph, GraphTask


class DegreeRegression(GraphTask):
    """How many neighbours a node has; one node of four tests, one validates."""

    higher_is_better = False

    @property
    def metric(self) -> str:
        return "rmse"

    def num_outputs(self, num_classes: int) -> int:
        return 1

    def visible(self, graph: ClientGraph) -> ClientGraph:
        return graph

    def num_examples(self, graph: ClientGraph) -> int:
        return int((graph.node_ids % 4 < 2).sum())

    def examples(self, graphs, device) -> "Degrees":
        return Degrees(graphs, device)


class Degrees:
    """Degrees of some clients' nodes, and the nodes of each role."""

    def __init__(self, graphs, device):
        ends = [(torch.from_numpy(g.edge_index[1]), g.num_nodes) for g in graphs]
        self.degrees = [torch.bincount(nodes, minlength=count).float() for nodes, count in ends]
        self.quarters = [torch.from_numpy(np.asarray(g.node_ids % 4)) for g in graphs]

    def _errors(self, outputs, quarters):
        clients = zip(outputs[..., 0], self.degrees, self.quarters)
        squares = [((o[: len(d)] - d) ** 2)[torch.isin(q, torch.tensor(quarters))] for o, d, q in clients]
        return torch.stack([square.mean() for square in squares])

    def losses(self, outputs, generators):
        return self._errors(outputs, [0, 1])

    def evaluate(self, outputs):
        return self._errors(outputs, [2]).sqrt(), self._errors(outputs, [3]).sqrt()

    def figures(self, outputs):
        return {}
'''

LOGGER = '''
import csv

from subfl_flower.api import Logger, LoggerSettings


class CsvLogger(LoggerSettings):
    """A table of rounds in the run directory."""

    file: str = "figures.csv"

    def build(self) -> "Writer":
        return Writer(self.file)


class Writer(Logger):
    """A row a round."""

    def __init__(self, file: str) -> None:
        self.file = file

    def start(self, config, directory) -> None:
        self.path = directory.path / self.file

    def log_round(self, record) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow([record["round"], record["test"]])
'''

MODULES = {"rings": DATASET, "signs": PARTITION, "degrees": TASK, "tables": LOGGER}
"""Each class in a module."""

CHOSEN = (
    "dataset._target_=rings.RingOfCliques",
    "partition._target_=signs.BySign",
    "task._target_=degrees.DegreeRegression",
    "logger._target_=tables.CsvLogger",
)
"""Overrides that choose all of them."""


def write_modules(folder: Path) -> Path:
    """Write every module into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source).lstrip())
    return folder
