"""The contract of a method: everything that its clients and its strategy must agree on.

It is declared once, in the client's class (`subfl_flower.node.client.CohortClient`): the settings, the arrays
that go down and up, the phases outside of rounds, and the metrics. A strategy's class takes the settings and the
contract from there. Checks of what arrives, packing, byte counts, checkpoints of remembered values and the columns of a
round's record follow from it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, create_model

from subfl_flower.aggregation.settings import AggregationSettings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import OptimizerSettings
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.tasks.metric import Metric, is_test_figure
from subfl_flower.tasks.settings import TaskSettings
from subfl_flower.wire.payload import ArraySpec
from subfl_flower.wire.ragged import RaggedSpec
from subfl_flower.wire.roster import Shape
from subfl_flower.wire.summed import Layout, masked_upload

if TYPE_CHECKING:
    from subfl_flower.subgraphs.models.graph_network import GraphNetwork

Declared = Mapping[str, ArraySpec | RaggedSpec]
"""Arrays by name: of a fixed shape a client, or with a number of rows that differs by client."""


AbsentFeatures = Literal["send", "skip"]
"""Treatment of the first layer's rows of features that a client does not have."""


class MethodSettings(BaseModel):
    """The knobs of a method, for both sides; subclasses add fields, and override defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


@dataclass(frozen=True, eq=False)
class RunContext:
    """Facts that a run's clients and strategy know from their construction on.

    Attributes:
        settings: of the method.
        model: settings of the model.
        optimizer: settings of the clients' optimiser.
        task: of the run.
        privacy: protection of clients' uploads.
        aggregation: protection of averages against hostile clients.
        secure_sums: settings of sums that hide each client's upload.
        seed: of everything random.
        num_rounds: rounds of the run; None where that is not known.
        local_epochs: passes over a client's training examples in a round.
        fraction: share of the clients that take part in a round.
        run_id: of the run.
        shape: of the clients' data.
        network: the network that clients train, where it is one on graphs.
        initial: initial model of the federation, by name, without a client axis.
        absent_features: treatment of rows of features that a client does not have; None: as the method says.
        audit: True where the server of a simulation audits what uploads give away.
        evaluation_modes: True where clients keep their last models, to be measured on other clients' data.
        test: False where no figure of test examples may leave a client.
    """

    settings: Any
    model: Any = None
    optimizer: OptimizerSettings = field(default_factory=lambda: OptimizerSettings(name="adam"))
    task: TaskSettings | None = None
    privacy: LdpSettings = field(default_factory=LdpSettings)
    aggregation: AggregationSettings = field(default_factory=AggregationSettings)
    secure_sums: SecureSumSettings = field(default_factory=SecureSumSettings)
    seed: int = 0
    num_rounds: int | None = None
    local_epochs: int = 1
    fraction: float = 1.0
    run_id: str = ""
    shape: Shape = field(default_factory=lambda: Shape(0, 0))
    network: GraphNetwork[Any] | None = None
    initial: Mapping[str, np.ndarray] = field(default_factory=dict)
    absent_features: AbsentFeatures | None = None
    audit: bool = False
    evaluation_modes: bool = False
    test: bool = True

    def reports(self, figure: str) -> bool:
        """True for a figure that clients may send and the server may record."""
        return self.test or not is_test_figure(figure)

    @property
    def skips_absent(self) -> bool:
        """True where rows of features that a client does not have are not sent; protected uploads have all rows."""
        if self.privacy.mechanism != "none":
            return False
        return (self.absent_features or getattr(self.settings, "absent_features", "send")) == "skip"


@dataclass(frozen=True)
class Contract:
    """The contract of one run.

    Attributes:
        downloads: arrays that clients are sent to train or to measure.
        uploads: arrays that clients send after training.
        metrics: figures that clients send, by name.
        phases: names of the phases outside of rounds, in the order in which they come before a round.
        summed: shapes of what a secure sum adds up in place of the uploads.
    """

    downloads: Declared = field(default_factory=dict)
    uploads: Declared = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    phases: tuple[str, ...] = ()
    summed: Layout = field(default_factory=dict)

    @property
    def in_a_sum(self) -> Contract:
        """The contract of a reply whose uploads are hidden in a secure sum: one masked array."""
        return replace(self, uploads=masked_upload(self.summed))

    @property
    def evaluation(self) -> Contract:
        """The contract of a reply to an evaluation, which has only figures."""
        return replace(self, uploads={})


def require_form(dtype: str, contract: Contract, method: str) -> None:
    """Require that all that a method sends can travel in the number format that is asked for.

    Raises:
        SubflError: it sends rows of float32 in numbers that differ by client.
    """
    rows = {**rows_of(contract.downloads), **rows_of(contract.uploads)}
    exact = [name for name, spec in rows.items() if spec.dtype == "float32"]
    if dtype != "float32" and exact:
        raise SubflError(
            f"wire.dtype: must be float32 with method={method}, whose clients send different numbers of rows of "
            f"{exact[0]}, which have no shorter form (found {dtype!r})"
        )


def arrays_of(declared: Declared) -> dict[str, ArraySpec]:
    """The arrays of a fixed shape a client."""
    return {name: spec for name, spec in declared.items() if isinstance(spec, ArraySpec)}


def rows_of(declared: Declared) -> dict[str, RaggedSpec]:
    """The arrays of which each client has a different number of rows."""
    return {name: spec for name, spec in declared.items() if isinstance(spec, RaggedSpec)}


def joined_settings(one: type[MethodSettings], other: type[MethodSettings]) -> type[MethodSettings]:
    """The settings of a method whose sides declare `one` and `other`.

    It is one of the two, where it extends the other one. Else it has their fields together. Of a field that both have,
    the default is that of the class which overrides it, and of `one` where both do.
    """
    if issubclass(one, other):
        return one
    if issubclass(other, one):
        return other
    bases = type("Settings", (one, other), {}).__mro__[1:]
    fields: dict[str, Any] = {}
    for base in reversed(bases):
        own = inspect.get_annotations(base)
        declared = getattr(base, "model_fields", {})
        fields |= {name: (declared[name].annotation, declared[name]) for name in own if name in declared}
    return create_model("Settings", __base__=(one, other), **fields)
