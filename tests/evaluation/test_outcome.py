from synthetic_runs import MakeRun, round_record

from subfl_flower.evaluation.outcome import outcome_of


def test_the_outcome_has_a_line_a_client_the_figures_and_the_models(make_run: MakeRun) -> None:
    run = make_run("run", rounds=0, status=None, clients=3)
    run.append_round(round_record(1, [0.5, 0.75], [0.25, 0.5], [0.1, 0.1], bytes_each=100))
    late = round_record(2, [0.25, 0.25], [0.1, 0.1], [0.1, 0.1], bytes_each=7)  # client 2 has nothing to validate on
    late["clients"] |= {"ids": [0, 2], "test": [0.5, 0.125], "validation": [0.25, None]}
    run.append_round({**late, "validation": 0.75, "clients_heard": 3})
    run.write_summary({"status": "completed", "method": "fedpub"})
    (run.path / "clients").mkdir()
    (run.path / "clients" / "0000.safetensors").write_bytes(b"weights")
    outcome = outcome_of(run)
    assert dict(outcome.clients) == {
        "client": [0, 1, 2],
        "test": [0.5, 0.75, 0.125],
        "validation": [0.25, 0.5, None],
        "bytes_up": [107, 100, 7],
        "bytes_down": [107, 100, 7],
    }
    assert outcome.lines[2] == (2, 0.125, None, 7, 7)
    assert {name: path.read_bytes()[1:4] for name, path in outcome.figures.items()} == {
        "convergence": b"PNG",
        "clients": b"PNG",
    }
    assert outcome.models == run.path / "clients"


def test_a_run_that_left_no_model_says_so(make_run: MakeRun) -> None:
    run = make_run("run", rounds=1)
    assert outcome_of(run).models is None
    (run.path / "clients").mkdir()
    assert outcome_of(run).models is None
