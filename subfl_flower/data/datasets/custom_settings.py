"""Settings of a user's tables and files: columns, features, masks and weights."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from subfl_flower.data.feature_transform import Imputation


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GraphColumns(_Closed):
    """Names of columns; None finds `id`, `label`, `source`, `target` and `weight` in any case.

    Attributes:
        id, label: in the table of nodes.
        source, target, weight: in the table of edges; `weight` may also name an attribute of a PyG file.
    """

    id: str | None = None
    label: str | None = None
    source: str | None = None
    target: str | None = None
    weight: str | None = None


class FeatureSettings(_Closed):
    """Treatment of features before training.

    Attributes:
        standardize: scale features that are not 0/1 to mean 0 and variance 1 over the training nodes; sparse ones to
            variance 1 only. `auto`: columns of tables, unless rows are normalised or a site makes its own folder.
        one_hot: columns of categories, each category becoming a feature; or for each column its categories in an order
            agreed among all sites. None: no column.
        impute: rule for empty numbers; None refuses them. An empty category is always none of the categories.
        missing: texts that mean an empty field in feature columns, such as NA.
        ignore: columns that are no features.
        from_structure: features for a graph that has none: `degree`, 65 features that are 1 for nodes of 0, 1, ..., 63
            and more neighbours; `identity`, a feature for each node.
    """

    standardize: bool | Literal["auto"] = "auto"
    one_hot: tuple[str, ...] | dict[str, tuple[str, ...]] | None = None
    impute: Imputation | None = None
    missing: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    from_structure: Literal["degree", "identity"] | None = None

    @field_validator("one_hot", "missing", "ignore", mode="before")
    @classmethod
    def _texts(cls, value: object) -> object:
        """Convert numbers and truth values on the command line to texts of the data."""
        if isinstance(value, dict):
            return {key: cls._texts(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [str(part) if isinstance(part, bool | int | float) else part for part in value]
        return value

    @field_validator("one_hot")
    @classmethod
    def _categories_once(cls, value: object) -> object:
        if isinstance(value, dict) and any(len(set(names)) < len(names) or not names for names in value.values()):
            raise ValueError("a column's categories must be named once each, at least one")
        return value

    @property
    def encoded(self) -> tuple[str, ...]:
        """The columns of categories."""
        return tuple(self.one_hot or ())
