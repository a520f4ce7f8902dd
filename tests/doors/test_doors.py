"""Classes that a section may name, and the imports needed to know them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, RecordDict
from own_classes import CHOSEN, write_modules

from subfl_flower import code_folder as user_folder
from subfl_flower.api import DatasetSettings
from subfl_flower.composition import composed_config
from subfl_flower.data.datasets.sbm import StochasticBlockModelDataset
from subfl_flower.data.prepared.entry import described_settings
from subfl_flower.data.prepared.ratings import PreparedRatings
from subfl_flower.deploy.processes import node_config
from subfl_flower.doors import full_name, load_class, only_packages
from subfl_flower.errors import SubflError
from subfl_flower.flower.app_folder import stage_app
from subfl_flower.flower.submission import overrides_toml
from subfl_flower.node.domain import domain_of
from subfl_flower.node.open_nodes import forget_nodes, open_node
from subfl_flower.overrides import classes_chosen
from subfl_flower.registry import validate
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.storage.tensor_file import MODEL_FILE
from subfl_flower.subgraphs.models.exported import ExportedModel, ModelCard, read_model

MARKED = "from pathlib import Path\nPath(__file__).with_name('was-imported').touch()\n"
EMPTY = "from subfl_flower.api import DatasetSettings\nclass Empty(DatasetSettings):\n    cliques: int = 3\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that modules are imported from, and forgotten afterwards."""
    known = set(sys.modules)
    folder = write_modules(tmp_path / "modules")
    (folder / "marked.py").write_text(MARKED)
    (folder / "empty.py").write_text(EMPTY)
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    yield folder
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def plain(folder: Path) -> dict[str, Any]:
    """A configuration with a foreign class at each door."""
    return composed_config([*CHOSEN, "method=fedavg", "dataset.cliques=4"])[0].plain()


def opened(plain: dict[str, Any], code: str = "", **here: str) -> None:
    """Have a node open a run; on a SuperNode unless it has a `partition-id`."""
    named = {key.replace("_", "-"): value for key, value in here.items()}
    context = Context(run_id=1, node_id=1, node_config=named, state=RecordDict(), run_config={})
    try:
        open_node(ConfigRecord({"config": json.dumps(plain), "id": "a1", "directory": "", "code": code}), context)
    finally:
        forget_nodes()


def test_a_configuration_keeps_what_it_was_made_of(plain: dict[str, Any]) -> None:
    assert plain["dataset"]["_target_"] == "rings.RingOfCliques"
    assert (plain["dataset"]["name"], plain["dataset"]["cliques"], plain["dataset"]["size"]) == ("ringofcliques", 4, 8)
    config = validate(plain)
    assert validate(config.plain()) == config and config.plain() == plain
    assert [full_name(type(getattr(config, name))) for name in ("dataset", "partition", "task", "logger")] == [
        override.partition("=")[2] for override in CHOSEN
    ]
    assert config.for_nodes() == {**plain, "logger": {"name": "none"}}


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("dataset._target_=3", "dataset._target_: must be the dotted path of a class (found 3)"),
        ("dataset._target_=rings.Nothing", "dataset._target_: cannot import 'rings.Nothing'"),
        ("dataset._target_=signs.BySign", "is not a subclass of DatasetSettings or RatingDatasetSettings"),
        ("dataset._target_=empty.Empty", "dataset._target_: 'empty.Empty' does not define read, which its base leaves"),
        ("dataset._target_=subfl_flower.data.datasets.DatasetSettings", "does not define read"),
        ("dataset.cliques=2", "dataset.cliques: Input should be greater than or equal to 3 (found 2)"),
        ("dataset.clique=2", "dataset.clique: there is no such setting; RingOfCliques has: name, train_fr"),
        ("dataset.name=../x", "dataset.name: "),
        (
            "partition.features=1",
            "partition.features: there is no such setting; BySign has: name, clients, s",
        ),
        ("task._target_=tables.CsvLogger", "task._target_: 'tables.CsvLogger' is not a subclass of TaskSettings"),
        ("model._target_=rings.RingOfCliques", "model._target_: there is no such setting"),
    ],
)
def test_a_class_that_cannot_be_used_is_one_sentence(folder: Path, override: str, sentence: str) -> None:
    key = override.partition("=")[0]
    others = [each for each in CHOSEN if not override.startswith(each.partition("=")[0])]
    with pytest.raises(SubflError) as error:
        composed_config([*others, "method=fedavg", override])
    text = str(error.value)
    assert sentence in text and text.startswith(key) and "\n" not in text and len(text) < 400


