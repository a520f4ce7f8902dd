"""The typed schema of ``conf/``, validated once, at the edge.

Hydra composes the YAML files of ``conf/`` and the command line's overrides; `validate` turns the result into a frozen
`Config` or raises one sentence that names the key, what was found and what is allowed. A method's own knobs are
validated by the ``Settings`` models of the strategy and of the client that its YAML names, so that a new method needs
no change here.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from subfl_flower.data.datasets import DATASET_KINDS, Dataset
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.data.partitions import Partition
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import (
    DecoupledSettings,
    LightGCNSettings,
    ModelSettings,
    ModuleSettings,
    OptimizerSettings,
    RecommenderSettings,
)
from subfl_flower.privacy.mechanism import LdpSettings
from subfl_flower.runtime.cohort_client import CohortClient
from subfl_flower.runtime.contract import MethodSettings, joined_settings
from subfl_flower.runtime.loggers import LoggerSettings
from subfl_flower.runtime.strategy import CohortStrategy
from subfl_flower.tasks import Task


class Section(BaseModel):
    """A section of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Data(Section):
    """Where raw data sets lie, and where prepared partitions are kept."""

    root: Path
    cache: Path

    @pydantic.field_validator("root", "cache")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()


class Federation(Section):
    """How long a federation trains: `rounds` of `local_epochs` full passes over each client's training examples.

    `fraction` of the clients, drawn anew, take part in a round. A round waits `round_timeout` seconds for replies, null
    without end; who is late is left out of it. Fewer than `min_clients` replies end the run; with null the run starts
    with all clients only, and goes on as long as one of them replies.
    """

    rounds: int = Field(ge=1)
    local_epochs: int = Field(ge=1)
    fraction: float = Field(default=1.0, gt=0, le=1)
    round_timeout: float | None = Field(default=None, gt=0)
    min_clients: int | None = Field(default=None, ge=1)


class Method(BaseModel):
    """A method: a strategy, a client family, and their own knobs (validated by their ``Settings``).

    A YAML may name its classes by kind of data; `validate` then takes those for what the data set holds, and with them
    the knobs that they have.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    strategy: str
    client: str

    @property
    def knobs(self) -> dict[str, Any]:
        """The method's own settings, by name."""
        return dict(self.model_extra or {})


class Runtime(Section):
    """Where clients run and how a cohort is worked.

    `chunk` is the number of clients worked at once inside a cohort; it does not change results. `threads` is PyTorch's
    intra-operator thread count per process.
    """

    poll_seconds: ClassVar[float] = 0.005
    """Seconds between two looks for nodes' replies."""

    chunk: int | Literal["auto", "all"] = "auto"
    device: str = "auto"
    threads: int | Literal["auto"] = "auto"
    on_client_failure: Literal["stop", "continue"] = "stop"
    node_timeout: float = Field(default=60.0, gt=0)

    @pydantic.field_validator("chunk", "threads", "nodes", check_fields=False)
    @classmethod
    def _positive(cls, value: int | str) -> int | str:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be at least 1")
        return value


class Simulation(Runtime):
    """Clients whose data are all at hand. They are spread over `nodes` nodes, which does not change results."""

    nodes: int | Literal["auto"] = "auto"


class Inline(Simulation):
    """All in one process, without Ray and without ports."""

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


class Deploy(Runtime):
    """SuperNodes on machines of their own, each with its clients' data; the server has none."""

    poll_seconds: ClassVar[float] = 0.25

    name: Literal["deploy"]
    on_client_failure: Literal["stop", "continue"] = "continue"
    node_timeout: float = Field(default=300.0, gt=0)


class Record(Section):
    """What a run writes beside its metrics.

    The mixing matrix every `mixing_every` rounds, the clients' models, and every `checkpoint_every` rounds all that is
    needed to resume; 0 for never, ``auto`` for every round of a deployment and never else.
    """

    mixing_every: int = Field(ge=1)
    client_models: bool
    checkpoint_every: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"


