import pandas as pd
import pytest
from synthetic_runs import MakeRun, round_record

from subfl_flower.evaluation.frame import metric_frame
from subfl_flower.evaluation.runs import Run


def test_every_number_of_a_round_has_one_line(make_run: MakeRun) -> None:
    run = make_run("run", rounds=0, status=None)
    first = round_record(1, [0.25, 0.75], [0.5, 0.5], [0.125, 0.375])
    run.append_round({**first, "figures": {"test.ndcg@10": 0.5}, "clients_heard": 2})
    run.append_round({"round": 2, "metric": "accuracy", "test": None, "clients": {"ids": [7], "test": [None]}})
    frame = metric_frame([Run.load(run.path)])
    assert list(frame.columns) == ["run", "round", "client", "metric", "value"]
    assert set(frame["run"]) == {str(run.path)} and set(frame["round"]) == {1}  # the second measured nothing

    whole = frame[frame["client"].isna()].set_index("metric")["value"]
    expected = {"test": 0.5, "validation": 0.5, "test_as_received": 0.25, "test.ndcg@10": 0.5, "train_loss": 1.0}
    expected |= {"bytes_up": 2000, "seconds.round": 0.25, "seconds.transport": 0.02, "clients_heard": 2}
    assert whole[list(expected)].to_dict() == expected
    assert not {"round", "metric", "figures", "seconds", "failures", "clients"} & set(whole.index)

    clients = frame.dropna().pivot(index="client", columns="metric", values="value")
    assert clients["test"].to_dict() == {0: 0.25, 1: 0.75}
    assert clients["bytes_up"].to_dict() == {0: 1000, 1: 1000}


def test_runs_follow_each_other_and_group_as_in_any_data_frame(make_run: MakeRun) -> None:
    runs = [Run.load(make_run(name, rounds=3, clients=2).path) for name in ("b", "a")]
    frame = metric_frame(runs)
    assert list(frame["run"].unique()) == [str(run.path) for run in runs]
    means = frame[(frame["metric"] == "test") & frame["client"].notna()].groupby(["run", "round"])["value"].mean()
    for run in runs:
        assert means[str(run.path)].tolist() == pytest.approx([record["test"] for record in run.rounds])


def test_runs_without_a_round_make_an_empty_table_of_the_same_types(make_run: MakeRun) -> None:
    empty = metric_frame([Run.load(make_run("run", rounds=0, status="failed").path)])
    full = metric_frame([Run.load(make_run("other", rounds=1).path)])
    assert len(empty) == 0
    pd.testing.assert_series_equal(empty.dtypes, full.dtypes)
