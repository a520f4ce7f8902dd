import csv
import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from page_text import heads_and_cells
from plotly.offline import get_plotlyjs
from report_command import report
from synthetic_runs import MakeRun

from subfl_flower.evaluation.page.origin import origin_table
from subfl_flower.evaluation.rows import build_rows
from subfl_flower.evaluation.runs import load_runs


def sweep(make_run: MakeRun) -> None:
    for job, (method, seed) in enumerate([("fedavg", 0), ("fedavg", 1), ("fedpub", 0), ("fedpub", 1)]):
        make_run(f"sweep/{job}", method=method, seed=seed, rounds=5)


def test_one_run_prints_its_table_and_the_paths_of_its_plots(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run")
    assert report(run.path) == 0
    output = capsys.readouterr().out
    best = max(run.rounds(), key=lambda record: record["validation"])
    assert f"{100 * best['test']:.2f}" in output and "cora, metis, 10 clients" in output
    printed = [Path(line) for line in output.splitlines() if line.endswith(".png")]
    assert printed == [run.plots_folder / f"{name}.png" for name in ("convergence", "clients", "mixing")]
    assert all(path.is_file() for path in printed)


def test_a_sweep_gets_a_comparison_in_its_folder(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(make_run)
    assert report(tmp_path / "sweep") == 0
    assert (tmp_path / "sweep" / "convergence.png").is_file()
    assert (tmp_path / "sweep" / "3" / "plots" / "mixing.png").is_file()
    output = capsys.readouterr().out
    assert str(tmp_path / "sweep" / "convergence.png") in output
    assert "62.0 %" in output and "100.0 %" in output


def test_runs_named_one_by_one_share_their_deepest_folder(make_run: MakeRun, tmp_path: Path) -> None:
    sweep(make_run)
    assert report(tmp_path / "sweep" / "0", str(tmp_path / "sweep" / "2")) == 0
    assert (tmp_path / "sweep" / "convergence.png").is_file()
    assert not (tmp_path / "sweep" / "1" / "plots").exists()


def test_the_page_stands_alone(make_run: MakeRun, tmp_path: Path) -> None:
    sweep(make_run)
    make_run("sweep/4", method="<b>&", rounds=1)
    assert report(tmp_path / "sweep", "--html", "--out", str(tmp_path / "out")) == 0
    page = (tmp_path / "out" / "report.html").read_text().replace(get_plotlyjs(), "")
    assert not re.search(r"(src|href)=['\"](?!data:|#)|url\(|<link rel='stylesheet'", page)
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page
    runs = re.findall(r"<details id='run-\d'>.*?</details>", page, re.DOTALL)
    # convergence and clients of each; the run of one round has no mixing matrix
    assert [run.count("<figure>") for run in runs] == [3, 3, 3, 3, 2]
    assert not (tmp_path / "sweep" / "report.html").exists()


def test_settings_that_runs_share_stand_once_on_the_page(make_run: MakeRun, tmp_path: Path) -> None:
    for tau in (3, 5):
        make_run(f"sweep/{tau}", rounds=1, settings={"tau": tau, "masks": True})
    assert report(tmp_path / "sweep", "--html", "--no-plots") == 0
    page = (tmp_path / "sweep" / "report.html").read_text()
    assert page.count("method.masks: true") == page.count("method.tau: 3") == page.count("method.tau: 5") == 1


def test_rows_under_another_protocol_have_another_fingerprint(make_run: MakeRun, tmp_path: Path) -> None:
    for name, rounds in (("a", 1), ("b", 1), ("c", 2)):
        run = make_run(f"sweep/{name}", method=f"m{name}", rounds=rounds)
        run.write_data({"fingerprints": {"data": "0123456789abcdef", "split": "f" * 64}})
    table = origin_table(build_rows(load_runs([tmp_path / "sweep"]))).cells
    assert table["data"].tolist() == ["0123456789ab"] * 3 and table["split"].tolist() == ["f" * 12] * 3
    first, second, third = table["protocol"]
    assert first == second != third and len(first) == 12


def test_a_page_without_plotly_names_the_extra(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert report(make_run("run", rounds=1).path, "--html", "--no-plots") == 2
    assert "pip install 'subfl-flower[plots]'" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "begin"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_figures_are_written_in_the_width_of_a_column(
    make_run: MakeRun, tmp_path: Path, kind: str, begin: bytes
) -> None:
    sweep(make_run)
    arguments = [tmp_path / "sweep", "--no-plots", "--figures", kind, "--width", "3.3"]
    assert report(*arguments) == 0
    files = sorted((tmp_path / "sweep" / "figures").iterdir())
    assert [path.name for path in files] == [f"{name}.{kind}" for name in ("bytes", "clients", "convergence", "mixing")]
    assert all(path.read_bytes().startswith(begin) for path in files)
    if kind == "svg":
        assert 'width="237.6pt"' in files[0].read_text()  # 3.3 inches of 72 points


@pytest.mark.parametrize("arguments", [("--width", "3.3"), ("--width", "0", "--figures", "svg")])
def test_a_width_without_figures_or_out_of_range_is_refused(
    make_run: MakeRun, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(make_run("run", rounds=1).path, "--no-plots", *arguments) == 2
    assert "takes from 1 to 40 inches, and goes with --figures" in capsys.readouterr().err


def test_latex_marks_the_best_and_escapes_what_has_a_meaning(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for tau in ("a_b", "c%"):
        make_run(f"sweep/{tau}", rounds=3, settings={"tau": tau}, final=0.9 if tau == "c%" else 0.2)
    assert report(tmp_path / "sweep", "--latex", "--no-plots") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "% cora, metis, 10 clients, accuracy (%)"
    assert lines[1].startswith("\\begin{tabular}{ll") and lines[-1] == "\\end{tabular}"
    first, second = (line for line in lines if "method.tau" in line)
    assert "method.tau=a\\_b" in first and "\\textbf" not in first
    assert "method.tau=c\\%" in second and "\\textbf{" in second
    columns = lines[3].count(" & ")
    assert first.count(" & ") == second.count(" & ") == columns == len(re.findall("[lr]", lines[1][16:])) - 1


def test_the_long_csv_has_a_line_for_each_seed_and_figure(make_run: MakeRun, tmp_path: Path) -> None:
    sweep(make_run)
    make_run("sweep/9", method="fedpub", seed=7, rounds=5, status="interrupted")
    assert report(tmp_path / "sweep", "--no-plots", "--csv", str(tmp_path / "t.csv")) == 0
    with (tmp_path / "t.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    found = {(line["method"], line["seed"]): float(line["value"]) for line in lines if line["figure"] == "bytes_up"}
    # 5 rounds of 10 clients; the interrupted run is left out of the table, and here
    assert found == {("fedavg", "0"): 5e7, ("fedavg", "1"): 5e7, ("fedpub", "0"): 3.1e7, ("fedpub", "1"): 3.1e7}
    with (tmp_path / "t-means.csv").open(newline="") as file:
        means = {line["method"]: float(line["test_at_best_validation_mean"]) for line in csv.DictReader(file)}
    tests = [float(line["value"]) for line in lines if line["figure"] == "test_at_best_validation"]
    assert means["fedavg"] == pytest.approx(sum(tests[:2]) / 2)


def test_a_single_run_keeps_its_page(make_run: MakeRun) -> None:
    run = make_run("run", rounds=2)
    assert report(run.path, "--html") == 0
    assert run.report_page.is_file()


def test_without_plots_nothing_is_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    sweep(make_run)
    before = sorted(tmp_path.rglob("*"))
    assert report(tmp_path / "sweep", "--no-plots") == 0
    assert sorted(tmp_path.rglob("*")) == before


def test_markdown_alone_goes_to_standard_output(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(make_run)
    assert report(tmp_path / "sweep", "--markdown", "--csv", str(tmp_path / "table.csv")) == 0
    captured = capsys.readouterr()
    assert all(line.startswith("|") for line in captured.out.splitlines())
    assert str(tmp_path / "table.csv") in captured.err
    assert (tmp_path / "table-means.csv").read_text().count("\n") == 3


def test_a_curve_is_tabulated_drawn_and_shown_in_the_page(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for psi in (0.25, 0.5):
        make_run(f"sweep/{psi}", method="subpfed", rounds=2, settings={"psi": psi}, metric="roc_auc")
    make_run("sweep/fedavg", method="fedavg", rounds=2, metric="roc_auc")
    out = tmp_path / "out"
    arguments = [str(tmp_path / "sweep"), "--curve", "method.psi", "--out", str(out)]
    assert report(*arguments, "--html", "--csv", str(out / "table.csv")) == 0
    output = capsys.readouterr().out
    assert "test at best validation by method.psi: cora, metis, 10 clients, roc_auc (%)" in " ".join(output.split())
    written = [
        out / "table.csv",
        out / "table-means.csv",
        out / "table-curve-method.psi.csv",
        out / "curve-method.psi.png",
    ]
    assert all(path.is_file() and str(path) in output for path in written)
    page = (out / "report.html").read_text()
    assert "|method.psi 0.25|method.psi 0.5|" in heads_and_cells(page) and "roc_auc (%)" in page
    assert " id='figure-curve-method.psi'" in page
    assert report(*arguments, "--markdown", "--no-plots") == 0
    printed = capsys.readouterr().out
    table, curve = printed.split("\n\n")
    assert "| method.psi 0.25 | method.psi 0.5 |" in curve and "| roc_auc (%) |" in table
    assert all(line.startswith("|") for line in (*table.splitlines(), *curve.splitlines()))


def test_a_curve_over_an_unknown_key_is_one_sentence_and_code_2(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run", rounds=2)
    assert report(run.path, "--curve", "method.psi", "--no-plots") == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("subfl report: --curve method.psi: no run's") and captured.err.count("\n") == 1
    assert captured.out == ""


def test_what_travels_outside_of_rounds_is_in_the_totals_and_on_the_page(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run", rounds=2, clients=1, bytes_each=1000)
    exchange = {"action": "structure", "bytes_up": 500_000, "bytes_down": 7_000_000, "seconds": 0.25}
    totals = {"bytes_up": 502_000, "bytes_down": 7_002_000, "exchanges": [exchange]}
    run.write_summary({**(run.summary() or {}), **totals})
    assert report(run.path, "--no-plots", "--html") == 0
    output = capsys.readouterr().out
    assert "502 kB" in output and "7 MB" in output
    assert "structure, outside of rounds: 500 kB up, 7 MB down, 0.25 s" in run.report_page.read_text()


def test_a_reader_that_stops_early_sees_no_stack_trace(make_run: MakeRun) -> None:
    run = make_run("run", rounds=2)
    code = "from subfl_flower.cli import main; main()"
    root = Path(__file__).parents[2]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(run.path), "--no-plots"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=root,
    )
    os.close(writing)
    assert done.stderr == b""


def test_an_interrupted_run_is_marked(make_run: MakeRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run("run", status="interrupted", rounds=12)
    assert report(run.path, "--no-plots") == 0
    assert "interrupted" in capsys.readouterr().out


def test_what_the_user_can_mend_is_one_sentence_and_code_2(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run("run", rounds=2)
    (run.path / "summary.json").write_text("{")
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ([str(tmp_path / "empty")], "no run found in"),
        ([str(tmp_path / "nothing")], f"{tmp_path / 'nothing'} is not a folder"),
        ([str(run.path)], "summary.json is not a JSON object"),
    ):
        assert report(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("subfl report: ") and message in error and error.count("\n") == 1
    assert report() == 2
    assert report("--help") == 0


def test_a_full_disk_leaves_no_half_a_file(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("sweep/a", rounds=3)
    (tmp_path / "table.csv").write_text("old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for options in (("--csv", tmp_path / "table.csv"), ("--html", "--out", tmp_path / "page")):
        assert report(tmp_path / "sweep", "--no-plots", *options) == 2
        assert "No space left on device" in capsys.readouterr().err
    assert (tmp_path / "table.csv").read_text() == "old" and list((tmp_path / "page").iterdir()) == []
