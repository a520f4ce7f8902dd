"""Rules on the source text: where kinds of data, models, tasks, runtimes and methods are asked for; who imports whom.

They read the syntax trees of the packages, so that a new file or class counts without a change here.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import ModuleType, UnionType
from typing import Any

import pytest
import yaml
from flwr.client import NumPyClient
from flwr.serverapp.strategy import Strategy

from subfl_flower.config import Method, Runtime
from subfl_flower.data.datasets import DatasetSettings
from subfl_flower.data.folders.described_folder import DescribedFolder
from subfl_flower.data.partitions import PartitionSettings
from subfl_flower.data.prepared.entry import PreparedEntry
from subfl_flower.data.ratings.settings import RatingDatasetSettings
from subfl_flower.doors import OWN_PACKAGE
from subfl_flower.models.settings import GraphModelSettings, UserModelSettings
from subfl_flower.node.client import CohortClient
from subfl_flower.node.domain import Domain
from subfl_flower.node.matcher import MatcherNode
from subfl_flower.node.node import Node
from subfl_flower.recommendation.cohort import UserCohort
from subfl_flower.recommendation.models.trained_users import TrainedUsers, UsersCard
from subfl_flower.recommendation.models.user_graphs import UserGraphs
from subfl_flower.recommendation.models.user_models import UserModel
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.subgraphs.cohort import Cohort
from subfl_flower.subgraphs.models.graph_network import GraphNetwork
from subfl_flower.tasks.choices import TaskSettings

ROOT = Path(__file__).parents[1]

BASES = (
    *(Runtime, Method, CohortClient, CohortStrategy, TaskSettings, Domain),
    *(GraphModelSettings, GraphNetwork, UserModelSettings, UserModel, UserGraphs, TrainedUsers, UsersCard),
    *(DatasetSettings, RatingDatasetSettings, PartitionSettings, PreparedEntry, DescribedFolder),
    *(Cohort, UserCohort, Node, MatcherNode),
)
"""A class of one of these stands for a kind of data, model, task, runtime, method or node."""

MAY_ASK = {
    "subfl_flower/subgraphs/domain.py": "the place about graphs: it narrows a configuration to settings for graphs",
    "subfl_flower/recommendation/domain.py": "the place about ratings: it narrows a configuration to settings for them",
    "subfl_flower/simulation.py": "the place about runtimes: it starts the one that the configuration names",
    "subfl_flower/tasks/settings.py": "the place about tasks: what models for nodes state goes for any task on nodes",
    "subfl_flower/evaluation/rows.py": "its column tells traffic relative to that of FedAvg",
    "subfl_flower/recommendation/models/lightgcn.py": "the place about rankings: it narrows graphs that it made itself",
}
"""Files that may ask for such a class, and why."""

DEEPER = "a level deeper"
"""The words by which a docstring says why its class stands deeper than others."""


def _modules() -> Iterator[ModuleType]:
    package = importlib.import_module(OWN_PACKAGE)
    yield package
    for found in pkgutil.walk_packages(package.__path__, f"{OWN_PACKAGE}."):
        yield importlib.import_module(found.name)


@cache
def modules() -> dict[str, ModuleType]:
    """All modules of the packages, by path below the root."""
    found = {}
    for module in _modules():
        assert module.__file__ is not None
        path = Path(module.__file__).resolve()  # clients/ and strategies/ are links
        found[path.relative_to(ROOT).as_posix()] = module
    return found


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax trees of all modules, by path below the root."""
    return {path: ast.parse((ROOT / path).read_text()) for path in modules()}


def classes(*packages: str) -> set[type]:
    """All classes that modules of some packages define."""
    found = (value for module in modules().values() for value in vars(module).values() if inspect.isclass(value))
    return {each for each in found if _is_within(each.__module__, packages)}


def at(path: str, node: ast.AST) -> str:
    """A place in the text, for a failure."""
    return f"{path}:{node.lineno}: {ast.unparse(node)[:100]}"  # type: ignore[attr-defined]


# Kinds ----------------------------------------------------------------------------------------------------------------


@cache
def dimension_classes() -> frozenset[type]:
    """All classes that stand for a kind of something."""
    return frozenset(each for each in classes(OWN_PACKAGE) if issubclass(each, BASES))


@cache
def dimension_names() -> frozenset[str]:
    """Names of kinds of data, data sets, models, tasks and methods.

    Those of partitions and runtimes mean more, and ``gat`` also is how a recommender's user hears its items.
    """
    named = [each for each in dimension_classes() if not issubclass(each, PartitionSettings | Runtime)]
    fields = [getattr(each, "model_fields", {}).get("name") for each in named]
    chosen = {name for field in fields if field for name in getattr(field.annotation, "__args__", ())}
    methods = {path.stem for path in (ROOT / "conf" / "method").glob("*.yaml")}
    return frozenset({"graph", "ratings"} | chosen | methods) - {"gat"}