def test_an_override_of_a_class_needs_nothing_else() -> None:
    assert classes_chosen(["dataset.a=1", "seed=2"]) == ["dataset.a=1", "seed=2"]
    assert classes_chosen(["dataset._target_=x.Y", "dataset.a=1", "task.a=1"]) == [
        *("dataset=own", "++dataset._target_=x.Y", "++dataset.a=1", "task.a=1")
    ]
    assert classes_chosen(["dataset=sbm", "+dataset._target_=x.Y"]) == ["dataset=sbm", "+dataset._target_=x.Y"]


# Which packages a machine imports -------------------------------------------------------------------------------------


NOT_ALLOWED = "is not allowed on this machine; its operator can allow it by --allow-package marked"
BY_KIND = {"graph": "marked.Strategy", "ratings": "subfl_flower.strategies.recommendation.fedgnn.FedGNN"}


@pytest.mark.parametrize(
    ("where", "value", "sentence"),
    [
        ("dataset", {"_target_": "marked.Data"}, f"dataset._target_: 'marked.Data' {NOT_ALLOWED}"),
        ("partition", {"_target_": "marked.Parts"}, f"partition._target_: 'marked.Parts' {NOT_ALLOWED}"),
        ("task", {"_target_": "marked.Task"}, f"task._target_: 'marked.Task' {NOT_ALLOWED}"),
        ("logger", {"_target_": "marked.Log"}, f"logger._target_: 'marked.Log' {NOT_ALLOWED}"),
        ("method.strategy", "marked.Strategy", f"method.strategy: 'marked.Strategy' {NOT_ALLOWED}"),
        ("method.client", "marked.Client", f"method.client: 'marked.Client' {NOT_ALLOWED}"),
        ("method.strategy", BY_KIND, f"method.strategy: 'marked.Strategy' {NOT_ALLOWED}"),
        ("dataset.protocol._target_", "marked.Protocol", "dataset.protocol._target_: there is no such setting"),
        ("runtime._target_", "marked.Runtime", "runtime._target_: there is no such setting"),
        ("method._target_", "marked.Method", "method._target_: method 'fedavg' has no such setting"),
        ("_target_", "marked.Config", "_target_: there is no such setting"),
        ("model._target_", "marked.Model", "model._target_: "),
        ("dataset", {"_target_": "subfl_flower..marked.Data"}, "dataset._target_: cannot import"),
        ("dataset", {"_target_": ".marked.Data"}, "dataset._target_: '.marked.Data' is not allowed on this machine"),
        ("dataset", {"_target_": ""}, "dataset._target_: '' is not allowed on this machine"),
    ],
)
def test_a_node_imports_nothing_that_its_operator_did_not_allow(
    folder: Path, where: str, value: object, sentence: str
) -> None:
    plain = here = composed_config(["method=fedavg", "runtime=deploy"])[0].plain()
    *parents, last = where.split(".")
    for part in parents:
        here = here[part]
    here[last] = value
    with pytest.raises(SubflError) as error:
        opened(plain, client="x")
    assert str(error.value).startswith(sentence)
    assert not (folder / "was-imported").exists() and "marked" not in sys.modules


