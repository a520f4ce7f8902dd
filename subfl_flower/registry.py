"""Methods of a configuration: their classes, found by dotted path, and the checks by these classes.

A method's knobs are validated by the ``Settings`` models of the strategy and of the client that its YAML names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from subfl_flower.catalogue.suggestions import did_you_mean
from subfl_flower.config import Config, Method, checked, sentence
from subfl_flower.data.datasets import DATASETS
from subfl_flower.doors import load_class
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.runs.directory import RunDirectory
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.wire.contract import MethodSettings, joined_settings


def validate(composed: Mapping[str, Any]) -> Config:
    """Check a composed configuration against the schema, the method's knobs included.

    Args:
        composed: plain values, interpolations resolved.

    Raises:
        SubflError: one sentence for the first error, and the number of further errors.
    """
    config = checked(_with_classes_for_its_data(composed))
    client = client_class(config.method)
    _require_one_kind(config, client)
    _require_fitting_schema(config)
    if config.privacy.mechanism != "none" and not client.protects_uploads:
        raise SubflError(
            f"privacy.mechanism: clients of method={config.method.name} do not protect what they upload; "
            "only none is allowed"
        )
    if config.aggregation.rule not in (allowed := strategy_class(config.method).rules):
        raise SubflError(
            f"aggregation.rule: method={config.method.name} does not average whole models; must be "
            f"{' or '.join(allowed)} (found {config.aggregation.rule!r})"
        )
    if config.privacy.mechanism != "none" and config.wire.absent_features == "skip":
        raise SubflError(
            f"wire.absent_features: with privacy.mechanism={config.privacy.mechanism} only send is allowed, because "
            "rows that are left out tell which features a client has"
        )
    if config.record.audit:
        _require_auditable(config, client)
    if config.disturbance.active:
        _require_disturbable(config)
    if config.record.evaluation_modes:
        _require_modes(config, client)
    if config.privacy.in_sum:
        _require_one_sum(config, client)
    if config.runtime.precision != "float32" and not client.trains_mixed:
        raise SubflError(
            f"runtime.precision={config.runtime.precision}: clients of method={config.method.name} compute in float32 "
            "alone"
        )
    if not config.task.learnt_by(config.model.tasks):
        raise SubflError(
            f"model={config.model.name} is for task={' or '.join(config.model.tasks)}, not for task={config.task.name}"
        )
    client.check_model(config.model, config.method.name)
    settings = method_settings(config.method)
    if config.secure_sums.enabled:
        if config.aggregation.rule != "mean":
            raise SubflError(
                f"aggregation.rule: must be mean with secure_sums.enabled, because a sum hides each client's update "
                f"(found {config.aggregation.rule!r})"
            )
        strategy_class(config.method).check_sums(config.secure_sums, settings, config.method.name)
        if (config.wire.absent_features or getattr(settings, "absent_features", "send")) == "skip":
            raise SubflError(
                "wire.absent_features: must be send with secure_sums.enabled, because rows that a client leaves out "
                "cannot be told from others in a sum"
            )
    if config.wire.absent_features == "skip":
        client.check_skipping(config.model, settings, config.optimizer, config.method.name)
    return config


def _with_classes_for_its_data(composed: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration, with a method's classes by kind of data reduced to those for the data set's kind.

    Knobs that only the classes for other kinds have are left out. Where an override replaced the classes of a role, the
    replaced classes are unknown, and all knobs that the chosen classes do not have are left out.
    """
    method, dataset = composed.get("method"), composed.get("dataset")
    if not isinstance(method, Mapping) or not isinstance(dataset, Mapping):
        return composed  # pydantic reports it
    bases = {"strategy": CohortStrategy, "client": CohortClient}
    by_kind = {role: method[role] for role in bases if isinstance(method.get(role), Mapping)}
    settings = DATASETS.chosen(dataset) if by_kind else None
    if settings is None:
        return composed
    kind = getattr(settings, "kind", "")
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


def needs_matcher(config: Config) -> bool:
    """True if the configuration's method has a third party, which is a node that hosts no clients."""
    return strategy_class(config.method).needs_matcher(method_settings(config.method))


_HOLDS = {"graph": "a graph", "ratings": "ratings of users"}
_SCHEMA_KEYS = {"graph": "features", "ratings": "items"}
_ADVICE = {("ratings", "method"): "; choose a method for ratings, such as method=fedgnn"}
"""Advice on another choice, by the kind of data and the section that does not support it."""


def _require_one_kind(config: Config, client: type[CohortClient]) -> None:
    """Raise SubflError where a method, partition, task or model does not support the data set's kind."""
    kind = config.dataset.kind
    others = {"method": (config.method.name, client.kind)}
    for group in ("partition", "task", "model"):
        chosen = getattr(config, group)
        others[group] = (chosen.name, chosen.kind)
    for group, (name, other) in others.items():
        if other != kind:
            holds, meant = _HOLDS[kind], _HOLDS[other]
            advice = _ADVICE.get((kind, group), "")
            raise SubflError(f"dataset={config.dataset.name} holds {holds}, and {group}={name} is for {meant}{advice}")


