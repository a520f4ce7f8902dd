import io
import os
import re
import shlex
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import joblib
import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.common.config import parse_config_args
from path_names import ALL_IN_ONE, AWKWARD_NAMES
from run_outcomes import launch

from subfl_flower.composition import composed_job
from subfl_flower.errors import SubflError
from subfl_flower.flower.app_folder import find_app, stage_app
from subfl_flower.flower.submission import INTERRUPTED, Outcome, overrides_toml
from subfl_flower.launch import command
from subfl_flower.launch.request import Request, federation_config
from subfl_flower.storage.package_files import app_hash, commit, package_files

AWKWARD = (
    "method=fedpub",
    "seeds=[0,1]",
    "names={a:1,b:'two words'}",
    'note="it\'s quoted"',
    r"path=C:\data\été",
    "hydra.run.dir=${now:%Y}/a b",
    "~logger",
    "empty=",
)


def test_any_override_survives_toml_and_shell_splitting() -> None:
    line = tomllib.loads(overrides_toml(AWKWARD))["overrides"]
    assert shlex.split(line) == list(AWKWARD)


def test_plain_overrides_are_written_as_they_are() -> None:
    assert overrides_toml(["method=fedpub", "seeds=[0,1]"]) == 'overrides = "method=fedpub seeds=[0,1]"\n'
    assert overrides_toml([]) == 'overrides = ""\n'


