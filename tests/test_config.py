from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from subfl_flower.clients.recommendation.fedavg import FedAvgRatingsClient
from subfl_flower.clients.subgraphs.fedpub import FedPUBClient, FedPUBReleasedClient
from subfl_flower.clients.subgraphs.subgraph import SubgraphClient
from subfl_flower.composition import composed_config, config_directory
from subfl_flower.config import Config, Ray
from subfl_flower.doors import load_class
from subfl_flower.errors import SubflError
from subfl_flower.node.client import CohortClient
from subfl_flower.registry import method_settings, stored_config, validate
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.strategies.recommendation.fedavg import FedAvgRatings
from subfl_flower.strategies.subgraphs.fedavg import FedAvg
from subfl_flower.strategies.subgraphs.fedpub import FedPUB


@pytest.fixture(scope="module")
def defaults() -> dict[str, Any]:
    return composed_config([])[0].plain()


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one key replaced, or removed where the value is `...`."""
    copied = copy.deepcopy(values)
    *parents, last = path.split(".")
    here = copied
    for parent in parents:
        here = here[parent]
    if value is ...:
        del here[last]
    else:
        here[last] = value
    return copied


def test_the_defaults_are_fed_pub_on_digits_and_survive_json(defaults: dict[str, Any]) -> None:
    config = validate(defaults)
    assert (config.method.name, config.dataset.name, config.partition.name) == ("fedpub", "digits", "metis")
    assert (config.partition.clients, config.federation.rounds, config.runtime.name) == (10, 50, "inline")
    assert config.plain() == defaults


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        ("seed", -1, "seed: "),
        ("seed", "three", "seed: "),
        ("seed", 1.5, "seed: "),
        ("federation.rounds", ..., "federation.rounds: a value is required"),
        ("sead", 1, "sead: there is no such setting"),
        ("federation.rounds", 0, "federation.rounds: "),
        ("federation.local_epochs", -2, "federation.local_epochs: "),
        ("federation.epochs", 3, "federation.epochs: there is no such setting"),
        ("partition.clients", 0, "partition.clients: "),
        ("partition.name", "stars", "partition"),
        ("partition.file", "x.npz", "partition.file: there is no such setting"),
        ("dataset.name", "imagenet", "dataset"),
        ("dataset.train_fraction", 1.0, "dataset.train_fraction: "),
        ("dataset.neighbours", "many", "dataset.neighbours: "),
        ("model.dropout", 1.0, "model.dropout: "),
        ("model.hidden", 0, "model.hidden: "),
        ("optimizer.lr", 0, "optimizer.lr: "),
        ("optimizer.lr", float("nan"), "optimizer.lr: "),
        ("optimizer.lr", float("inf"), "optimizer.lr: "),
        ("optimizer.weight_decay", -1e-3, "optimizer.weight_decay: "),
        ("runtime.chunk", 0, "runtime.chunk: "),
        ("runtime.chunk", "some", "runtime.chunk: "),
        ("runtime.nodes", -1, "runtime.nodes: "),
        ("runtime.on_client_failure", "ignore", "runtime.on_client_failure: "),
        ("runtime.node_timeout", 0, "runtime.node_timeout: "),
        ("runtime.num_gpus", 1, "runtime.num_gpus: there is no such setting"),
        ("runtime.name", "cluster", "runtime"),
        ("record.mixing_every", 0, "record.mixing_every: "),
        ("record.client_models", "perhaps", "record.client_models: "),
        (
            "logger.name",
            "email",
            "logger.name: must be one of 'none', 'tensorboard', 'mlflow', 'wandb' (found 'email')",
        ),
        ("logger", {"name": "wandb", "mode": "offlien"}, "logger.mode: Input should be 'online', 'offline' or"),
        ("logger", {"name": "mlflow", "uri": "x"}, "logger.uri: there is no such setting"),
        ("logger", {}, "logger.name: a value is required"),
        ("privacy", {}, "privacy.mechanism: a value is required"),
        (
            "privacy.mechanism",
            "laplace",
            "privacy.mechanism: must be one of 'none', 'laplace_linf', 'laplace_l1', 'gaussian_l2' (found 'laplace')",
        ),
        ("privacy", {"mechanism": "laplace_l1", "epsilon": None}, "privacy: mechanism=laplace_l1 needs epsilon"),
        ("privacy", {"mechanism": "gaussian_l2", "clip": 0}, "privacy.clip: Input should be greater than 0 (found 0)"),
        ("task.name", "poetry", "task.name: "),
        ("method.tau", -1, "method.tau: "),
        ("method.tau", "sharp", "method.tau: "),
        ("method.tau", float("nan"), "method.tau: "),
        ("method.tau", float("inf"), "method.tau: "),
        ("method.mask_l1", -1e-6, "method.mask_l1: "),
        ("method.mask_lr", 0, "method.mask_lr: "),
        ("method.proximal", -1, "method.proximal: "),
        ("method.variant", "fast", "method.variant: "),
        ("method.random_p_in", 1.5, "method.random_p_in: "),
        ("method.taw", 1, "method.taw: "),
        ("method.name", ..., "method.name: a value is required"),
        ("method.strategy", ..., "method.strategy: a value is required"),
        ("method.strategy", "subfl_flower.strategies.subgraphs.fedpub", "method.strategy: "),
        ("method.strategy", "strategies.nowhere.Nothing", "method.strategy: cannot import"),
        ("method.strategy", "subfl_flower.strategies.subgraphs.fedpub.Nothing", "method.strategy: cannot import"),
        ("method.strategy", "", "method.strategy: cannot import"),
        ("method.strategy", ".", "method.strategy: cannot import"),
        ("method.strategy", "FedPUB", "method.strategy: cannot import"),
        ("method.strategy", "subfl_flower.clients.subgraphs.fedpub.FedPUBClient", "method.strategy: "),
        ("method.strategy", "flwr.serverapp.strategy.FedAvg", "method.strategy: "),
        ("method.client", "subfl_flower.strategies.subgraphs.fedpub.FedPUB", "method.client: "),
        ("method.client", "flwr.client.NumPyClient", "method.client: "),
        ("method", None, "method: "),
        ("model", [1, 2], "model: "),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_that_names_the_key(
    defaults: dict[str, Any], path: str, value: Any, sentence: str
) -> None:
    with pytest.raises(SubflError) as error:
        validate(changed(defaults, path, value))
    text = str(error.value)
    assert text.startswith(sentence) and "\n" not in text and len(text) < 400


def test_a_sentence_says_what_was_found_and_what_is_allowed(defaults: dict[str, Any]) -> None:
    with pytest.raises(SubflError, match=r"method\.tau: .*greater than or equal to 0.*auto.*-1"):
        validate(changed(defaults, "method.tau", -1))
    with pytest.raises(SubflError, match=r"method\.taw: .*mask_l1.*tau"):
        validate(changed(defaults, "method.taw", -1))


@pytest.mark.parametrize("header", [[1, "2"], ["user", 2.5], ["user", "item", True]])
def test_text_that_reads_as_a_number_needs_quotes(header: list[Any]) -> None:
    composed = composed_config(["dataset=custom_ratings", "dataset.path=r.csv", "method=fedgnn"])[0].plain()
    with pytest.raises(SubflError, match=r"dataset\.header: .*\(found (1|2\.5|True)\); text that reads .* in quotes$"):
        validate(changed(composed, "dataset.header", header))


def test_overlapping_clients_come_in_fives(defaults: dict[str, Any]) -> None:
    overlapping = changed(defaults, "partition", {"name": "overlapping", "clients": 12, "seed": 1})
    with pytest.raises(SubflError, match=r"partition\.clients: must be a multiple of 5.*12"):
        validate(overlapping)


def test_a_runtime_has_its_own_settings(defaults: dict[str, Any]) -> None:
    ray = changed(defaults, "runtime", {"name": "ray", "num_gpus": 0.25, "address": "ray://host:10001"})
    config = validate(ray)
    assert isinstance(config.runtime, Ray) and config.runtime.num_gpus == 0.25 and config.runtime.num_cpus == 1
    with pytest.raises(SubflError, match=r"runtime\.num_cpus: "):
        validate(changed(ray, "runtime.num_cpus", 0))


def test_a_config_cannot_be_changed(defaults: dict[str, Any]) -> None:
    config = validate(defaults)
    for owner, key in ((config, "seed"), (config.federation, "rounds"), (config.method, "name")):
        with pytest.raises(pydantic.ValidationError):
            setattr(owner, key, 3)
    assert isinstance(config, Config)


def knobs(config: Config) -> Any:
    """A method's settings, as both sides have them."""
    return method_settings(config.method)