def _require_fitting_schema(config: Config) -> None:
    """Raise SubflError where the clients' schema is of other data, or is stated although the server has the data."""
    schema, dataset = config.data_schema, config.dataset
    if not schema.is_stated:
        return
    if not config.runtime.deployed:
        raise SubflError(
            f"schema: runtime={config.runtime.name} takes it from the data that it has; it is stated with "
            "runtime=deploy alone"
        )
    if schema.dataset not in (None, dataset.name):
        raise SubflError(f"schema.dataset: {schema.dataset!r}, and the run is on dataset={dataset.name}")
    if schema.kind is not None and schema.kind != dataset.kind:
        key, holds = _SCHEMA_KEYS[schema.kind], _HOLDS[dataset.kind]
        raise SubflError(f"schema.{key}: dataset={dataset.name} holds {holds}; only data of the other kind have {key}")


def _require_one_sum(config: Config, client: type[CohortClient]) -> None:
    """Raise SubflError where the noise that clients share could be met by less than the sum of their uploads."""
    problem = "privacy.in_sum: the noise is that of a sum of equal parts, and needs"
    if not config.secure_sums.enabled or config.secure_sums.from_round > 1:
        raise SubflError(f"{problem} secure_sums.enabled=true from the first round on")
    if not client.audited:
        raise SubflError(f"{problem} clients that average whole models, which those of {config.method.name} do not")
    if config.method.knobs.get("weighting") != "uniform":
        raise SubflError(f"{problem} method.weighting=uniform (found {config.method.knobs.get('weighting')!r})")


def _require_auditable(config: Config, client: type[CohortClient]) -> None:
    """Raise SubflError where `record.audit` has nothing to audit, or no truth to compare with."""
    if config.runtime.deployed:
        raise SubflError("record.audit: the truth is known in simulations alone, and runtime=deploy is none")
    if not client.audited or not getattr(config.task, "classifies_nodes", False):
        raise SubflError(
            f"record.audit: it is for classifiers of nodes whose parameters are averaged; method={config.method.name} "
            f"with task={config.task.name} has none (for ratings: method.audit_users)"
        )


def _require_disturbable(config: Config) -> None:
    """Raise SubflError where data are not prepared in this run, or are no graph."""
    if config.runtime.deployed:
        raise SubflError(
            "disturbance: runtime=deploy trains on folders as they are; subfl partition with the same keys makes "
            "disturbed ones"
        )
    if not config.dataset.disturbable:
        raise SubflError(f"disturbance: it is for graphs, and dataset={config.dataset.name} holds ratings of users")


def _require_modes(config: Config, client: type[CohortClient]) -> None:
    """Raise SubflError where `record.evaluation_modes` cannot measure clients' models on others' data."""
    problem = "record.evaluation_modes:"
    if config.runtime.deployed:
        raise SubflError(
            f"{problem} models are measured on other clients' data in simulations alone, and runtime=deploy is none"
        )
    if not config.record.test:
        raise SubflError(f"{problem} its figures are of test examples, and record.test=false records none")
    if not client.keeps_last or not getattr(config.task, "measures_pooled", False):
        raise SubflError(
            f"{problem} it is for models of clients' own graphs; method={config.method.name} with "
            f"task={config.task.name} has none"
        )


def stored_config(path: Path) -> Config:
    """The configuration of the run in a folder.

    Raises:
        SubflError: there is none, or this version cannot use it; names the file.
    """
    directory = RunDirectory(path)
    try:
        return validate(directory.config())
    except SubflError as error:
        if str(error).startswith(str(directory.config_path)):
            raise
        raise SubflError(
            f"{directory.config_path}: {error} (has another version made this run, or is a package missing?)"
        ) from error


def strategy_class(method: Method) -> type[CohortStrategy]:
    """The class of a method's strategy."""
    return load_class(method.strategy, CohortStrategy, "method.strategy")


def client_class(method: Method) -> type[CohortClient]:
    """The class of a method's clients."""
    return load_class(method.client, CohortClient, "method.client")


def method_settings(method: Method) -> MethodSettings:
    """The knobs of a method, the same for server and clients.

    Raises:
        SubflError: there is no such knob, or a value has the wrong type or is out of range.
    """
    model = joined_settings(client_class(method).Settings, strategy_class(method).Settings)
    for key in method.knobs:
        if key not in model.model_fields:
            allowed = ", ".join(sorted(model.model_fields)) or "none"
            advice = did_you_mean(key, model.model_fields, "method.{}")
            raise SubflError(f"method.{key}: method {method.name!r} has no such setting; it has: {allowed}{advice}")
    try:
        return model(**method.knobs)
    except pydantic.ValidationError as error:
        raise SubflError(sentence(error, method.knobs, "method.")) from None