def _value(node: ast.expr, namespace: dict[str, Any]) -> Any:
    """Value of an expression of names in a module; a name alone where it is not one of the module's."""
    if isinstance(node, ast.Name):
        return namespace.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, namespace), node.attr, node.attr)
    if isinstance(node, ast.Tuple):
        return tuple(_value(each, namespace) for each in node.elts)
    if isinstance(node, ast.BinOp):
        return _value(node.left, namespace), _value(node.right, namespace)
    return None


def _names_a_dimension(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(map(_names_a_dimension, value))
    if isinstance(value, UnionType):
        return any(map(_names_a_dimension, value.__args__))
    if isinstance(value, str):
        return value in {each.__name__ for each in dimension_classes()}
    return inspect.isclass(value) and value in dimension_classes()


def _is_call_of(node: ast.AST, *names: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names


def asks_for_a_class(node: ast.AST, namespace: dict[str, Any]) -> bool:
    """True for ``isinstance``, ``issubclass``, ``type(...) is`` and ``case`` with a class that stands for a kind."""
    if _is_call_of(node, "isinstance", "issubclass"):
        assert isinstance(node, ast.Call)
        return _names_a_dimension(_value(node.args[1], namespace))
    if isinstance(node, ast.Compare) and any(_is_call_of(each, "type") for each in (node.left, *node.comparators)):
        return any(_names_a_dimension(_value(each, namespace)) for each in (node.left, *node.comparators))
    return isinstance(node, ast.MatchClass) and _names_a_dimension(_value(node.cls, namespace))


def _literals(node: ast.expr) -> list[object]:
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return [value for each in node.elts for value in _literals(each)]
    return [node.value] if isinstance(node, ast.Constant) and isinstance(node.value, str) else []


def _is_kind_or_name(node: ast.expr) -> bool:
    """True for ``x.kind`` and ``x.name``, but for NumPy's ``dtype.kind`` and a call's result such as a codec's."""
    if isinstance(node, ast.Tuple):
        return any(map(_is_kind_or_name, node.elts))
    if not isinstance(node, ast.Attribute) or isinstance(node.value, ast.Call):
        return False
    return node.attr in ("kind", "name") and not (isinstance(node.value, ast.Attribute) and node.value.attr == "dtype")


def asks_for_a_name(node: ast.AST) -> bool:
    """True for a comparison of ``.kind`` or ``.name`` with a literal, and of anything with a kind's or class' name."""
    if isinstance(node, ast.Match):
        return _is_kind_or_name(node.subject)
    if not isinstance(node, ast.Compare):
        return False
    sides = [node.left, *node.comparators]
    literals = [value for side in sides for value in _literals(side)]
    return bool(literals) and (any(map(_is_kind_or_name, sides)) or not dimension_names().isdisjoint(literals))


def _questions() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path, tree in trees().items():
        namespace = vars(modules()[path])
        for node in ast.walk(tree):
            if asks_for_a_class(node, namespace) or asks_for_a_name(node):
                found.setdefault(path, []).append(at(path, node))
    return found


def test_only_one_place_asks_which_kind_of_data_model_task_runtime_or_method_there_is() -> None:
    found = _questions()
    assert [line for path, lines in found.items() if path not in MAY_ASK for line in lines] == []
    assert set(found) == set(MAY_ASK), "a file that no longer asks needs no exception"


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("isinstance(config.runtime, Inline)", True),
        ("isinstance(config.runtime, config_module.Inline)", True),
        ("issubclass(kind, int | Inline)", True),
        ("type(runtime) is Inline", True),
        ("method.name == 'anything'", True),
        ("name in ('fedavg', 'local')", True),
        ("(dataset.kind, group) != ('x', 'y')", True),
        ("isinstance(value, int | str)", False),
        ("array.dtype.kind in 'iu'", False),
        ("codecs.lookup(encoding).name == 'utf-8'", False),
        ("split == 'given'", False),
    ],
)
def test_questions_are_told_from_other_comparisons(text: str, asks: bool) -> None:
    config_module = importlib.import_module("subfl_flower.config")
    namespace = {"Inline": vars(config_module)["Inline"], "config_module": config_module, "int": int, "str": str}
    nodes = list(ast.walk(ast.parse(text)))
    assert any(asks_for_a_class(node, namespace) or asks_for_a_name(node) for node in nodes) is asks


# Classes --------------------------------------------------------------------------------------------------------------


