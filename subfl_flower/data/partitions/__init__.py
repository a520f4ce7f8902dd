"""Partitioners, one file each."""

from typing import Annotated

from subfl_flower.data.partitions.consecutive import ConsecutivePartition
from subfl_flower.data.partitions.dirichlet import DirichletPartition
from subfl_flower.data.partitions.given import GivenPartition
from subfl_flower.data.partitions.imbalanced import ImbalancedPartition
from subfl_flower.data.partitions.louvain import LouvainPartition
from subfl_flower.data.partitions.metis import MetisPartition
from subfl_flower.data.partitions.overlap_rate import OverlapRatePartition
from subfl_flower.data.partitions.overlapping import OverlappingPartition
from subfl_flower.data.partitions.random import RandomPartition
from subfl_flower.data.partitions.settings import PartitionSettings
from subfl_flower.data.partitions.topology_skew import TopologySkewPartition
from subfl_flower.data.partitions.users import UsersPartition
from subfl_flower.data.partitions.whole import WholePartition
from subfl_flower.doors import Door

PARTITIONS = Door(
    "partition",
    (PartitionSettings,),
    (
        MetisPartition,
        OverlappingPartition,
        OverlapRatePartition,
        LouvainPartition,
        RandomPartition,
        ImbalancedPartition,
        DirichletPartition,
        TopologySkewPartition,
        ConsecutivePartition,
        GivenPartition,
        WholePartition,
        UsersPartition,
    ),
)
"""Partitioners by name, and other partitioners by their class."""

Partition = Annotated[PartitionSettings, PARTITIONS]
"""The settings of any partitioner."""

__all__ = [
    "PARTITIONS",
    "ConsecutivePartition",
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
    "TopologySkewPartition",
    "UsersPartition",
    "WholePartition",
]
