"""The frame of all commands: help, exit codes, suggestions, completion, and how little they import."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from subfl_flower import __version__
from subfl_flower.catalogue.groups import GROUPS, choices
from subfl_flower.cli import run
from subfl_flower.commands.completion import continued
from subfl_flower.commands.overview import COMMANDS
from subfl_flower.commands.parser import Commands
from subfl_flower.deploy.command import SUBCOMMANDS
from subfl_flower.errors import RunFailure, SubflError

NAMES = [*COMMANDS, *(f"deploy {name}" for name in SUBCOMMANDS)]
HEAVY = ("torch", "ray", "flwr", "pandas", "matplotlib", "torch_geometric")


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example_of_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: subfl {name}")
    assert re.search(rf"^examples?:\n +.*subfl {name}", shown, re.MULTILINE)
    assert max(map(len, shown.splitlines())) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_one_sentence_and_code_2(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--no-such-option"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"subfl {name.split()[0]}")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "deploy"])
@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (SubflError("bad"), 2, "bad"),
        (RunFailure("ended"), 1, "ended"),
        (MemoryError("8 TB"), 1, "this machine has not enough memory: 8 TB"),
        (KeyboardInterrupt(), 130, ""),
        (None, 0, ""),
    ],
)
def test_the_exit_code_tells_how_a_command_ended(
    name: str,
    error: BaseException | None,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ends(options: object) -> int:
        if error is not None:
            raise error
        return 0

    module = importlib.import_module(COMMANDS[name].module)
    assert not isinstance(module, Commands)
    monkeypatch.setattr(module, "run", ends)
    with_path = {each: ["a"] for each in ("report", "analyse", "predict", "recommend", "app")}
    arguments = {**with_path, "completion": ["bash"]}
    assert run([name, *arguments.get(name, [])]) == code
    assert capsys.readouterr().err == (f"subfl {name}: {said}\n" if said else "")


def test_a_reader_that_has_seen_enough_is_no_failure() -> None:
    line = f"set -o pipefail; {sys.executable} -m subfl_flower list methods | true"
    ended = subprocess.run(["bash", "-c", line], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_the_overview_names_every_command_with_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    for name, listed in COMMANDS.items():
        module = importlib.import_module(listed.module)
        assert re.search(rf"^  subfl {name} +{re.escape(module.SUMMARY)}$", shown, re.MULTILINE), name
        assert f"\n{listed.section}:\n" in shown
    assert "subfl method=fedpub" in shown and "subfl -m method=" in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_the_version_is_this_projects_by_either_way_of_starting() -> None:
    ended = subprocess.run([sys.executable, "-m", "subfl_flower", "--version"], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, f"subfl {__version__}\n")


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("methods", "subfl list methods"),
        ("dataset", "subfl list datasets"),
        ("experimnts", "subfl list experiments"),
        ("reprot", "subfl report"),
        ("fedpub", "subfl method=fedpub"),
        ("fedpubb", "subfl method=fedpub"),
        ("subpfed_psi", "subfl +experiment=subpfed_psi"),
    ],
)
def test_a_word_that_is_no_command_is_answered_by_a_suggestion(
    word: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([word]) == 2
    assert capsys.readouterr().err == f"subfl: {word}: there is no such command; did you mean {meant}?\n"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ("method=fedpubb", "did you mean method=fedpub?"),
        ("federation.round=3", "did you mean federation.rounds?"),
        ("federatoin.rounds=3", "did you mean federation.rounds?"),
        ("method.taau=1", "did you mean method.tau?"),
        ("datset=cora", "did you mean dataset?"),
        ("experiment=subpfed", "by +experiment="),
        ("+experiment=subpfed_ps", "did you mean +experiment=subpfed_psi?"),
        ("seed=1 cora", "did you mean dataset=cora?"),
        ("method.similarity=functionl", "did you mean functional?"),
        ("runtime.on_client_failure=stopp", "did you mean stop?"),
        ("+method.proximl=1", "did you mean method.proximal?"),
        ("list metods", "did you mean methods?"),
        ("list method fedpubb", "did you mean fedpub?"),
        ("deploy submitt", "did you mean submit?"),
        ("predict run --oout x", "did you mean --out?"),
        ("recommend run usr=1", "did you mean user?"),
        ("method=fedavg --multrun seed=0,1", "did you mean --multirun?"),
        ("--method=fedpub", "; a setting has no dashes, as in method=fedpub"),
        ("-x seed=1", "; see subfl --help"),
    ],
)
def test_a_typo_is_answered_by_a_suggestion(
    arguments: str, meant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(arguments.split()) == 2
    shown = capsys.readouterr()
    assert meant in shown.err and shown.err.count("\n") == 1 and shown.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "code",
    [
        "",
        "run(['--help'])",
        "run(['--version'])",
        "run(['list'])",
        "run(['list', 'methods'])",
        "run(['list', 'methods', 'fedpub'])",
        "run(['completion', 'bash'])",
        "run(['completion', 'query', 'subfl method=fed'])",
        "run(['completion', 'query', 'subfl method.ma'])",
        "run(['methods'])",
        *(f"run(['completion', 'query', 'subfl {name} -'])" for name in COMMANDS),
    ],
)
def test_little_is_imported_before_something_is_run(code: str) -> None:
    begin = "import subfl_flower" if not code else f"from subfl_flower.cli import run; {code}"
    program = f"{begin}; import sys; print([name for name in {HEAVY} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


@pytest.mark.parametrize("title", GROUPS)
def test_a_list_has_a_line_for_every_choice(title: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", title]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(choices(GROUPS[title]))
    assert [line for line in lines if len(line.split()) < 3] == []


def test_a_method_is_described_with_its_source_its_cost_and_its_knobs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list", "methods", "fedpub"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for part in (
        "Source: Baek et al., ICML 2023",
        "Sends: the parameters that a client's mask keeps",
        "Cost: fewer bytes than FedAvg",
        "mask_threshold = 0.7 With sparsity=null: mask entries below are zero.",
        "subfl method=fedpub dataset=cora",
    ):
        assert part in shown


def test_choices_of_the_users_folder_are_listed_and_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf" / "method").mkdir(parents=True)
    path = tmp_path / "conf" / "method" / "ring.yaml"
    path.write_text("# A ring of clients. They pass models on.\nname: ring\n# Share that a client keeps.\nown: 0.5\n")
    monkeypatch.chdir(tmp_path)
    assert run(["list", "methods"]) == 0
    assert re.search(rf"^ring +A ring of clients\. \(yours: {path}\)$", capsys.readouterr().out, re.MULTILINE)
    assert run(["list", "methods", "ring"]) == 0
    assert "own = 0.5\n      Share that a client keeps.\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("subfl repor", ["report"]),
        (
            "subfl method=fedp",
            [f"method={name}" for name in ("fedper", "fedper_similar", "fedprox", "fedpub", "fedpub_released")],
        ),
        ("subfl -m method=local,fedpub_", ["method=local,fedpub_released"]),
        ("subfl method=fedpub federation.ro", ["federation.round_timeout=", "federation.rounds="]),
        ("subfl method=subpfed method.p", ["method.proximal=", "method.psi="]),
        ("subfl list methods subp", ["subpfed"]),
        ("subfl list exp", ["experiments"]),
        ("subfl predict --p", ["--pairs"]),
        ("subfl deploy supern", ["supernode"]),
        ("subfl deploy submit --c", ["--connection"]),
        ("subfl partition dataset=cor", ["dataset=cora"]),
        ("subfl report dataset=cor", []),
        ("subfl --code . +exp", ["+experiment="]),
        ("subfl +experiment=subpfed_o", ["+experiment=subpfed_overlap"]),
    ],
)
def test_a_line_is_completed(line: str, words: list[str]) -> None:
    assert continued(line) == words


@pytest.mark.parametrize("breaks", ["\t\n\"'><=;|&(:", "\t\n\"'><;|&("])
def test_bash_completes_the_word_at_the_cursor(breaks: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    program = f"""
subfl() {{ "{sys.executable}" -m subfl_flower "$@"; }}
{script}
COMP_WORDBREAKS=$BREAKS COMP_LINE="subfl seed=1 method=fedpub_ x" COMP_POINT=27
_subfl
printf '%s|' "${{COMPREPLY[@]}}"
complete -p subfl
"""
    env = {**os.environ, "BREAKS": breaks}
    ended = subprocess.run(["bash", "--norc", "-c", program], capture_output=True, text=True, env=env)
    found, registered = ended.stdout.split("|")
    assert found == ("fedpub_released" if "=" in breaks else "method=fedpub_released"), ended.stderr
    assert registered.strip().endswith("-F _subfl subfl")


def test_a_choice_that_cannot_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "method" / "folder.yaml").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "binary.yaml").write_bytes(b"\xff")
    (tmp_path / "conf" / "method" / "broken.yaml").write_text("name: [")
    assert run(["list", "methods"]) == 0
    shown = capsys.readouterr().out
    assert all(re.search(rf"^{name} .*no readable YAML file", shown, re.MULTILINE) for name in ("folder", "binary"))
    assert re.search("^fedpub .*FED-PUB", shown, re.MULTILINE)
    for name in ("binary", "broken"):
        assert run(["list", "methods", name]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"subfl list: {tmp_path}/conf/method/{name}.yaml is no readable YAML file: ")
        assert run([f"method={name}"]) == 2 and capsys.readouterr().err.count("\n") == 1


def test_a_setting_without_the_one_that_it_is_taken_from_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "mine.yaml").write_text("name: digits\n")
    assert run(["dataset=mine"]) == 2
    assert capsys.readouterr().err.startswith(
        "subfl: federation.rounds: takes its value from dataset.protocol.rounds, "
    )


@pytest.mark.parametrize("arguments", [["--code"], ["--code", ""]])
def test_a_folder_of_code_is_required(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err == "subfl: --code: a folder is required, as in --code DIR method=mine\n"
