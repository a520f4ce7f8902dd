"""One file a data set: its settings and its loader."""

from typing import Annotated

from pydantic import Field

from subfl_flower.data.datasets.amazon import ComputersDataset, PhotoDataset
from subfl_flower.data.datasets.custom import CustomDataset
from subfl_flower.data.datasets.digits import DigitsDataset
from subfl_flower.data.datasets.ogbn_arxiv import OgbnArxivDataset
from subfl_flower.data.datasets.planetoid import CiteSeerDataset, CoraDataset, PubMedDataset
from subfl_flower.data.datasets.sbm import StochasticBlockModelDataset
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol

Dataset = Annotated[
    DigitsDataset
    | StochasticBlockModelDataset
    | CoraDataset
    | CiteSeerDataset
    | PubMedDataset
    | ComputersDataset
    | PhotoDataset
    | OgbnArxivDataset
    | CustomDataset,
    Field(discriminator="name"),
]
"""The settings of any data set, told apart by `name`."""

__all__ = [
    "CiteSeerDataset",
    "ComputersDataset",
    "CoraDataset",
    "CustomDataset",
    "Dataset",
    "DatasetSettings",
    "DigitsDataset",
    "OgbnArxivDataset",
    "PhotoDataset",
    "Protocol",
    "PubMedDataset",
    "StochasticBlockModelDataset",
]