def depth(each: type) -> int:
    """Number of classes of this project from a class up to one that is not, itself included."""
    bases = [base for base in each.__bases__ if base.__module__.partition(".")[0] == OWN_PACKAGE]
    return 1 + max(map(depth, bases), default=0)


def test_no_class_of_a_method_stands_deeper_than_three_without_a_reason() -> None:
    of_methods = classes("subfl_flower.clients", "subfl_flower.strategies")
    assert {depth(each) for each in of_methods if issubclass(each, NumPyClient | Strategy)} == {2, 3, 4}
    deep = {each for each in of_methods if depth(each) > 3}
    silent = [each.__name__ for each in deep if DEEPER not in " ".join((each.__doc__ or "").split())]
    assert silent == [] and all(depth(each) == 4 for each in deep)


# Attributes -----------------------------------------------------------------------------------------------------------


def sets_a_part_of_others(node: ast.AST) -> bool:
    """True where an attribute of a client or a strategy is set from outside."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    elif _is_call_of(node, "setattr", "delattr"):
        assert isinstance(node, ast.Call)
        return _is_client_or_strategy(node.args[0])
    parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
    return any(isinstance(part, ast.Attribute) and _is_client_or_strategy(part.value) for part in parts)


def _is_client_or_strategy(node: ast.expr) -> bool:
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return name.strip("_") in ("client", "strategy")


def test_nothing_sets_attributes_of_a_client_or_a_strategy_from_outside() -> None:
    found = [at(path, node) for path, tree in trees().items() for node in ast.walk(tree) if sets_a_part_of_others(node)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "sets"),
    [
        ("strategy.roster = roster", True),
        ("self._client.x += 1", True),
        ("client.x, y = 1, 2", True),
        ("setattr(strategy, name, 1)", True),
        ("self.client = client", False),
        ("client = strategy.x", False),
    ],
)
def test_setting_from_outside_is_told_from_other_assignments(text: str, sets: bool) -> None:
    assert any(map(sets_a_part_of_others, ast.walk(ast.parse(text)))) is sets


# Imports --------------------------------------------------------------------------------------------------------------

_ENGINES = ("flwr", "ray", "hydra", "omegaconf")

_TRUNK = tuple(f"subfl_flower.{name}" for name in ("wire", "node", "server", "flower", "runs"))
_METHODS = ("subfl_flower.clients", "subfl_flower.strategies")
_WINGS = ("subfl_flower.subgraphs", "subfl_flower.recommendation")

FEDERATION = (*_ENGINES, *_TRUNK, "subfl_flower.config", *_METHODS)
"""Modules that those without knowledge of a federation do not import, directly or by others."""

_KNOW_NO_FEDERATION = (
    *("storage", "data", "models", "tasks", "privacy", "aggregation"),
    *("subgraphs.models", "subgraphs.tasks", "subgraphs.similarity", "subgraphs.mending"),
    *("recommendation.models", "recommendation.tasks", "recommendation.user_clusters"),
)

FORBIDDEN = {
    "subfl_flower": ("clients", "strategies"),  # a wheel has no packages of these names
    "subfl_flower.clients": (
        *("subfl_flower.strategies", "subfl_flower.server", "subfl_flower.config", "subfl_flower.registry"),
        *("hydra", "omegaconf"),
    ),
    "subfl_flower.strategies": ("hydra", "omegaconf", "subfl_flower.config", "subfl_flower.registry"),
    "subfl_flower.config": (*_ENGINES, *_TRUNK, *_METHODS),
    "subfl_flower.registry": _METHODS,
    "subfl_flower.wire": (*_TRUNK[1:], *_METHODS, "subfl_flower.config"),
    "subfl_flower.node": (*_TRUNK[2:4], *_METHODS),
    "subfl_flower.server": (*_METHODS, *_WINGS),
    "subfl_flower.flower": (*_TRUNK[:3], *_TRUNK[4:], *_METHODS, *_WINGS, "subfl_flower.config"),
    "subfl_flower.trust": (*_TRUNK, *_METHODS, *_WINGS, "subfl_flower.config", "hydra", "omegaconf"),
    "subfl_flower.runs": (*_TRUNK[:4], *_METHODS, *_WINGS),
    "subfl_flower.subgraphs": (*_TRUNK[2:], *_METHODS, "subfl_flower.recommendation"),
    "subfl_flower.recommendation": (*_TRUNK[2:], *_METHODS),
    **dict.fromkeys((f"subfl_flower.{room}" for room in _KNOW_NO_FEDERATION), FEDERATION),
}
"""Imports that are forbidden to a module, or to the modules of a package."""

BY_OTHERS = {name: FORBIDDEN[name] for name in FORBIDDEN if FORBIDDEN[name] is FEDERATION or name.endswith("config")}
"""Imports that are also forbidden through other modules."""


def _is_within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


@cache
def imports(with_types: bool = True) -> dict[str, set[str]]:
    """The modules that each module imports, wherever in its text; names of a package that are modules count as such.

    Args:
        with_types: count what is imported for annotations alone, too.
    """
    own = {module.__name__ for module in modules().values()}
    found: dict[str, set[str]] = {}
    for path, tree in trees().items():
        names = found.setdefault(modules()[path].__name__, set())
        for_types = [part for node in ast.walk(tree) if _is_for_types(node) for part in ast.walk(node)]
        for node in ast.walk(tree):
            if not with_types and node in for_types:
                continue
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.module and not node.level, f"{at(path, node)}: imports are absolute"
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & own
                names.update(inner or {node.module})
    return found


def _reached(module: str) -> set[str]:
    """All modules that one imports, directly or by others."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        for name in imports(with_types=False).get(waiting.pop(), set()) - found:
            found.add(name)
            waiting.append(name)
    return found


