from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from path_names import AWKWARD_NAMES

from subfl_flower.composition import composed_config
from subfl_flower.data.federation_schema import FederationSchema
from subfl_flower.errors import SubflError
from subfl_flower.overrides import literal_paths, path_keys, sweeps, unreadable


def values_of(override: str, multirun: bool = False) -> list[object]:
    """Overrides as Hydra reads them, of a sweep one after the other."""
    [written] = literal_paths([override], multirun)
    parsed = OverridesParser.create().parse_override(written)
    if not parsed.is_sweep_override():
        return [parsed.value()]
    single = [f"dataset.path={value}" for value in parsed.sweep_string_iterator()]
    return [OverridesParser.create().parse_override(override).value() for override in single]


def test_the_keys_of_paths_are_those_of_the_schema() -> None:
    assert path_keys() == {
        *("data.root", "data.cache", "dataset.path", "dataset.nodes", "dataset.edges", "dataset.users"),
        *("dataset.items", "partition.file", "hydra.run.dir", "hydra.sweep.dir"),
    }


@pytest.mark.parametrize("multirun", [False, True])
@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize("key", sorted(path_keys()))
def test_the_value_of_every_such_key_is_literal(key: str, plus: str, multirun: bool) -> None:
    assert literal_paths([f"{plus}{key}=/x/a=b"], multirun) == [f"{plus}{key}='/x/a=b'"]


@given(value=st.text(min_size=1).filter(lambda text: "${" not in text and text.lower() != "null"))
def test_any_text_comes_through_hydras_grammar(value: str) -> None:
    written = literal_paths([f"dataset.path={value}"])
    quotes = value[0] == value[-1] and value[0] in "'\""
    if not quotes:
        assert values_of(f"dataset.path={value}") == [value]
    assert literal_paths(written) == written


@given(st.lists(st.text(st.characters(exclude_characters=",'\"$"), min_size=1).map(str.strip), min_size=1))
def test_commas_separate_the_paths_of_a_sweep(values: list[str]) -> None:
    values = [value if value and value.lower() != "null" else "x" for value in values]
    if re.fullmatch(r"(choice|glob|shuffle|sort|tag)\(.*\)", ",".join(values)):
        return
    assert values_of(f"dataset.path={','.join(values)}", multirun=True) == values
    assert values_of(f"dataset.path={','.join(values)}") == [",".join(values)]


def test_quotes_null_and_interpolations_keep_their_meaning() -> None:
    assert values_of("dataset.path='/a,b'") == values_of('dataset.path="/a,b"') == ["/a,b"]
    assert values_of("dataset.path=null") == values_of("dataset.path=NULL") == [None]
    assert literal_paths(["dataset.path=", "seed=1,2", "~dataset.path", "--config-dir", "a=b"]) == [
        *("dataset.path=", "seed=1,2", "~dataset.path", "--config-dir", "a=b"),
    ]
    swept = values_of("dataset.path=a=b,it's, that's ,'c,\\'d',null,${x:y,z}/{e,\"f", multirun=True)
    assert swept == ["a=b", "it's", "that's", "c,'d", None, "${x:y,z}/{e", '"f']
    assert literal_paths(["hydra.sweep.dir=a,b", "dataset.path=choice(a,b)"], multirun=True) == [
        *("hydra.sweep.dir='a,b'", "dataset.path=choice(a,b)"),
    ]
    assert literal_paths(["dataset.path='\"${x}"]) == ["dataset.path='\"${x}"]
    assert literal_paths(["dataset.path=a,,b"], multirun=True) == ["dataset.path=a,,b"]


def test_an_interpolation_is_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUBFL_TEST_PLACE", "/it's (here)")
    config, run = composed_config(
        ["data.root=${oc.env:SUBFL_TEST_PLACE}/a=b", "hydra.run.dir=/x=y/${method.name}, ${oc.env:NOT_SET,'#1'}"]
    )
    assert config.data.root == Path("/it's (here)/a=b") and run == Path("/x=y/fedpub, #1")
    assert composed_config(["data.root=~/a=b"])[0].data.root == Path.home() / "a=b"


