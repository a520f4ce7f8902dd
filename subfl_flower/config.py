"""The typed schema of ``conf/``.

Hydra composes the YAML files of ``conf/`` and the command line's overrides; `checked` turns the result into a frozen
`Config` or raises one sentence that names the key, what was found and what is allowed. The sections in `DOORS` choose a
class and are validated by it, so that a new class needs no change here. `registry` validates methods.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.aggregation.settings import AggregationSettings
from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.data.datasets import DATASETS, Dataset
from subfl_flower.data.disturbances.settings import DisturbanceSettings
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.data.partitions import PARTITIONS, Partition
from subfl_flower.doors import TARGET
from subfl_flower.errors import SubflError
from subfl_flower.loggers import LOGGERS, AnyLogger, NoLoggerSettings
from subfl_flower.models.settings import (
    FactorisationSettings,
    GraphModel,
    LightGCNSettings,
    OptimizerSettings,
    RecommenderSettings,
)
from subfl_flower.privacy.mechanism import AnyMechanism, NoNoise
from subfl_flower.privacy.secure_aggregation.settings import SecureSumSettings
from subfl_flower.tasks.choices import TASKS, Task


class Section(BaseModel):
    """A section of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """Folders of raw data sets and of prepared partitions."""

    root: Path
    cache: Path

    @pydantic.field_validator("root", "cache")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()


class Federation(Section):
    """Length of training: `rounds` of `local_epochs` full passes over each client's training examples.

    A random `fraction` of the clients takes part in each round. A round waits `round_timeout` seconds for replies, null
    without limit; late clients are left out of it. Fewer than `min_clients` replies end the run. With null the run
    starts only with all clients, and continues as long as one of them replies. Where the schema does not list the
    clients, a node with which there would be more than `max_clients` is refused; null: any number.

    Where clients of a deployment may fail, a round is no longer than `straggler_factor` times the time in which half of
    the nodes replied (30 seconds at least; null: as `round_timeout` says). A node that is silent for `silent_rounds`
    rounds is no longer asked until it connects again; null: it always is.
    """

    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    round_timeout: float | None = Field(default=3600.0, gt=0)
    min_clients: int | None = Field(default=None, ge=1)
    max_clients: int | None = Field(default=10_000, ge=1)
    straggler_factor: float | None = Field(default=10.0, ge=1)
    silent_rounds: int | None = Field(default=3, ge=1)


class Method(BaseModel):
    """A method: a strategy, a client family, and their own knobs (validated by their ``Settings``).

    A YAML may name its classes by kind of data; `registry.validate` then selects those for the data set's kind, and
    their knobs.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    strategy: str
    client: str

    @property
    def knobs(self) -> dict[str, Any]:
        """The method's knobs, by name."""
        return dict(self.model_extra or {})