@pytest.mark.slow
def test_folders_of_any_name_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command, the TOML file as Flower reads it, and what the server app makes of it."""
    requests: list[Request] = []

    def run_federation(request: Request) -> Outcome:
        requests.append(request)
        return Outcome(INTERRUPTED)

    monkeypatch.setattr(command, "run_federation", run_federation)
    for name in (*AWKWARD_NAMES, ALL_IN_ONE, "'quoted, already'"):
        path = f"/data/{name}" if name.startswith("~") else name
        overrides = ("dataset=custom", f"dataset.path={path}", f"data.cache=/c/{name}", f"hydra.run.dir=/r/{name}")
        assert launch([*overrides, "--home", str(tmp_path)]) == 130
        assert requests[-1].overrides == overrides
        file = tmp_path / "run-config.toml"
        file.write_text(overrides_toml(requests[-1].overrides), encoding="utf-8")
        line = parse_config_args([str(file)])["overrides"]
        assert isinstance(line, str)
        job = composed_job(shlex.split(line), "ray")
        expected = "quoted, already" if name == "'quoted, already'" else path
        assert job.config.plain()["dataset"]["path"] == str(Path.cwd() / expected)
        assert job.config.data.cache == Path(f"/c/{name}") and job.directory == Path(f"/r/{name}")


def test_an_override_of_two_lines_is_refused() -> None:
    with pytest.raises(SubflError, match=re.escape(r"'a=1\nb=2'")):
        overrides_toml(["a=1\nb=2"])


def test_ray_gets_the_cpus_that_the_nodes_can_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    request = Request(None, Path(), Path(), supernodes=1, cpus=1, gpus=0.25)
    asked = parse_config_args([federation_config(request)])
    assert asked == {
        "num-supernodes": 1,
        "client-resources-num-cpus": 1,
        "client-resources-num-gpus": 0.25,
        "init-args-num-cpus": 1,
    }
    many = parse_config_args([federation_config(Request(None, Path(), Path(), supernodes=10_000))])
    assert many["init-args-num-cpus"] == joblib.cpu_count()


def test_a_cluster_of_the_users_own_is_not_resized(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    asked = parse_config_args([federation_config(Request(None, Path(), Path(), cpus=4096))])
    assert asked["client-resources-num-cpus"] == 4096
    assert "init-args-num-cpus" not in asked


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--supernodes", "0"], "0 is not 1 or more"),
        (["--gpus", "-0.5"], "-0.5 is not 0 or more"),
        (["--cpus", "half"], "invalid int value: 'half'"),
        (["a=1", "--unknown"], "unrecognized arguments: --unknown"),
        (["--cpus", "4096"], "--cpus 4096: a node cannot have more than this machine's"),
        (["method=fedpub", "federation.epochs_per_day=1"], "federation.epochs_per_day"),
        (["--app", "/nowhere"], "no pyproject.toml in /nowhere"),
    ],
)
def test_bad_arguments_are_one_sentence_and_start_nothing(
    argv: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    assert launch([*argv, "--home", str(tmp_path / "home")]) == 2
    assert complaint in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "home").exists()


def test_a_home_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "home").touch()
    assert launch(["--home", str(tmp_path / "home")]) == 2
    assert f"--home {tmp_path / 'home'}: " in capsys.readouterr().err


def test_the_app_is_this_package_or_another_one_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_app(None) is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "modules-of-my-own"\n')
    assert find_app(None) is None
    (tmp_path / "pyproject.toml").write_text('[tool.flwr.app]\npublisher = "me"\n')
    assert find_app(None) == find_app(Path()) == tmp_path
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(SubflError, match=re.escape(f"no pyproject.toml in {tmp_path / 'elsewhere'}")):
        find_app(Path("elsewhere"))
    project = Path(__file__).resolve().parents[2]
    monkeypatch.chdir(project)
    assert find_app(None) is find_app(project) is None


def test_relative_paths_begin_where_the_user_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[Request] = []

    def run_federation(request: Request) -> Outcome:
        requests.append(request)
        return Outcome(INTERRUPTED)

    monkeypatch.setattr(command, "run_federation", run_federation)
    monkeypatch.chdir(tmp_path)
    assert launch(["federation.rounds=1"]) == 130
    (request,) = requests
    assert (request.app, request.folder, request.home) == (None, tmp_path, tmp_path / ".flwr")


CHOICES = {"experiment/mine.yaml": "# @package _global_\nseed: 7\n", "config.yaml": "seed: 99\n", "notes.md": "secret"}


def unpacked(app: Path, place: Path) -> set[str]:
    """The files of the bundle that Flower makes of an app, unpacked."""
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as bundle:
        bundle.extractall(place)
        return set(bundle.namelist())


ASK = (
    "from subfl_flower.composition import composed_config; import subfl_flower\n"
    "from subfl_flower.storage.package_files import *\n"
    "from subfl_flower.code_folder import adopt; from subfl_flower.strategies.subgraphs import fedpub\n"
    "adopt(sent_choices()); config, _ = composed_config(['+experiment=mine'])\n"
    "print(subfl_flower.__file__, fedpub.__file__, app_hash(), commit(), config.seed)"
)


def test_the_app_of_this_package_is_whole_and_has_its_commit_its_hash_and_the_users_choices(tmp_path: Path) -> None:
    for name, text in CHOICES.items():
        (tmp_path / "conf" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / name).write_text(text)
    stage_app(None, tmp_path / "staged", own=tmp_path)
    files = unpacked(tmp_path / "staged", tmp_path / "unpacked")
    assert {name for name in files if name.startswith("conf/")} == {"conf/experiment/mine.yaml"}
    assert {f"subfl_flower/{name}" for name in package_files()} <= files
    asked = [sys.executable, "-P", "-c", ASK]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "unpacked")}
    answer = subprocess.run(asked, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0, answer.stderr
    package, module, digest, stated, seed = answer.stdout.split()
    place = tmp_path / "unpacked" / "subfl_flower"
    assert (package, module) == (str(place / "__init__.py"), str(place / "strategies" / "subgraphs" / "fedpub.py"))
    assert (digest, stated, seed) == (app_hash(), str(commit()), "7")


def test_a_users_conf_that_is_the_built_in_one_is_not_sent_twice(tmp_path: Path) -> None:
    stage_app(None, tmp_path / "staged", own=Path(__file__).resolve().parents[2])
    assert not (tmp_path / "staged" / "conf").exists()


def test_the_staged_app_packs_to_the_same_bytes(tmp_path: Path) -> None:
    app = tmp_path / "app"
    contents = {
        "pyproject.toml": '[project]\nname = "toy"\nversion = "1.0.0"\n[tool.flwr.app]\npublisher = "toy"\n'
        '[tool.flwr.app.components]\nserverapp = "toy.app:app"\nclientapp = "toy.app:app"\n',
        ".gitignore": "/private/\n/outputs/\n",
        "LICENSE": "free",
        "toy/app.py": "app = 1\n",
        "toy/conf/method/fedpub.yaml": "tau: 5\n",
        "toy/test_app.py": "",
        "private/secret.json": "{}",
        "outputs/run/summary.json": "{}",
        "toy/data.npz": "large",
        ".venv/lib/module.py": "",
        "environment/pyvenv.cfg": "",
        ".flwr/launches/app/toy/app.py": "",
    }
    for name, text in contents.items():
        (app / name).parent.mkdir(parents=True, exist_ok=True)
        (app / name).write_text(text)
    target = app / ".flwr" / "staged"
    stage_app(app, target)
    assert build_fab_from_disk(target) == build_fab_from_disk(app)
    staged = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert not {name for name in staged if name.startswith((".venv", ".flwr", "outputs", "environment"))}
