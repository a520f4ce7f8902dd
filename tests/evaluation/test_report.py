import base64
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from report_command import report
from synthetic_runs import MakeRun


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
    page = (tmp_path / "out" / "report.html").read_text()
    images = [base64.b64decode(data) for data in re.findall(r"src='data:image/png;base64,([^']+)'", page)]
    files = [tmp_path / "out" / "convergence.png", *(tmp_path / "sweep").glob("*/plots/*.png")]
    assert sorted(images) == sorted(path.read_bytes() for path in files)
    assert len(images) == 1 + 4 * 3 + 2  # the run of one round has no mixing matrix
    assert not re.search(r"(src|href)=['\"](?!data:)|url\(|<script|<link", page)
    assert "&lt;b&gt;&amp;" in page and "<b>&" not in page
    assert page.count("<h2>") == 5
    assert not (tmp_path / "sweep" / "report.html").exists()


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
    assert (tmp_path / "table.csv").read_text().count("\n") == 3


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
    written = [out / "table.csv", out / "table-curve-method.psi.csv", out / "curve-method.psi.png"]
    assert all(path.is_file() and str(path) in output for path in written)
    page = (out / "report.html").read_text()
    assert base64.b64encode((out / "curve-method.psi.png").read_bytes()).decode() in page
    assert "<th>method.psi 0.25</th><th>method.psi 0.5</th>" in page and "roc_auc (%)" in page
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
        ([str(run.path)], "summary.json is not a JSON object"),
    ):
        assert report(*arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("subfl report: ") and message in error and error.count("\n") == 1
    assert report() == 2
    assert report("--help") == 0