class Runtime(Section):
    """Placement of clients, and the processing of a cohort.

    `chunk` is the number of clients processed at once inside a cohort; it changes results by rounding alone. `threads`
    is the number of cores of a process. They work as many chunks side by side, which changes no result. A node with
    fewer clients leaves further cores to PyTorch, which may then round otherwise. `precision` is that of the products
    of matrices in training steps; parameters, gradients and figures stay float32.
    """

    poll_seconds: ClassVar[float] = 0.005
    """Seconds between two polls for nodes' replies."""

    deployed: ClassVar[bool] = False
    """True where the nodes are machines that hold the data, and the server has none."""

    one_process: ClassVar[bool] = False
    """True where nodes and server are one process."""

    checkpoint_every: ClassVar[int | None] = None
    """Rounds between two checkpoints unless `record` says otherwise; None for a checkpoint a minute."""

    @property
    def state_travels(self) -> bool:
        """True where the processes of one node may not share a disk, so that clients' states are sent with messages."""
        return False

    @property
    def threads_per_process(self) -> int | None:
        """PyTorch's threads in a process that trains clients, where `threads` leaves it open; None: PyTorch decides."""
        return None

    chunk: int | Literal["auto", "all"] = "auto"
    device: str = "auto"
    threads: int | Literal["auto"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    on_client_failure: Literal["stop", "continue"] = "stop"
    node_timeout: float = Field(default=60.0, gt=0)

    @pydantic.field_validator("chunk", "threads", "nodes", check_fields=False)
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1")
        return value


class Simulation(Runtime):
    """Clients whose data are all available. They are spread over `nodes` nodes, which does not change results."""

    nodes: int | Literal["auto"] = "auto"


class Inline(Simulation):
    """All in one process, without Ray and without ports."""

    one_process: ClassVar[bool] = True

    name: Literal["inline"]


class Ray(Simulation):
    """Flower's simulation engine: one actor for every `num_cpus` cores and `num_gpus` GPUs that Ray finds.

    `address` joins an existing Ray cluster (``auto`` or ``ray://host:port``); null starts one on this machine.
    """

    name: Literal["ray"]
    num_cpus: float = Field(default=1.0, gt=0)
    num_gpus: float = Field(default=0.0, ge=0)
    total_cpus: int | None = Field(default=None, ge=1)
    address: str | None = None
    node_timeout: float = Field(default=900.0, gt=0)

    @property
    def state_travels(self) -> bool:
        """True on a cluster."""
        return self.address is not None

    @property
    def threads_per_process(self) -> int | None:
        """The number of an actor's cores."""
        return max(1, int(self.num_cpus))


class Deploy(Runtime):
    """SuperNodes on separate machines, each with its clients' data; the server has none."""

    poll_seconds: ClassVar[float] = 0.25
    deployed: ClassVar[bool] = True
    checkpoint_every: ClassVar[int | None] = 1

    name: Literal["deploy"]
    on_client_failure: Literal["stop", "continue"] = "continue"
    node_timeout: float = Field(default=300.0, gt=0)


class Record(Section):
    """Files that a run writes in addition to its metrics.

    They are the mixing matrix every `mixing_every` rounds, the clients' models, and every `checkpoint_every` rounds the
    state needed to resume; 0 for never, ``auto`` for every round of a deployment, and once a minute in a simulation.
    With `audit` a simulation on a graph also reports what its server can infer from the clients' uploads.
    With `evaluation_modes` a simulation on a graph measures the mean of all models and each one on all test data.
    Without `test` a run is one of development: no figure of test examples leaves a client.
    """

    test: bool = True
    audit: bool = False
    evaluation_modes: bool = False
    mixing_every: int = Field(default=10, ge=1)
    client_models: bool = True
    checkpoint_every: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"


class Sweep(Section):
    """Settings of a sweep: `jobs` at a time, and the finished jobs that are repeated.

    With ``redo=failed`` jobs that failed or were interrupted are repeated, with ``all`` the completed ones, too, and
    with ``none`` only jobs are trained that were never begun.
    """

    jobs: Annotated[int, Field(ge=1)] | Literal["auto"] = 1
    redo: Literal["failed", "all", "none"] = "failed"


class Wire(Section):
    """Content of messages, and its form.

    `absent_features` says whether rows of the first layer travel that belong to features which a client does not have:
    ``send`` or ``skip``. null leaves it to the method; most of them send. Values of type float32 travel as `dtype` in
    a round, and are float32 again where they arrive; integers and other types stay. `compression` shortens the bytes of
    all arrays of a message, without loss.
    """

    absent_features: Literal["send", "skip"] | None = None
    dtype: Literal["float32", "float16", "int8"] = "float32"
    compression: Literal["none", "zlib"] = "none"


class Config(Section):
    """The whole configuration of one run."""

    seed: int = Field(default=0, ge=0)
    data: Data
    dataset: Dataset
    # `BaseModel` has a method with the name of the key.
    data_schema: FederationSchema = Field(default=FederationSchema(), alias="schema")
    partition: Partition
    disturbance: DisturbanceSettings = DisturbanceSettings()
    task: Task
    model: Annotated[
        GraphModel | RecommenderSettings | FactorisationSettings | LightGCNSettings,
        Field(discriminator="name"),
    ]
    optimizer: OptimizerSettings
    federation: Federation
    method: Method
    privacy: AnyMechanism = NoNoise()
    aggregation: AggregationSettings = AggregationSettings()
    secure_sums: SecureSumSettings = SecureSumSettings()
    runtime: Annotated[Inline | Ray | Deploy, Field(discriminator="name")]
    logger: AnyLogger
    record: Record
    wire: Wire = Wire()
    sweep: Sweep = Field(default=Sweep(), exclude=True)  # says nothing about the run itself

    @property
    def bundling(self) -> str | None:
        """Compression of the bundles in which a message's arrays travel; None where each travels by itself.

        On a network each array takes several requests.
        """
        return self.wire.compression if self.runtime.deployed or self.wire.compression != "none" else None

    @property
    def checkpoint_every(self) -> int | None:
        """Rounds between two checkpoints; 0 for never, None for a checkpoint a minute."""
        if self.record.checkpoint_every == "auto":
            return self.runtime.checkpoint_every
        return self.record.checkpoint_every

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values, the form that is written, hashed and sent."""
        return self.model_dump(mode="json", by_alias=True)

    def for_nodes(self) -> dict[str, Any]:
        """The configuration that is sent to nodes: without the logger, which is the server's and may name secrets."""
        return {**self.plain(), "logger": NoLoggerSettings().model_dump(mode="json")}


DOORS = {"dataset": DATASETS, "partition": PARTITIONS, "task": TASKS, "logger": LOGGERS}
"""The sections of `Config` that choose a class."""


def checked(composed: Mapping[str, Any]) -> Config:
    """Check a composed configuration against the schema; `registry.validate` also checks its method.

    Args:
        composed: plain values, interpolations resolved.

    Raises:
        SubflError: one sentence for the first error.
    """
    try:
        return Config.model_validate(composed)
    except pydantic.ValidationError as error:
        raise SubflError(sentence(error, composed)) from None


def sentence(error: pydantic.ValidationError, composed: Mapping[str, Any], prefix: str = "") -> str:
    """The first problem of a validation error: the key, the problem, the value found.

    Args:
        error: pydantic's error.
        composed: the values that were refused.
        prefix: prefix of every key.
    """
    problems = [(_key(problem, composed), problem) for problem in error.errors(include_url=False)]
    key, first = problems[0]
    if first["type"] == "extra_forbidden":
        return f"{prefix}{key}: there is no such setting{_settings_of_section(key, composed)}"
    if first["type"] == "missing":
        return f"{prefix}{key}: a value is required"
    if first["type"] == "union_tag_not_found":
        return f"{prefix}{key}.{_discriminator(first)}: a value is required"
    if first["type"] == "union_tag_invalid":
        expected, found = first["ctx"]["expected_tags"], first["ctx"]["tag"]
        advice = did_you_mean(found, re.findall(r"'([^']+)'", expected))
        return f"{prefix}{key}.{_discriminator(first)}: must be one of {expected} (found {found!r}){advice}"
    # A value that fits no alternative of a union has one error for each.
    messages = [problem["msg"].removeprefix("Value error, ") for other, problem in problems if other == key]
    found = "" if isinstance(first["input"], Mapping) else f" (found {first['input']!r})"  # a section is no value
    if first["type"] in ("string_type", "path_type") and isinstance(first["input"], int | float):
        found += "; text that reads as a number, or as true or false, stands in quotes"
    if isinstance(first["input"], str):
        literals = (problem["ctx"]["expected"] for _, problem in problems if problem["type"] == "literal_error")
        found += did_you_mean(first["input"], re.findall(r"'([^']+)'", " ".join(literals)))
    return f"{prefix}{key}: {' or '.join(dict.fromkeys(messages))}{found}"


def _discriminator(problem: Any) -> str:
    """The key by which a section chooses a class, of an error on it."""
    return str(problem["ctx"]["discriminator"]).strip("'")


def _settings_of_section(key: str, composed: Mapping[str, Any]) -> str:
    """The settings of a class outside this project, for an error on one of its keys; else empty."""
    section, _, rest = key.partition(".")
    values = composed.get(section)
    if not isinstance(values, Mapping) or TARGET not in values or "." in rest or section not in DOORS:
        return ""
    owner = DOORS[section].chosen(values)
    return "" if owner is None else f"; {owner.__name__} has: {', '.join(owner.model_fields)}"


def _key(problem: Any, composed: Mapping[str, Any]) -> str:
    """The configuration key of a problem: its location without the names of union members."""
    parts: list[str] = []
    here: Any = composed
    for part in problem["loc"]:
        if isinstance(here, Mapping) and part in here:
            parts.append(str(part))
            here = here[part]
    if problem["type"] in ("extra_forbidden", "missing") and (not parts or parts[-1] != problem["loc"][-1]):
        parts.append(str(problem["loc"][-1]))
    return ".".join(parts)
