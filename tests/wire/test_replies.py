"""Replies that no honest node sends, made by hand: each is refused in words, and what is accepted is finite."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, MetricRecord, RecordDict

from subfl_flower.tasks.metric import COUNT, SHARE, Metric
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.contract import Contract, Declared
from subfl_flower.wire.payload import ARRAYS, LAYOUT, ArraySpec, pack
from subfl_flower.wire.replies import METRICS, OUTCOME, Reply, combine, one_line, read_reply
from subfl_flower.wire.roster import describe_error

ASKED = [7, 3, 5]
EXPECTED = {"w": ArraySpec((2, 3), "float32"), "b": ArraySpec((3,), "float32")}

MEASURED = {
    "num_examples": Metric(COUNT.low, COUNT.high, needed=True),
    "test": Metric(),
    "loss": Metric(),
    "sparsity": SHARE,
    "test.hr@10": SHARE,
    "validation_examples": COUNT,
    "rmse": Metric(0.0, 1e12),
}


def contract(uploads: Declared = EXPECTED) -> Contract:
    return Contract(uploads=uploads, metrics=MEASURED)


def updates(clients: Sequence[int] = ASKED) -> Stack:
    """Client c sends 2 x 3 times c, and 3 times 10 c."""
    ids = np.array(clients, dtype=np.float32)
    return {"w": np.tile(ids[:, None, None], (1, 2, 3)), "b": np.tile(10 * ids[:, None], (1, 3))}


def reply(
    clients: Sequence[int] = ASKED,
    stack: Stack | None = None,
    metrics: dict[str, Any] | None = None,
    failures: dict[Any, Any] | None = None,
    **outcome: Any,
) -> RecordDict:
    """A sound reply, but for what is given."""
    content = RecordDict()
    sent = updates(clients) if stack is None else stack
    pack(sent, len(next(iter(sent.values()))) if sent else len(clients)).into(content)
    measured = {"num_examples": [10 * client for client in clients], "test": [client / 10 for client in clients]}
    content[METRICS] = MetricRecord({**measured, **(metrics or {})})
    about = {"clients": list(clients), "failures": json.dumps(failures or {}), "round": 4, "seconds": 1.5}
    content[OUTCOME] = ConfigRecord({**about, **outcome})
    return content


def read(content: RecordDict, asked: Sequence[int] = ASKED) -> Reply:
    return read_reply(content, asked, contract(), 4)


def test_a_sound_reply_is_taken_as_it_is() -> None:
    found = read(reply(startup=2.5))
    assert (found.clients, found.failures, found.seconds, found.startup) == (ASKED, {}, 1.5, 2.5)
    assert found.bytes_per_client.tolist() == [24 + 12] * 3
    assert {name: values.tolist() for name, values in found.metrics.items()} == {
        "num_examples": [70.0, 30.0, 50.0],
        "test": [0.7, 0.3, 0.5],
    }
    for name, values in updates().items():
        np.testing.assert_array_equal(found.stack[name], values, strict=True)
    assert read(reply()).startup == 0.0


def test_a_node_all_of_whose_clients_failed_sends_reasons_alone() -> None:
    content = RecordDict({OUTCOME: reply([], failures=dict.fromkeys(ASKED, "tired")).config_records[OUTCOME]})
    found = read(content)
    assert (found.clients, found.stack, found.metrics) == ([], {}, {})
    assert found.failures == dict.fromkeys(ASKED, "tired") and found.bytes_per_client.tolist() == []


def test_reasons_are_cut_to_a_printable_line() -> None:
    reason = "\x1b[2Jdisk\x00 full\n  at line 3\u202e\t" + "x" * 10**4
    failures = read(reply([7, 5], failures={"3": reason})).failures
    assert failures == {3: "[2Jdisk full at line 3 " + "x" * (300 - 3 - 23) + "..."}
    assert len(failures[3]) == 300
    assert read(reply([7, 5], failures={"3": " \n"})).failures == {3: "it gives no reason"}
    assert one_line("as it is") == "as it is"


def test_a_client_that_its_node_says_nothing_of_has_failed_and_the_others_stay() -> None:
    found = read(reply([7, 5]))
    assert found.clients == [7, 5] and found.failures == {3: "it is missing in its node's reply"}


# Refused as a whole ---------------------------------------------------------------------------------------------------


def without(kind: str, key: str | None = None) -> RecordDict:
    content = reply()
    if key is None:
        del content[kind]
    else:
        del content[kind][key]  # type: ignore[union-attr]
    return content


def with_ballast() -> RecordDict:
    content = reply()
    content.array_records[ARRAYS]["ballast"] = Array(np.zeros(200_000))
    return content


def in_layout(key: str, value: Any) -> RecordDict:
    content = reply()
    content.config_records[LAYOUT][key] = value
    return content


def many_metrics() -> RecordDict:
    return reply(metrics={f"metric {i}": [0.0] * 3 for i in range(200)})


REFUSED: dict[str, tuple[Callable[[], RecordDict], str]] = {
    "empty": (RecordDict, "it has no record 'outcome'"),
    "no arrays": (lambda: without(ARRAYS), "it has no record 'arrays'"),
    "no layout": (lambda: without(LAYOUT), "the records lack 'layout'"),
    "no metrics": (lambda: without(METRICS), "it has no record 'metrics'"),
    "of another round": (lambda: reply(round=2), "its update is of round 2, not 4"),
    "of no round": (lambda: without(OUTCOME, "round"), "its update is of round None, not 4"),
    "round in words": (lambda: reply(round="4"), "its update is of round '4', not 4"),
    "foreign client": (
        lambda: reply([7, 3, 6], updates()),
        "it answers for client 6, which it was not asked for",
    ),
    "foreign failure": (lambda: reply(failures={"8": "?"}), "it answers for client 8, which it was not asked for"),
    "one client twice": (lambda: reply([7, 3, 3]), "it answers for client 3 twice"),
    "failed and not": (
        lambda: reply(failures={"5": "?"}),
        "it says of client 5 both that it failed",
    ),
    "clients are a number": (lambda: clients_are(3), "it does not say which clients it answers for"),
    "clients are texts": (lambda: clients_are(["7"]), "it does not say which clients it answers for"),
    "clients are fractions": (lambda: clients_are([7.0, 3.0, 5.0]), "it does not say which clients it answers for"),
    "clients are truths": (lambda: clients_are([True]), "it does not say which clients it answers for"),
    "reasons are no JSON": (lambda: reasons_are("{"), "its reasons why clients failed are no JSON"),
    "reasons nest": (lambda: reasons_are("[" * 10**5), "its reasons why clients failed are no JSON"),
    "reasons are a list": (lambda: reasons_are("[3]"), "its reasons why clients failed are not texts by client id"),
    "reasons are numbers": (lambda: reply([7, 5], failures={"3": 1}), "its reasons why clients failed are not texts"),
    "reasons of a name": (
        lambda: reply([7, 5], failures={"x": "?"}),
        "its reasons why clients failed speak of a client",
    ),
    "reasons of a minus": (
        lambda: reply([7, 5], failures={"-3": ""}),
        "its reasons why clients failed speak of a client",
    ),
    "reasons of a long number": (
        lambda: reply([7, 5], failures={"9" * 5000: ""}),
        "its reasons why clients failed speak of a client",
    ),
    "reasons without end": (
        lambda: reply([7, 5], failures={"3": "x" * 10**6}),
        "it does not say in JSON of",
    ),
    "reasons are bytes": (lambda: reasons_are(b"{}"), "it does not say in JSON"),
    "no seconds": (lambda: without(OUTCOME, "seconds"), "its seconds must be a number of seconds, not None"),
    "seconds below zero": (lambda: reply(seconds=-1.0), "its seconds must be a number of seconds, not -1.0"),
    "seconds not a number": (lambda: reply(seconds=float("nan")), "its seconds must be a number of seconds, not nan"),
    "endless seconds": (lambda: reply(seconds=float("inf")), "its seconds must be a number of seconds, not inf"),
    "endless startup": (lambda: reply(startup=float("inf")), "its startup must be a number of seconds, not inf"),
    "seconds are a list": (lambda: reply(seconds=[1.0]), "its seconds must be a number of seconds, not [1.0]"),
    "no number of examples": (
        lambda: without(METRICS, "num_examples"),
        "it lacks the metric num_examples",
    ),
    "metrics without end": (many_metrics, "it holds the metric 'metric 0', which this method does not have"),
    "an invented metric": (
        lambda: reply(metrics={"fame": [1.0, 1.0, 1.0]}),
        "it holds the metric 'fame', which this method does not have",
    ),
    "an invented metric of control characters": (
        lambda: reply(metrics={"\x1b[2Jtest\n": [1.0, 1.0, 1.0]}),
        "it holds the metric '[2Jtest', which this method does not have",
    ),
    "an invented metric of any length": (
        lambda: reply(metrics={"x" * 10**5: [1.0, 1.0, 1.0]}),
        f"it holds the metric '{'x' * 297}...', which this method does not have",
    ),
    "a metric of two clients": (
        lambda: reply(metrics={"test": [0.1, 0.2]}),
        "its metric test is not a list of 3 numbers, one for each client",
    ),
    "a metric of nobody": (lambda: reply(metrics={"test": 0.5}), "its metric test is not a list of 3 numbers"),
    "a metric of too many digits": (
        lambda: reply(metrics={"test": [10**400, 1, 2]}),
        "its metric test holds a number that is too large",
    ),
    "too large": (with_ballast, "it is 24.4 times as large as 3 clients' updates can be"),
    "rows of two clients": (lambda: reply(stack=updates([7, 3])), "it holds 2 clients, not 3"),
    "rows of four clients": (lambda: reply(stack=updates([7, 3, 5, 5])), "it holds 4 clients, not 3"),
    "an array missing": (lambda: reply(stack={"w": updates()["w"]}), "it lacks b"),
    "an array more": (
        lambda: reply(stack={**updates(), "v": np.zeros((3, 1))}),
        "it holds v, where only w, b belongs",
    ),
    "another shape": (
        lambda: reply(stack={**updates(), "b": np.zeros((3, 4), np.float32)}),
        "its b is float32 [4] for a client, where float32 [3] belongs",
    ),
    "another type": (
        lambda: reply(stack={**updates(), "b": np.zeros((3, 3))}),
        "its b is float64 [3] for a client, where float32 [3] belongs",
    ),
    "a layout that lies": (
        lambda: in_layout("w.shape", [3, 10**9, 10**9]),
        "its w is float32 [1000000000, 1000000000]",
    ),
    "a layout of no mark": (lambda: in_layout("w.shared", 1), "w: 1 does not say whether rows are shared"),
    "marks in words": (lambda: in_layout("w.sparse", "abc"), "'abc' is not a list of marks"),
}


def clients_are(value: Any) -> RecordDict:
    content = reply()
    content.config_records[OUTCOME]["clients"] = value
    return content


def reasons_are(value: Any) -> RecordDict:
    content = reply()
    content.config_records[OUTCOME]["failures"] = value
    return content


@pytest.mark.parametrize(("build", "reason"), REFUSED.values(), ids=REFUSED)
def test_a_reply_that_does_not_answer_the_question_is_refused(build: Callable[[], RecordDict], reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}"):
        read(build())


def test_the_size_of_a_reply_is_bounded_before_anything_is_unpacked() -> None:
    stack = {"w": np.zeros((3, 10**5), np.float32), "b": updates()["b"]}
    stack["w"][:] = np.random.default_rng(0).random(stack["w"].shape)
    with pytest.raises(ValueError, match=r"^it is 18\.3 times as large as 3 clients' updates can be$"):
        read(reply(stack=stack))  # 1.2 MB for at most 64 KiB + 3 * 36 * 1.1 bytes
    with pytest.raises(ValueError, match=r"times as large as a client's update can be$"):
        read(reply([7], {name: values[:1] for name, values in stack.items()}), [7])


def test_where_nothing_is_expected_nothing_may_come() -> None:
    assert read_reply(reply(stack={}), ASKED, contract().evaluation, 4).stack == {}
    with pytest.raises(ValueError, match=r"^it holds b, w, where only nothing belongs$"):
        read_reply(reply(), ASKED, contract().evaluation, 4)


# Refused for one client ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (np.nan, "not finite"),
        (np.inf, "not finite"),
        (-np.inf, "not finite"),
        (2e12, "larger than 1e+12"),
        (-3e38, "larger than 1e+12"),
    ],
)
def test_an_update_that_no_training_gives_is_refused_for_its_client_alone(value: float, problem: str) -> None:
    stack = updates()
    stack["w"][1, 1, 2] = value
    found = read(reply(stack=stack))
    assert found.failures == {3: f"its update of w is {problem}"}
    assert found.clients == [7, 5] and found.bytes_per_client.tolist() == [36, 36]
    assert found.metrics["num_examples"].tolist() == [70, 50]
    for name, values in found.stack.items():
        np.testing.assert_array_equal(values, updates([7, 5])[name], strict=True)


def test_large_values_are_accepted_up_to_the_bound() -> None:
    stack = updates()
    stack["w"][:], stack["b"][:] = 1e12, -1e12
    assert read(reply(stack=stack)).failures == {}


def test_a_row_that_all_clients_share_fails_for_all() -> None:
    row = np.array([1, np.nan, 2], np.float32)
    found = read(reply(stack={**updates(), "b": np.broadcast_to(row, (3, 3))}))
    assert found.clients == [] and found.stack["w"].shape == (0, 2, 3)
    assert found.failures == dict.fromkeys(ASKED, "its update of b is not finite")


def test_what_travelled_without_its_zeros_is_looked_at_too() -> None:
    values = np.zeros((3, 1000), np.float32)
    values[0, 10], values[2, 20] = 5.0, np.nan
    found = read_reply(reply(stack={"w": values}), ASKED, contract({"w": ArraySpec((1000,), "float32")}), 4)
    assert found.failures == {5: "its update of w is not finite"} and found.clients == [7, 3]
    np.testing.assert_array_equal(found.stack["w"], values[:2])


def masked(dtype: str, bounded: bool = True) -> Contract:
    return contract({"masked": ArraySpec((2,), dtype, bounded=bounded)})


@pytest.mark.parametrize("dtype", ["float16", "float64", "int64", "uint64", "bool"])
def test_every_kind_of_number_is_looked_at(dtype: str) -> None:
    values = np.ones((3, 4), dtype)
    values[1, 2] = {"float16": np.inf, "float64": 1e300, "int64": -(2**62), "uint64": 2**63, "bool": True}[dtype]
    found = read_reply(reply(stack={"w": values}), ASKED, contract({"w": ArraySpec((4,), dtype)}), 4)
    assert found.clients == (ASKED if dtype == "bool" else [7, 5])


def test_values_that_are_declared_to_have_no_bound_are_no_magnitudes() -> None:
    """Numbers under masks are uniform over all that 64 bits can hold."""
    values = np.full((3, 2), 2**64 - 1, np.uint64)
    found = read_reply(reply(stack={"masked": values}), ASKED, masked("uint64", bounded=False), 4)
    assert found.failures == {} and found.clients == ASKED
    np.testing.assert_array_equal(found.stack["masked"], values, strict=True)
    assert sorted(read_reply(reply(stack={"masked": values}), ASKED, masked("uint64"), 4).failures) == sorted(ASKED)
    signed = reply(stack={"masked": np.full((3, 2), 2**62, np.int64)})
    assert sorted(read_reply(signed, ASKED, masked("int64"), 4).failures) == sorted(ASKED)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("num_examples", -1.0, "its num_examples is -1, and must be from 0 to 1e+12"),
        ("num_examples", float("nan"), "its num_examples is nan, and must be from 0 to 1e+12"),
        ("num_examples", float("inf"), "its num_examples is inf, and must be from 0 to 1e+12"),
        ("num_examples", 1e30, "its num_examples is 1e+30, and must be from 0 to 1e+12"),
        ("test", float("inf"), "its test is inf, and must be a finite number"),
        ("test", float("-inf"), "its test is -inf, and must be a finite number"),
        ("test", 1e308, "its test is 1e+308, and must be a finite number"),
        ("test", float("nan"), None),
        ("sparsity", -1.0, "its sparsity is -1, and must be from 0 to 1"),
        ("sparsity", 1.0, None),
        ("sparsity", -0.0, None),
        ("test.hr@10", 2.0, "its test.hr@10 is 2, and must be from 0 to 1"),
        ("test.hr@10", 1 + 1e-9, "its test.hr@10 is 1.000000001, and must be from 0 to 1"),
        ("test.hr@10", float("nan"), None),
        ("validation_examples", -0.5, "its validation_examples is -0.5, and must be from 0 to 1e+12"),
        ("rmse", -2.0, "its rmse is -2, and must be from 0 to 1e+12"),
    ],
)
def test_a_figure_that_cannot_be_is_refused_for_its_client_alone(name: str, value: float, reason: str | None) -> None:
    found = read(reply(metrics={name: [1.0, 0.5, value]}))
    assert found.failures == ({5: reason} if reason else {})
    assert found.clients == ([7, 3] if reason else ASKED)
    assert found.metrics[name][:2].tolist() == [1.0, 0.5] and len(found.metrics[name]) == len(found.clients)


# All nodes -----------------------------------------------------------------------------------------------------------


def test_replies_are_joined_by_client_and_the_slowest_node_counts() -> None:
    one = read(reply([7, 3], seconds=5.0), [7, 3])
    two = read(reply([5], seconds=1.0, startup=9.0, failures={"4": "tired"}), [5, 4])
    found = combine([one, two], contract())
    assert found.clients == [3, 5, 7] and found.failures == {4: "tired"}
    assert (found.seconds, found.startup) == (1.0, 9.0)
    assert found.metrics["num_examples"].tolist() == [30, 50, 70]
    np.testing.assert_array_equal(found.stack["b"], updates([3, 5, 7])["b"])


def test_metrics_that_differ_between_nodes_are_not_a_number_where_they_are_missing() -> None:
    one = read_reply(reply([7], metrics={"sparsity": [0.5]}), [7], contract(), 4)
    two = read_reply(reply([3], metrics={"loss": [2.0]}), [3], contract(), 4)
    found = combine([one, two], contract()).metrics
    np.testing.assert_array_equal(found["sparsity"], [np.nan, 0.5])
    np.testing.assert_array_equal(found["loss"], [2.0, np.nan])
    assert found["num_examples"].tolist() == [30, 70]


def test_arrays_that_need_not_be_sent_are_zeros_for_clients_that_left_them_out() -> None:
    expected = contract({**EXPECTED, "wanted": ArraySpec((2,), "uint8", needed=False)})
    one = read_reply(reply([7], {**updates([7]), "wanted": np.array([[1, 0]], np.uint8)}), [7], expected, 4)
    two = read_reply(reply([3]), [3], expected, 4)
    wanted = combine([one, two], expected).stack["wanted"]
    np.testing.assert_array_equal(wanted, np.array([[0, 0], [1, 0]], np.uint8), strict=True)
    assert "wanted" not in combine([two], expected).stack


def test_no_reply_at_all_is_nothing() -> None:
    for expected in (contract(), contract().evaluation):
        found = combine([], expected)
        assert (found.clients, found.stack, found.metrics, found.failures) == ([], {}, {}, {})


@pytest.mark.parametrize(
    ("reason", "shown"),
    [
        ("<class 'subfl_flower.errors.SubflError'>:<'the data differ\nsee the log'>", "the data differ"),
        (
            "<class 'ray.exceptions.RayTaskError(ImportError)'>:<'\x1b[36mray::ClientAppActor.run()\x1b[39m (pid=1)\n"
            '  File "a.py", line 1, in run\nImportError: no module named parts\n\'>',
            "ImportError: no module named parts",
        ),
        ("", "error code 7"),
    ],
)
def test_the_reason_of_a_node_is_found_in_flowers_and_rays_text(reason: str, shown: str) -> None:
    reply: Any = SimpleNamespace(error=SimpleNamespace(reason=reason, code=7))
    assert describe_error(reply) == shown