def test_a_simulations_configuration_does_not_open_a_real_node(folder: Path, plain: dict[str, Any]) -> None:
    for name in ("rings", "signs", "degrees", "tables"):
        sys.modules.pop(name, None)
    with pytest.raises(SubflError, match=r"'rings\.RingOfCliques' is not allowed on this machine"):
        opened({**plain, "runtime": {"name": "inline"}}, client="x", code=str(folder))
    assert "rings" not in sys.modules
    before = list(sys.path)
    allowed = composed_config(["method=fedavg"])[0].plain()
    with pytest.raises(SubflError, match="runtime=inline is a simulation, and this node is none"):
        opened(allowed, client="x", code="/somewhere")
    assert sys.path == before


def test_a_node_takes_what_its_operator_allowed(plain: dict[str, Any]) -> None:
    sent = {**composed_config(["method=fedavg", "runtime=deploy"])[0].plain(), "dataset": plain["dataset"]}
    with pytest.raises(SubflError, match="--allow-package rings"):
        opened(sent, client="/nowhere", allow_packages="signs,degrees")
    with pytest.raises(SubflError, match="/nowhere"):  # its client's folder is what is missing now
        opened(sent, client="/nowhere", allow_packages="signs,rings")


def test_a_file_where_the_process_runs_is_not_installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with only_packages(["rings"]), pytest.raises(SubflError, match=r"'rings' is not installed on this machine"):
        load_class("rings.RingOfCliques", DatasetSettings, "dataset._target_")
    elsewhere = folder.parent / "installed"
    elsewhere.mkdir()
    (elsewhere / "rings.py").write_text((folder / "rings.py").read_text())
    sys.path.append(str(elsewhere))
    with only_packages(["rings"]), pytest.raises(SubflError, match=f"and {folder / 'rings.py'} stands before it"):
        load_class("rings.RingOfCliques", DatasetSettings, "dataset._target_")
    sys.path.remove(str(folder))
    sys.path_importer_cache.clear()
    with only_packages(["rings"]):
        found = load_class("rings.RingOfCliques", DatasetSettings, "dataset._target_")
    assert sys.modules[found.__module__].__file__ == str(elsewhere / "rings.py")
    del sys.modules["rings"]


def test_an_allowed_package_does_not_open_others(folder: Path) -> None:
    (folder / "borrowing.py").write_text("from rings import RingOfCliques\nimport rings\n")
    with only_packages(["borrowing"]):
        with pytest.raises(SubflError, match=r"'borrowing\.RingOfCliques' is not allowed on this machine.* rings$"):
            load_class("borrowing.RingOfCliques", DatasetSettings, "dataset._target_")
        with pytest.raises(SubflError, match=r"cannot import 'borrowing\.rings\.RingOfCliques'"):
            load_class("borrowing.rings.RingOfCliques", DatasetSettings, "dataset._target_")
        with pytest.raises(SubflError, match=r"cannot import|not a subclass"):
            load_class("subfl_flower.strategies.subgraphs.fedpub.np.ndarray", CohortStrategy, "method.strategy")
        assert (
            load_class("subfl_flower.strategies.subgraphs.fedpub.FedPUB", CohortStrategy, "method.strategy").__name__
            == "FedPUB"
        )


def test_networks_of_pytorch_geometric_need_no_permission() -> None:
    import torch

    with only_packages([]):
        found = load_class("torch_geometric.nn.models.GCN", torch.nn.Module, "model._target_")
        assert issubclass(found, torch.nn.Module)
        with pytest.raises(SubflError, match=r"'torch\.nn\.Linear' is not allowed on this machine"):
            load_class("torch.nn.Linear", torch.nn.Module, "model._target_")
        with pytest.raises(SubflError, match=r"'torch_geometric\.data\.Data' is not allowed on this machine"):
            load_class("torch_geometric.data.Data", DatasetSettings, "dataset._target_")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no.dots", "without dots"),
        ("a b", "without dots"),
        ("nothing_of_that_name", "is not installed on this machine"),
    ],
)
def test_an_operator_allows_installed_packages(name: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SubflError, match=rf"^--allow-package.*{sentence}"):
        node_config([tmp_path], None, allow_packages=[name])
    allowed = node_config([tmp_path], None, allow_packages=["torch_geometric", "scipy"])
    assert allowed.endswith(' allow-packages="torch_geometric,scipy"')


