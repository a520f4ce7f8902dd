"""One file a data set: its settings and its loader."""

from typing import Annotated, Literal, get_args

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

DATASET_KINDS: dict[str, Literal["graph", "ratings"]] = {
    name: settings.kind
    for settings in get_args(get_args(Dataset)[0])
    for name in get_args(settings.model_fields["name"].annotation)
}
"""What the data sets hold, by name."""

__all__ = [
    "DATASET_KINDS",
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