def test_both_sides_of_a_method_have_all_its_knobs(defaults: dict[str, Any]) -> None:
    found = knobs(validate(changed(changed(defaults, "method.tau", 4), "method.mask_l1", 0.5)))
    assert (found.tau, found.mask_l1) == (4, 0.5)
    assert isinstance(found, FedPUB.Settings) and isinstance(found, FedPUBClient.Settings)


def test_of_a_knob_that_both_sides_have_the_default_is_that_of_the_class_which_overrides_it(
    defaults: dict[str, Any],
) -> None:
    """FED-PUB's strategy with clients that change defaults alone; and fields of either side with those of the other."""
    released = changed(
        changed(defaults, "method", {"name": "mine", "strategy": "subfl_flower.strategies.subgraphs.fedpub.FedPUB"}),
        "method.client",
        "subfl_flower.clients.subgraphs.fedpub.FedPUBReleasedClient",
    )
    found = knobs(validate(released))
    assert isinstance(found, FedPUBReleasedClient.Settings) and (found.sparsity, found.variant) == (None, "released")
    paired = changed(released, "method.strategy", "subfl_flower.strategies.subgraphs.gcfl.GCFL")
    found = knobs(validate(changed(paired, "method.first_split", 7)))
    assert (found.first_split, found.sparsity, found.mask_threshold) == (7, None, 1e-3)
    with pytest.raises(SubflError, match=r"^method\.first_splat: .*epsilon1.*mask_threshold"):
        validate(changed(paired, "method.first_splat", 7))


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("raise RuntimeError('no licence')", "mine_raises.Mine"),
        ("import nothing_of_that_name", "mine_imports.Mine"),
        ("def broken(:", "mine_syntax.Mine"),
        ("Mine = 3", "mine_value.Mine"),
    ],
)
def test_a_users_module_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, path: str
) -> None:
    (tmp_path / f"{path.split('.')[0]}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SubflError, match=r"method\.client: .*mine_"):
        load_class(path, CohortClient, "method.client")
    sys.modules.pop(path.split(".")[0], None)


def test_a_class_is_found_by_its_path() -> None:
    assert load_class("subfl_flower.strategies.subgraphs.fedpub.FedPUB", CohortStrategy, "method.strategy") is FedPUB


# Classes by kind of data ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def by_kind() -> dict[str, dict[str, Any]]:
    """FedAvg's method section as its YAML has it, and validated configurations of both kinds of data."""
    method = yaml.safe_load((config_directory() / "method" / "fedavg.yaml").read_text())
    found = {"method": method}
    for kind, dataset in (("graph", ["dataset=digits"]), ("ratings", ["dataset=synthetic_ratings", "task=ranking"])):
        found[kind] = {**composed_config(["method=fedavg", *dataset])[0].plain(), "method": method}
    return found


def test_a_method_takes_the_classes_for_what_its_data_set_holds(by_kind: dict[str, dict[str, Any]]) -> None:
    graph, ratings = (validate(by_kind[kind]) for kind in ("graph", "ratings"))
    assert graph.method.strategy == "subfl_flower.strategies.subgraphs.fedavg.FedAvg"
    assert graph.method.client == "subfl_flower.clients.subgraphs.subgraph.SubgraphClient"
    assert ratings.method.strategy == "subfl_flower.strategies.recommendation.fedavg.FedAvgRatings"
    assert ratings.method.client == "subfl_flower.clients.recommendation.fedavg.FedAvgRatingsClient"
    # And with them the knobs that these have: the others' are left out.
    assert graph.method.knobs == {"weighting": "examples"}
    assert "weighting" not in ratings.method.knobs
    assert set(ratings.method.knobs) == set(by_kind["method"]) - {"name", "strategy", "client", "weighting"}
    of_graphs, of_ratings = knobs(graph), knobs(ratings)
    assert isinstance(of_graphs, FedAvg.Settings) and of_graphs.weighting == "examples"
    assert isinstance(of_graphs, SubgraphClient.Settings)
    assert of_graphs.model_dump() == {**SubgraphClient.Settings().model_dump(), "weighting": "examples"}
    assert isinstance(of_ratings, FedAvgRatings.Settings) and of_ratings.server_optimizer == "sgd"
    assert isinstance(of_ratings, FedAvgRatingsClient.Settings) and of_ratings.user_steps == 5
    for config in (graph, ratings):  # what nodes are sent says the same
        assert validate(config.plain()) == config


def test_a_knob_of_neither_kinds_classes_is_refused(by_kind: dict[str, dict[str, Any]]) -> None:
    for kind, known in (("graph", "weighting"), ("ratings", "users_per_round")):
        with pytest.raises(SubflError, match=rf"^method\.wait: method 'fedavg' has no such setting; it has: .*{known}"):
            validate(changed(by_kind[kind], "method.wait", 3))
    with pytest.raises(SubflError, match=r"^method\.user_steps: .*greater than or equal to 1"):
        validate(changed(by_kind["ratings"], "method.user_steps", 0))
    assert validate(changed(by_kind["graph"], "method.user_steps", 0)) == validate(by_kind["graph"])


@pytest.mark.parametrize(
    ("path", "value", "kind", "sentence"),
    [
        ("method.strategy.ratings", ..., "ratings", "method=fedavg has no strategy for data sets that hold ratings"),
        ("method.client.graph", ..., "graph", "method=fedavg has no client for data sets that hold a graph"),
        ("method.strategy.ratings", "strategies.no.Way", "ratings", "method.strategy: cannot import"),
        (
            "method.client.ratings",
            "subfl_flower.strategies.recommendation.fedgnn.FedGNN",
            "ratings",
            "method.client: 'subfl_flower.strategies.recommendation.fedgnn.",
        ),
        ("method.strategy", 3, "ratings", "method.strategy: "),
        (
            "method.client.ratings",
            "subfl_flower.clients.subgraphs.subgraph.SubgraphClient",
            "ratings",
            "dataset=synthetic_ratings holds rati",
        ),
        ("method.name", ..., "ratings", "method.name: a value is required"),
        ("method", ["fedavg"], "ratings", "method: "),
        ("dataset", "cora", "ratings", "dataset: "),
        ("dataset.name", "imagenet", "ratings", "dataset.name: "),
    ],
)
def test_classes_by_kind_that_do_not_fit_are_one_sentence(
    by_kind: dict[str, dict[str, Any]], path: str, value: Any, kind: str, sentence: str
) -> None:
    with pytest.raises(SubflError) as error:
        validate(changed(by_kind[kind], path, value))
    text = str(error.value)
    assert text.startswith(sentence) and "\n" not in text and len(text) < 500


def test_one_class_may_be_for_all_data_and_the_other_by_kind(by_kind: dict[str, dict[str, Any]]) -> None:
    mixed = changed(
        by_kind["ratings"], "method.strategy", "subfl_flower.strategies.recommendation.fedavg.FedAvgRatings"
    )
    assert validate(mixed).method.strategy == "subfl_flower.strategies.recommendation.fedavg.FedAvgRatings"
    assert validate(mixed).method.client == "subfl_flower.clients.recommendation.fedavg.FedAvgRatingsClient"
    assert validate(mixed).method.knobs == validate(by_kind["ratings"]).method.knobs


def test_a_run_of_another_version_is_named_with_its_file(tmp_path: Path) -> None:
    config, _ = composed_config(["method=fedpub", "dataset=sbm"])
    stored = config.plain()
    stored["method"]["client"] = "clients.fedpub.FedPubClient"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    with pytest.raises(SubflError) as error:
        stored_config(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'config.yaml'}: method.client: cannot import 'clients.fedpub.")
    assert "another version" in str(error.value)
    stored["method"]["client"] = "subfl_flower.clients.subgraphs.fedpub.FedPUBClient"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stored))
    assert stored_config(tmp_path).method.name == "fedpub"
