"""One file a data set: its settings and its loader."""

from typing import Annotated

from subfl_flower.data.datasets.amazon import ComputersDataset, PhotoDataset
from subfl_flower.data.datasets.communities import CommunitiesDataset
from subfl_flower.data.datasets.custom import CustomDataset
from subfl_flower.data.datasets.digits import DigitsDataset
from subfl_flower.data.datasets.ogbn_arxiv import OgbnArxivDataset
from subfl_flower.data.datasets.planetoid import CiteSeerDataset, CoraDataset, PubMedDataset
from subfl_flower.data.datasets.sbm import StochasticBlockModelDataset
from subfl_flower.data.datasets.settings import DatasetSettings, Protocol
from subfl_flower.data.ratings.datasets.custom import CustomRatingsDataset
from subfl_flower.data.ratings.datasets.monti import DoubanDataset, FlixsterDataset, YahooMusicDataset
from subfl_flower.data.ratings.datasets.movielens import MovieLens1MDataset, MovieLens10MDataset, MovieLens100KDataset
from subfl_flower.data.ratings.datasets.synthetic import SyntheticRatingsDataset
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.doors import Door

DATASETS = Door(
    "dataset",
    (DatasetSettings, RatingDatasetSettings),
    (
        DigitsDataset,
        StochasticBlockModelDataset,
        CommunitiesDataset,
        CoraDataset,
        CiteSeerDataset,
        PubMedDataset,
        ComputersDataset,
        PhotoDataset,
        OgbnArxivDataset,
        CustomDataset,
        MovieLens100KDataset,
        MovieLens1MDataset,
        MovieLens10MDataset,
        DoubanDataset,
        FlixsterDataset,
        YahooMusicDataset,
        CustomRatingsDataset,
        SyntheticRatingsDataset,
    ),
)
"""Data sets by name, and other data sets by their class."""

Dataset = Annotated[DatasetSettings | RatingDatasetSettings, DATASETS]
"""The settings of any data set."""

__all__ = [
    "DATASETS",
    "CiteSeerDataset",
    "CommunitiesDataset",
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
