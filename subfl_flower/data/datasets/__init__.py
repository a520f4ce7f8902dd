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
from subfl_flower.data.ratings.custom import CustomRatingsDataset
from subfl_flower.data.ratings.monti import DoubanDataset, FlixsterDataset, YahooMusicDataset
from subfl_flower.data.ratings.movielens import MovieLens1MDataset, MovieLens10MDataset, MovieLens100KDataset
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.data.ratings.synthetic import SyntheticRatingsDataset

Dataset = Annotated[
    DigitsDataset
    | StochasticBlockModelDataset
    | CoraDataset
    | CiteSeerDataset
    | PubMedDataset
    | ComputersDataset
    | PhotoDataset
    | OgbnArxivDataset
    | CustomDataset
    | MovieLens100KDataset
    | MovieLens1MDataset
    | MovieLens10MDataset
    | DoubanDataset
    | FlixsterDataset
    | YahooMusicDataset
    | CustomRatingsDataset
    | SyntheticRatingsDataset,
    Field(discriminator="name"),
]
"""The settings of any data set, told apart by `name`."""

__all__ = [
    "CiteSeerDataset",
    "ComputersDataset",
    "CoraDataset",
    "CustomDataset",
    "CustomRatingsDataset",
    "Dataset",
    "DatasetSettings",
    "DigitsDataset",
    "DoubanDataset",
    "FlixsterDataset",
    "MovieLens1MDataset",
    "MovieLens10MDataset",
    "MovieLens100KDataset",
    "OgbnArxivDataset",
    "PhotoDataset",
    "Protocol",
    "PubMedDataset",
    "RatingDatasetSettings",
    "StochasticBlockModelDataset",
    "SyntheticRatingsDataset",
    "YahooMusicDataset",
]