# What prepared data depend on -----------------------------------------------------------------------------------------


def test_prepared_data_depend_on_the_code_of_a_class(folder: Path) -> None:
    def described() -> dict[str, Any]:
        for name in ("rings", "signs"):
            sys.modules.pop(name, None)
        config, _ = composed_config([*CHOSEN, "method=fedavg"])
        return described_settings(config.dataset, config.partition)

    before = described()
    assert before["dataset"]["_target_"] == "rings.RingOfCliques" and "protocol" not in before["dataset"]
    assert set(before["code"]) == {"rings.RingOfCliques", "signs.BySign"} and described() == before
    source = (folder / "rings.py").read_text()
    (folder / "rings.py").write_text(source + "# another version\n")
    changed = described()
    assert changed["code"]["rings.RingOfCliques"] != before["code"]["rings.RingOfCliques"]
    assert changed["code"]["signs.BySign"] == before["code"]["signs.BySign"]
    stated = source.replace("    cliques: int", '    version = "7"\n    cliques: int')
    (folder / "rings.py").write_text(stated)
    assert described()["code"]["rings.RingOfCliques"] == "7"
    built_in = composed_config([])[0]
    assert "code" not in described_settings(built_in.dataset, built_in.partition)


def test_a_subclass_of_a_built_in_class_is_its_own_class() -> None:
    class Larger(StochasticBlockModelDataset):
        extra: int = 1

    said = Larger().model_dump()
    assert said["_target_"] == f"{__name__}.{Larger.__qualname__}" and list(Larger().code_version()) == [
        said["_target_"]
    ]
    assert "_target_" not in StochasticBlockModelDataset().model_dump()


def test_a_task_on_ratings_extends_a_built_in_one(folder: Path) -> None:
    source = "from subfl_flower.api import RatingPrediction\nclass Errors(RatingPrediction): ...\n"
    (folder / "errors.py").write_text(source)
    asked = ["method=fedgnn", "dataset=synthetic_ratings", "model=recommender", "task._target_=errors.Errors"]
    plain = composed_config(asked)[0].plain()
    assert plain["task"] == {"_target_": "errors.Errors", "name": "rating_prediction"}
    assert validate(plain).task.needs_ratings


RATED = """
import numpy as np
from subfl_flower.api import RatingDatasetSettings, RawRatings
class Rated(RatingDatasetSettings):
    def read(self, root):
        users, items = np.divmod(np.arange(60), 10)
        return RawRatings("here", users, items, 1.0 + (users + items) % 5)
"""


def test_ratings_come_from_a_class_too(folder: Path, tmp_path: Path) -> None:
    (folder / "rated.py").write_text(RATED)
    given = ["method=fedgnn", "partition=users", "task=rating_prediction", f"data.cache={tmp_path / 'cache'}"]
    config, _ = composed_config([*given, "dataset._target_=rated.Rated"])
    prepared = domain_of(config).prepare(config)
    assert isinstance(prepared, PreparedRatings)
    assert (prepared.num_clients, prepared.num_items, prepared.scale) == (6, 10, (1.0, 5.0))
    assert prepared.metadata["dataset"]["_target_"] == "rated.Rated" and set(prepared.metadata["code"]) == {
        "rated.Rated"
    }


def test_a_model_file_names_the_class_of_its_task(folder: Path, tmp_path: Path) -> None:
    config, _ = composed_config([*CHOSEN, "method=fedavg", "model.hidden=2", "model.layers=1"])
    about = {"num_features": 4, "num_classes": 2, "dataset": "rings", "client": 0, "method": "fedavg", "run": "a"}
    card = ModelCard(model=config.model, task=config.task, **about)
    tensors = {name: np.zeros(shape, np.float32) for name, shape in card.gnn.shapes.items()}
    ExportedModel(tensors, card).write_with_card(tmp_path / "model" / MODEL_FILE)
    assert read_model(tmp_path / "model")[1] == card
    sys.modules.pop("degrees")
    (folder / "degrees.py").unlink()
    with pytest.raises(SubflError, match=r"model\.safetensors: card\.task\._target_: cannot import 'degrees\.Deg"):
        read_model(tmp_path / "model")


