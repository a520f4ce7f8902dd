from __future__ import annotations

import re
from pathlib import Path

import pytest
from run_outcomes import method_names

from subfl_flower.composition import composed_config, config_directory
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.errors import SubflError
from subfl_flower.models.settings import FactorisationSettings
from subfl_flower.registry import needs_matcher

CONF = Path(__file__).parents[1] / "conf"
RATINGS = ("ml100k", "ml1m", "ml10m", "douban", "flixster", "yahoo_music", "synthetic_ratings")
CHOICES = sorted(path.relative_to(CONF).with_suffix("").as_posix() for path in CONF.glob("*/*.yaml"))
CHOICES = [choice for choice in CHOICES if not choice.endswith("/own")]  # tests/doors
NEEDED = {
    "dataset/custom": ["dataset.path=graph.pt"],
    "dataset/custom_ratings": ["dataset.path=ratings.csv", "method=fedgnn"],
    "partition/given": ["partition.file=parts.npz"],
    "partition/users": ["method=fedgnn"],
    "task/rating_prediction": ["method=fedgnn"],
    "task/ranking": ["method=perfedrec"],
    "model/recommender": ["method=fedgnn"],
    "model/lightgcn": ["method=perfedrec"],
    "model/factorisation": ["method=fcf"],
    "model/module": ["model._target_=torch_geometric.nn.GCNConv"],
    **{f"dataset/{name}": ["method=fedgnn"] for name in RATINGS},
}


def test_the_folder_is_the_one_beside_the_package() -> None:
    assert config_directory() == CONF.resolve()


@pytest.mark.parametrize("choice", CHOICES)
def test_every_file_composes_and_is_valid(choice: str) -> None:
    group, name = choice.split("/")
    overrides = [f"+{choice.replace('/', '=')}" if group == "experiment" else f"{group}={name}"]
    needed = ["method=fedgnn"] if group == "privacy" else NEEDED.get(choice, [])
    config, _ = composed_config([*needed, *overrides])
    if group == "privacy":
        assert config.privacy.mechanism == name
    elif choice == "model/factorisation":
        assert isinstance(config.model, FactorisationSettings) and config.model.gnn == "none"
    elif group != "experiment":
        assert getattr(config, group).name == name


def test_every_group_of_the_interface_is_there() -> None:
    assert {choice.split("/")[0] for choice in CHOICES} >= {
        *("method", "dataset", "partition", "model", "optimizer", "task", "runtime", "logger", "privacy")
    }


def test_a_method_for_ratings_chooses_ratings_and_their_partition_task_and_model() -> None:
    ranking = {"central", "perfedrec", "popularity"}
    assert ranking | {"fedgnn", "fcf", "fedmf", "central_gnn", "central_mf", "bias_row"} <= set(method_names("ratings"))
    for overrides, dataset in (([], "synthetic_ratings"), (["dataset=ml100k"], "ml100k")):
        config, _ = composed_config(["method=fedgnn", *overrides])
        chosen = (config.dataset.name, config.partition.name, config.task.name, config.model.name)
        assert chosen == (dataset, "users", "rating_prediction", "recommender")


@pytest.mark.parametrize("method", ["central", "fedavg", "fedgnn", "perfedrec", "popularity"])
@pytest.mark.parametrize("dataset", ["synthetic_ratings", "ml100k", "douban"])
def test_rankings_bring_their_split_and_model(method: str, dataset: str) -> None:
    config, _ = composed_config([f"method={method}", f"dataset={dataset}", "task=ranking"])
    chosen = (config.dataset.name, config.partition.name, config.task.name, config.model.name)
    assert chosen == (dataset, "users", "ranking", "lightgcn")
    assert isinstance(config.dataset, RatingDatasetSettings) and config.dataset.split == "leave_one_out"
    # What a method for rankings alone chooses by itself; the others are for ratings, or for graphs.
    if method in ("central", "perfedrec", "popularity"):
        config, _ = composed_config([f"method={method}"])
        assert (config.dataset.name, config.task.name, config.model.name) == (
            "synthetic_ratings",
            "ranking",
            "lightgcn",
        )