@pytest.mark.parametrize("name", [name for name in AWKWARD_NAMES if not name.startswith("~")])
def test_a_folder_of_any_name_is_found_in_the_configuration(name: str) -> None:
    overrides = ["dataset=custom", f"dataset.nodes={name}", f"dataset.edges=/x/{name}/y.csv", f"data.root=/{name}"]
    given_partition = ["partition=given", f"partition.file={name}"]
    config, run = composed_config([*overrides, *given_partition, f"hydra.run.dir={name}/run"])
    plain = config.plain()
    assert (plain["dataset"]["nodes"], plain["dataset"]["edges"]) == (str(Path.cwd() / name), f"/x/{name}/y.csv")
    assert (
        plain["partition"]["file"] == str(Path.cwd() / name)
        and config.data.root == Path(f"/{name}")
        and run == Path(name) / "run"
    )


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m"], True), (["seed=1", "--multirun"], True), (["--multi"], True), (["hydra.mode=MULTIRUN"], True),
        ([], False), (["--config-dir", "multirun"], False), (["--"], False), (["dataset.path=-m"], False),
    ],
)  # fmt: skip
def test_what_asks_for_a_multirun(arguments: list[str], expected: bool) -> None:
    assert sweeps(arguments) == expected


@pytest.mark.parametrize("value", ["a=b", "a#b", "für", "a(b", "{b", "it's", '"b', "a&b", "${x"])
def test_other_values_that_hydra_cannot_read_are_to_be_quoted(value: str) -> None:
    """The override that the sentence proposes, read as a shell and then Hydra would."""
    override = f"logger.tracking_uri={value}"
    with pytest.raises(SubflError) as error:
        composed_config(["logger=mlflow", override])
    said = str(error.value)
    assert said == unreadable(override) and said.startswith(f"logger.tracking_uri: the value {value} cannot be read; ")
    assert "EOF" not in said and "\n" not in said
    [advice] = shlex.split(said.partition(", as in ")[2])
    assert advice.startswith('logger.tracking_uri="')
    assert OverridesParser.create().parse_override(advice).value() == value


@pytest.mark.parametrize("override", ["seed", "a b=3", "data set.path=a=b"])
def test_what_is_no_override_is_said(override: str) -> None:
    with pytest.raises(SubflError, match=rf"^{override}: an override is KEY=VALUE with the dotted name of a setting"):
        composed_config([override])


def test_a_list_that_hydra_cannot_read_is_to_be_quoted_inside() -> None:
    assert unreadable("dataset.classes=[a=b,c]").endswith("""in quotes, as in 'dataset.classes=["..."]'""")


@pytest.mark.parametrize("override", ["data.root=~nobody-has-this-name/a", "dataset.path=~nobody-has-this-name"])
def test_a_home_that_there_is_not_is_said(override: str) -> None:
    key, _, value = override.partition("=")
    with pytest.raises(SubflError, match=rf"^{key}: {value} begins with the home folder of an unknown user; give"):
        composed_config(["dataset=custom", override])


def test_a_schemas_file_gives_way_to_what_it_says_and_later_overrides_count_more(tmp_path: Path) -> None:
    path = tmp_path / "a, b=(c).json"
    FederationSchema(dataset="digits", features=64, classes=10, names="", clients=(3, "5-8")).write(path)
    config, _ = composed_config(["runtime=deploy", "schema.classes=7", f"schema={path}", "schema.clients=[0-1]"])
    found = config.data_schema
    assert (found.features, found.classes, found.names, found.clients) == (64, 10, "", ("0-1",))
    with pytest.raises(SubflError, match=r"^schema.dataset: 'digits', and the run is on dataset=cora$"):
        composed_config(["runtime=deploy", "dataset=cora", f"schema={path}"])
    with pytest.raises(
        SubflError, match=r"^schema.features: dataset=synthetic_ratings holds ratings of users; only da"
    ):
        composed_config(["runtime=deploy", "method=fedgnn", f"schema={path}", "schema.dataset=null"])
