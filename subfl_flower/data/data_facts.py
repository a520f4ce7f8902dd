"""Facts on training data that travel with a client's folder and with its model."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.data.datasets.custom_settings import GraphColumns
from subfl_flower.data.datasets.labels import ClassName
from subfl_flower.data.edge_weights import EdgeWeightRule
from subfl_flower.data.feature_transform import FeatureTransform
from subfl_flower.data.prepared.partition_files import PreparedPartition
from subfl_flower.data.tables.table_file import Encoding

_READ_BY = ("encoding", "columns", "unlabelled", "edge_weights")
"""Settings of a reader of a user's files."""


class ReadingSettings(BaseModel):
    """Settings by which a user's own files were read, so that further files are read alike.

    Attributes:
        encoding: of tables of text.
        columns: names of columns where they differ from the defaults.
        unlabelled: labels that stand for none.
        edge_weights: rule for a pair of nodes that has several weights; `ignore` where the graph has no weights.
        missing: texts that mean an empty field in feature columns.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoding: Encoding = "utf-8"
    columns: GraphColumns = GraphColumns()
    unlabelled: tuple[ClassName, ...] | None = None
    edge_weights: EdgeWeightRule | Literal["ignore"] = "ignore"
    missing: tuple[str, ...] = ()


class DataFacts(BaseModel):
    """Facts on a data set that a model's user needs.

    Attributes:
        classes: name of each class, in the order of the class numbers; None where the source has numbers only.
        transform: treatment of the source's features; None where it is not known.
        data: fingerprint of the treated graph (`description.graph_digests`), a sha256 in hexadecimal digits; None where
            it is not known.
        reading: settings by which a user's own files were read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    classes: tuple[str, ...] | None = None
    transform: FeatureTransform | None = None
    data: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    reading: ReadingSettings = ReadingSettings()

    @classmethod
    def of(cls, prepared: PreparedPartition) -> DataFacts:
        """The facts on prepared data. A source without a transform has features that are at most normalised by row."""
        dataset = prepared.metadata["dataset"]
        reading = {}
        if set(_READ_BY) <= set(dataset):
            reading = {name: dataset[name] for name in _READ_BY}
            reading["missing"] = dataset["features"]["missing"]
            if prepared.data["weights"] is None:
                reading["edge_weights"] = "ignore"
        return cls(
            classes=prepared.class_names,
            transform=prepared.transform or FeatureTransform(row_normalize=dataset["row_normalize"]),
            data=prepared.data["fingerprints"]["data"],
            reading=ReadingSettings.model_validate(reading),
        )

    @property
    def facts(self) -> DataFacts:
        """These facts alone, of an object of a subclass."""
        return DataFacts(**{name: getattr(self, name) for name in DataFacts.model_fields})

    @property
    def names_digest(self) -> str:
        """Digest of the names that all sites must share; 16 hexadecimal digits, empty where there are no names.

        It covers classes and features in order, and whether edges have weights.
        """
        transform = self.transform or FeatureTransform()
        names = [self.classes, transform.columns, transform.one_hot, self.reading.edge_weights != "ignore"]
        return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:16] if any(names) else ""

    def require_classes(self, num_classes: int) -> None:
        """Refuse class names that are not one distinct name for each class.

        Raises:
            ValueError: their number differs from `num_classes`, or two are equal.
        """
        if self.classes is not None and (
            len(self.classes) != num_classes or len(set(self.classes)) < len(self.classes)
        ):
            raise ValueError(f"classes must be {num_classes} different names")


NOTHING_KNOWN = DataFacts()
"""Facts on data of which only sizes are known."""
