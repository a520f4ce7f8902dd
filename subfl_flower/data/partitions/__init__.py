"""One file a partitioner: its settings and what it does."""

from typing import Annotated

from pydantic import Field

from subfl_flower.data.partitions.dirichlet import DirichletPartition
from subfl_flower.data.partitions.given import GivenPartition
from subfl_flower.data.partitions.imbalanced import ImbalancedPartition
from subfl_flower.data.partitions.louvain import LouvainPartition
from subfl_flower.data.partitions.metis import MetisPartition
from subfl_flower.data.partitions.overlap_rate import OverlapRatePartition
from subfl_flower.data.partitions.overlapping import OverlappingPartition
from subfl_flower.data.partitions.random import RandomPartition
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.partitions.whole import WholePartition

Partition = Annotated[
    MetisPartition
    | OverlappingPartition
    | OverlapRatePartition
    | LouvainPartition
    | RandomPartition
    | ImbalancedPartition
    | DirichletPartition
    | GivenPartition
    | WholePartition
    | UsersPartition,
    Field(discriminator="name"),
]
"""The settings of any partitioner, told apart by `name`."""

__all__ = [
    "DirichletPartition",
    "GivenPartition",
    "ImbalancedPartition",
    "LouvainPartition",
    "MetisPartition",
    "OverlapRatePartition",
    "OverlappingPartition",
    "Partition",
    "PartitionSettings",
    "RandomPartition",
    "UsersPartition",
    "WholePartition",
]