# The user's folder ----------------------------------------------------------------------------------------------------


@pytest.fixture
def restored(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """The search path, put back in the end as the adopted folder is."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(user_folder, "_adopted", None)
    return lambda: sys.path


def test_the_users_folder_is_looked_at_last(
    restored: Callable[[], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sys.path.insert(0, "")
    sys.path.insert(1, str(tmp_path))
    user_folder.adopt(tmp_path)
    assert restored()[-1] == str(tmp_path) and restored().count(str(tmp_path)) == 1 and "" not in restored()
    own = Path(user_folder.__file__).parents[1]
    before = list(restored())
    user_folder.adopt(own)
    assert restored() == before and user_folder.adopted() == own


def test_choices_of_the_users_folder_come_after_the_built_in_ones(
    restored: Callable[[], list[str]], tmp_path: Path
) -> None:
    (tmp_path / "conf" / "partition").mkdir(parents=True)
    (tmp_path / "conf" / "config.yaml").write_text("seed: 99\n")
    (tmp_path / "conf" / "partition" / "halves.yaml").write_text("defaults: [random, _self_]\nclients: 2\n")
    user_folder.adopt(tmp_path)
    config, _ = composed_config(["partition=halves"])
    assert (config.seed, config.partition.name, config.partition.clients) == (0, "random", 2)
    (tmp_path / "conf" / "partition" / "metis.yaml").write_text("name: metis\nclients: 3\n")
    assert composed_config(["partition=halves"])[0].partition.clients == 2  # the other file is not chosen
    with pytest.raises(SubflError, match=r"/conf/partition/metis\.yaml: partition=metis is built in; rename the file"):
        composed_config([])


OWN_CHOICES = {
    "partition/halves": "defaults: [random, _self_]\nclients: 2\n",
    "model/wide": "name: gcn\nhidden: 7\ndropout: 1e-3\nlayers: ${model.hidden}\n",
    "method/mine": (
        "name: mine\nstrategy: subfl_flower.strategies.subgraphs.fedavg.FedAvg\n"
        "client: subfl_flower.clients.subgraphs.fedper.FedPerClient\n"
        "personal_layers: ['a: b', \"it's\"]\n"
    ),
    "dataset/rows": "_target_: empty.Empty\ncliques: 5\nprotocol: {rounds: 4, local_epochs: 2}\n",
    "experiment/all_mine": "# @package _global_\nseed: 3\nfederation: {fraction: 0.5}\n",
}


def test_choices_of_the_users_folder_travel_with_the_app(
    folder: Path, restored: Callable[[], list[str]], tmp_path: Path
) -> None:
    (folder / "empty.py").write_text(EMPTY + "    def read(self, root): ...\n")
    for name, content in OWN_CHOICES.items():
        path = tmp_path / "conf" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    user_folder.adopt(tmp_path)
    chosen = [name.replace("/", "=") for name in OWN_CHOICES if not name.startswith("experiment")]
    overrides = [*chosen, "+experiment=all_mine", "method.personal_layers=[conv2]", "dataset.cliques=6"]
    config, _ = composed_config(overrides)
    stage_app(None, tmp_path / "staged", own=tmp_path)
    user_folder.adopt(tmp_path / "staged")  # as the server does
    assert composed_config(overrides)[0].plain() == config.plain()
    assert config.partition.clients == 2 and config.model.layers == 7 and config.federation.rounds == 4
    assert (config.seed, config.federation.fraction) == (3, 0.5)


def test_flwr_run_is_told_of_the_users_folder() -> None:
    assert overrides_toml(["seed=1"], Path('/a "b"')) == 'overrides = "seed=1"\ncode = "/a \\"b\\""\n'
    assert overrides_toml(["seed=1"]) == 'overrides = "seed=1"\n'