def test_imports_point_one_way() -> None:
    wrong = [
        f"{module} imports {name}"
        for package, others in FORBIDDEN.items()
        for module, names in imports().items()
        if _is_within(module, (package,))
        for name in sorted(names)
        if _is_within(name, others)
    ]
    assert wrong == []


def test_what_knows_no_federation_imports_none_by_others_either() -> None:
    wrong = [
        f"{module} imports {name}"
        for package, others in BY_OTHERS.items()
        for module in imports()
        if _is_within(module, (package,))
        for name in sorted(_reached(module))
        if _is_within(name, others)
    ]
    assert wrong == []


def test_nothing_but_what_own_classes_are_made_from_names_a_method() -> None:
    named = {
        module
        for module, names in imports().items()
        if not _is_within(module, _METHODS) and any(_is_within(name, _METHODS) for name in names)
    }
    assert named == {"subfl_flower.api"}


def test_no_module_imports_itself_by_others() -> None:
    TopologicalSorter({module: names & set(imports()) for module, names in imports(with_types=False).items()}).prepare()


PUBLIC_FLOWER = ("flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.client", "flwr.simulation")
"""Modules of Flower with a documented interface."""


def is_private_to_flower(module: str, name: str) -> bool:
    """True for a name of Flower that a new version may change without notice."""
    documented = module in PUBLIC_FLOWER or module == "flwr.serverapp.strategy"
    return _is_within(module, ("flwr",)) and not (documented and not name.startswith("_"))


def test_an_update_of_flower_concerns_one_folder() -> None:
    found = [
        at(path, node)
        for path, tree in trees().items()
        if not path.startswith("subfl_flower/flower/")
        for node in ast.walk(tree)
        for module, name in _imported(node)
        if is_private_to_flower(module, name)
    ]
    assert found == []


def _imported(node: ast.AST) -> list[tuple[str, str]]:
    if isinstance(node, ast.Import):
        return [(alias.name, "") for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [(node.module or "", alias.name) for alias in node.names]
    return []


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("from flwr.app import Message", False),
        ("import flwr.simulation", False),
        ("from flwr.serverapp.strategy import Strategy", False),
        ("from flwr.supercore import log", True),
        ("import flwr.superlink.grid.http_grid", True),
        ("from flwr.app import _hidden", True),
        ("from flwr import common", True),
        ("import flwr_datasets", False),
    ],
)
def test_private_names_of_flower_are_told_from_public_ones(text: str, private: bool) -> None:
    (node,) = ast.parse(text).body
    assert [is_private_to_flower(*each) for each in _imported(node)] == [private]


# Folders --------------------------------------------------------------------------------------------------------------


def test_a_folder_has_at_most_fifteen_modules_but_for_those_of_methods() -> None:
    counts = Counter(Path(path).parent.as_posix() for path in modules() if Path(path).name != "__init__.py")
    many = {folder: number for folder, number in counts.items() if number > 15 and folder.startswith("subfl_flower")}
    assert many == {}


# Methods --------------------------------------------------------------------------------------------------------------


def test_the_files_of_a_method_have_its_name_or_that_of_the_method_whose_side_it_shares() -> None:
    choices = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf" / "method").glob("*.yaml")}
    shared = {*choices, "subgraph"}  # FedAvg's clients, which many methods share
    wrong = []
    for name, choice in choices.items():
        for side in ("strategy", "client"):
            paths = choice.get(side) or []
            for path in paths.values() if isinstance(paths, dict) else [paths] if paths else []:
                stem = path.split(".")[-2]
                if stem not in shared:
                    wrong.append(f"{name}: {path}")
    assert wrong == []