@pytest.mark.parametrize("method", ["fedavg", "perfedrec"])
def test_what_hides_users_is_chosen_by_the_configuration_alone(method: str) -> None:
    overrides = [f"method={method}", "dataset=synthetic_ratings", "task=ranking", "method.pseudo_items=20"]
    config, _ = composed_config([*overrides, "privacy=laplace_linf"])
    assert config.privacy.mechanism == "laplace_linf" and config.method.knobs["pseudo_items"] == 20
    assert not needs_matcher(config)
    assert needs_matcher(composed_config([*overrides, "method.max_neighbours=3"])[0])


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["dataset=ml100k"], "dataset=ml100k holds ratings of users, and method=fedpub is for a graph"),
        (
            ["method=fedgnn", "dataset=digits"],
            "dataset=digits holds a graph, and method=fedgnn is for ratings of users",
        ),
        (["method=fedgnn", "partition=metis"], "holds ratings of users, and partition=metis is for a graph"),
        (["method=fedgnn", "task=node_classification"], "and task=node_classification is for a graph"),
        (
            ["method=fedgnn", "model=gcn"],
            "holds ratings of users, and model=gcn is for a graph",
        ),
        (
            ["method=fedsg", "privacy=laplace_linf"],
            "privacy.mechanism: clients of method=fedsg do not protect what they upload",
        ),
        (
            ["method=fedgnn", "task=ranking", "model=recommender"],
            "model=recommender is for task=rating_prediction, not for task=ranking",
        ),
        (["method=fedgnn", "model=lightgcn"], "model=lightgcn is for task=ranking, not for task=rating_prediction"),
        *(
            (
                [f"method={method}", "task=ranking"],
                "model=factorisation is for task=rating_prediction, not for task=ranking",
            )
            for method in ("fedmf", "fcf", "central_mf")
        ),
        *(
            (
                [f"method={method}", "task=ranking"],
                f"model=lightgcn ranks items, and method={method} predicts ratings; choose task=rating_prediction",
            )
            for method in ("bias_row", "central_gnn")
        ),
        *(
            (
                [f"method={method}", "dataset=synthetic_ratings", "task=rating_prediction"],
                f"model must be lightgcn with method={method}, not recommender; choose task=ranking",
            )
            for method in ("central", "fedavg", "perfedrec", "popularity")
        ),
        (
            ["task=ranking"],
            "dataset=digits holds a graph, and task=ranking is for ratings of users",
        ),
        *(
            (
                [f"method={method}", "dataset=ml100k", "task=ranking"],
                f"dataset=ml100k holds ratings of users, and method={method} is for a graph; choose a method",
            )
            for method in ("fedper", "fedprox")
        ),
        (
            ["method=perfedrec", "dataset=cora"],
            "dataset=cora holds a graph, and method=perfedrec is for ratings of users",
        ),
    ],
)
def test_what_does_not_go_together_is_said(overrides: list[str], sentence: str) -> None:
    with pytest.raises(SubflError, match=re.escape(sentence)):
        composed_config(overrides)


@pytest.mark.parametrize("method", method_names("graph"))
def test_every_method_takes_other_partitions_and_runtimes_than_the_default(method: str) -> None:
    chosen = {"method": method, "partition": "overlapping", "runtime": "ray", "dataset": "cora"}
    config, _ = composed_config([f"{group}={choice}" for group, choice in chosen.items()])
    assert {group: getattr(config, group).name for group in chosen} == chosen


def test_training_is_as_long_as_the_paper_trains_unless_told_otherwise() -> None:
    for dataset, rounds, epochs in (("cora", 100, 1), ("photo", 200, 2), ("computers", 200, 3)):
        federation = composed_config([f"dataset={dataset}"])[0].federation
        assert (federation.rounds, federation.local_epochs) == (rounds, epochs)
    assert composed_config(["dataset=photo", "federation.rounds=7"])[0].federation.rounds == 7


def test_data_lies_where_the_environment_or_the_override_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBFL_DATA", "/here/it/is")
    assert composed_config([])[0].data.root == Path("/here/it/is")
    assert composed_config(["data.root='~/graphs'"])[0].data.root == Path.home() / "graphs"
    monkeypatch.delenv("SUBFL_DATA")
    assert composed_config([])[0].data.root == Path.home() / ".cache" / "subfl"


def test_the_run_directory_is_hydras() -> None:
    assert composed_config(["hydra.run.dir=/tmp/somewhere/run"])[1] == Path("/tmp/somewhere/run")
    assert composed_config([])[1].parts[0] == "outputs"


def test_composing_does_not_depend_on_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = composed_config(["seed=4"])[0]
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("seed: 99\n")
    monkeypatch.chdir(tmp_path)
    assert composed_config(["seed=4"])[0] == before


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        (
            "method=fedpubb",
            "method=fedpubb: there is no such choice; available: bias_row, central, central_gnn, central_mf, fcf, ",
        ),
        ("dataset=corra", "dataset=corra: there is no such choice; available: "),
        ("partition.clientz=3", "partition.clientz: there is no such setting"),
        ("clients=3", "clients: there is no such setting"),
        ("methods=fedavg", "methods: there is no such setting"),
        ("partition=given", "partition.file: a value is required"),
        ("method=local method.tau=1", "method.tau: there is no such setting"),
        ("seed=[1", ""),
        ("seed", ""),
        ("=3", ""),
        ("seed=${nowhere}", ""),
        ("federation.rounds=${oc.env:SUBFL_NOT_SET}", ""),
        ("+seed=3", ""),
        ("~method", "method"),
        ("+group/of=nothing", ""),
    ],
)
def test_a_wrong_override_is_one_sentence(override: str, sentence: str) -> None:
    with pytest.raises(SubflError) as error:
        composed_config(override.split())
    text = str(error.value)
    assert text.startswith(sentence) and "\n" not in text and "Search path" not in text
    assert len(text.partition("available: ")[0]) < 300


def test_choices_are_listed_and_nothing_else() -> None:
    with pytest.raises(SubflError) as error:
        composed_config(["partition=metiss"])
    listed = str(error.value).split("available: ")[1].partition(";")[0].split(", ")
    names = (
        "consecutive dirichlet given imbalanced louvain metis overlap_rate overlapping own random topology_skew users"
    )
    assert listed == [*names.split(), "whole"]
    with pytest.raises(SubflError) as error:
        composed_config(["method=fedpubb"])
    listed = str(error.value).split("available: ")[1].partition(";")[0].split(", ")
    assert listed == sorted(path.stem for path in (CONF / "method").glob("*.yaml"))


def test_a_method_of_ones_own_comes_by_a_search_path(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("defaults: [fedpub, _self_]\nname: mine\ntau: 9\nrandom_blocks: 3\n")
    config, _ = composed_config([f"hydra.searchpath=[file://{tmp_path}]", "method=mine"])
    assert (config.method.name, config.method.knobs["tau"], config.method.knobs["random_blocks"]) == ("mine", 9, 3)