class Config(Section):
    """The whole configuration of one run."""

    seed: int = Field(ge=0)
    data: Data
    dataset: Dataset
    # `BaseModel` has a method of the key's own name.
    data_schema: FederationSchema = Field(default=FederationSchema(), alias="schema")
    partition: Partition
    task: Task
    model: Annotated[
        ModelSettings | DecoupledSettings | ModuleSettings | RecommenderSettings | LightGCNSettings,
        Field(discriminator="name"),
    ]
    optimizer: OptimizerSettings
    federation: Federation
    method: Method
    privacy: LdpSettings = LdpSettings()
    runtime: Annotated[Inline | Ray | Deploy, Field(discriminator="name")]
    logger: LoggerSettings
    record: Record

    @property
    def checkpoint_every(self) -> int:
        """Rounds between two checkpoints; 0 for never."""
        if self.record.checkpoint_every == "auto":
            return 1 if isinstance(self.runtime, Deploy) else 0
        return self.record.checkpoint_every

    @property
    def needs_matcher(self) -> bool:
        """Whether the method asks a third party, which is a node of its own."""
        strategy = strategy_class(self.method)
        return bool(strategy.needs_matcher(method_settings(strategy, client_class(self.method), self.method)))

    def plain(self) -> dict[str, Any]:
        """The configuration as JSON-compatible values, the form that is written, hashed and sent."""
        return self.model_dump(mode="json", by_alias=True)


def load_class(path: str, base: type[Any], key: str) -> type[Any]:
    """Import the class that a dotted `path` names; `key` is the configuration key it came from.

    Raises SubflError where it cannot be imported or is not a subclass of `base`.
    """
    module_name, _, class_name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # a module of the user's own may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SubflError(f"{key}: cannot import {path!r} ({reason}); give the dotted path of a class") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise SubflError(f"{key}: {path!r} is not a subclass of {base.__name__}")
    return found


def validate(composed: Mapping[str, Any]) -> Config:
    """Check a composed configuration against the schema, the method's own knobs included.

    Args:
        composed: plain values, interpolations resolved.

    Raises:
        SubflError: one sentence for the first thing that is wrong, and how many more there are.
    """
    composed = _with_classes_for_its_data(composed)
    try:
        config = Config.model_validate(composed)
    except pydantic.ValidationError as error:
        raise SubflError(_sentence(error, composed)) from None
    strategy, client = strategy_class(config.method), client_class(config.method)
    _require_one_kind(config, client)
    _require_fitting_schema(config)
    if config.privacy.mechanism != "none" and not client.protects_uploads:
        raise SubflError(
            f"privacy.mechanism: clients of method={config.method.name} do not protect what they upload; "
            "only none is allowed"
        )
    if config.task.name not in config.model.tasks:
        raise SubflError(
            f"model={config.model.name} is for task={' or '.join(config.model.tasks)}, not for task={config.task.name}"
        )
    client.check_model(config.model, config.method.name)
    method_settings(strategy, client, config.method)
    return config


def _with_classes_for_its_data(composed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The same, with a method that names its classes by kind of data reduced to those for what the data set holds.

    Its knobs for other data are left out: those that only the classes for these have. Where an override replaced the
    classes of a role, nobody knows which these were, and whatever the chosen ones do not have is left out.
    """
    method, dataset = composed.get("method"), composed.get("dataset")
    if not isinstance(method, Mapping) or not isinstance(dataset, Mapping):
        return composed  # pydantic says so
    bases = {"strategy": CohortStrategy, "client": CohortClient}
    by_kind = {role: method[role] for role in bases if isinstance(method.get(role), Mapping)}
    kind = DATASET_KINDS.get(str(dataset.get("name")))
    if not by_kind or kind is None:
        return composed
    chosen = {**method}
    own, others = {"name", *bases}, set[str]()
    for role, base in bases.items():
        paths = by_kind.get(role, {kind: method.get(role)})
        if kind not in paths:
            raise SubflError(f"method={method.get('name')} has no {role} for data sets that hold {_HOLDS[kind]}")
        chosen[role] = paths[kind]
        for of, path in paths.items():
            fields = load_class(str(path), base, f"method.{role}").Settings.model_fields
            (own if of == kind else others).update(fields)
    if len(by_kind) < len(bases):
        others = set(chosen)
    return {**composed, "method": {key: value for key, value in chosen.items() if key not in others - own}}


_HOLDS = {"graph": "a graph", "ratings": "ratings of users"}


def _require_one_kind(config: Config, client: type[CohortClient]) -> None:
    """Raise SubflError where a method, partition, task or model is not for what the data set holds."""
    kind = config.dataset.kind
    others = {"method": (config.method.name, client.kind)}
    for group in ("partition", "task", "model"):
        chosen = getattr(config, group)
        others[group] = (chosen.name, chosen.kind)
    for group, (name, other) in others.items():
        if other != kind:
            holds, meant = _HOLDS[kind], _HOLDS[other]
            sentence = f"dataset={config.dataset.name} holds {holds}, and {group}={name} is for {meant}"
            if (kind, group) == ("ratings", "method"):
                sentence += "; choose a method for ratings, such as method=fedgnn"
            raise SubflError(sentence)


def _require_fitting_schema(config: Config) -> None:
    """Raise SubflError where the clients' schema is of other data, or is stated though the server has the data."""
    schema, dataset = config.data_schema, config.dataset
    if not schema.is_stated:
        return
    if not isinstance(config.runtime, Deploy):
        raise SubflError(
            f"schema: runtime={config.runtime.name} takes it from the data that it has; it is stated with "
            "runtime=deploy alone"
        )
    if schema.dataset not in (None, dataset.name):
        raise SubflError(f"schema.dataset: {schema.dataset!r}, and the run is on dataset={dataset.name}")
    if schema.kind not in (None, dataset.kind):
        key, holds = ("items" if schema.kind == "ratings" else "features"), _HOLDS[dataset.kind]
        raise SubflError(f"schema.{key}: dataset={dataset.name} holds {holds}; only data of the other kind have {key}")


def strategy_class(method: Method) -> type[CohortStrategy]:
    """The class of a method's strategy."""
    return load_class(method.strategy, CohortStrategy, "method.strategy")


def client_class(method: Method) -> type[CohortClient]:
    """The class of a method's clients."""
    return load_class(method.client, CohortClient, "method.client")


def method_settings(strategy: type[CohortStrategy], client: type[CohortClient], method: Method) -> MethodSettings:
    """The knobs of a method, as both sides have them.

    Raises:
        SubflError: there is no such knob, or a value has the wrong type or is out of range.
    """
    model = joined_settings(client.Settings, strategy.Settings)
    for key in method.knobs:
        if key not in model.model_fields:
            allowed = ", ".join(sorted(model.model_fields)) or "none"
            raise SubflError(f"method.{key}: method {method.name!r} has no such setting; it has: {allowed}")
    try:
        return model(**method.knobs)
    except pydantic.ValidationError as error:
        raise SubflError(_sentence(error, method.knobs, "method.")) from None


def _sentence(error: pydantic.ValidationError, composed: Mapping[str, Any], prefix: str = "") -> str:
    """The first problem of a validation error: which key, what is wrong, what was found."""
    problems = [(_key(problem, composed), problem) for problem in error.errors(include_url=False)]
    key, first = problems[0]
    if first["type"] == "extra_forbidden":
        return f"{prefix}{key}: there is no such setting"
    if first["type"] == "missing":
        return f"{prefix}{key}: a value is required"
    if first["type"] == "union_tag_invalid":
        return f"{prefix}{key}.name: must be one of {first['ctx']['expected_tags']} (found {first['ctx']['tag']!r})"
    # A value that fits no alternative of a union has one complaint for each.
    messages = [problem["msg"].removeprefix("Value error, ") for other, problem in problems if other == key]
    found = "" if isinstance(first["input"], Mapping) else f" (found {first['input']!r})"  # a section is no answer
    if first["type"] in ("string_type", "path_type") and isinstance(first["input"], int | float):
        found += "; text that reads as a number, or as true or false, stands in quotes"
    return f"{prefix}{key}: {' or '.join(dict.fromkeys(messages))}{found}"


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
