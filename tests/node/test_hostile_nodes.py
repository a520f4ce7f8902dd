"""Whatever a node sends, the server has an answer, a ValueError or a client's failure, and never anything else."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from subfl_flower.flower.inline_grid import InlineGrid
from subfl_flower.server.exchange import ASK, Exchange, answer_record
from subfl_flower.server.round_messages import RUN
from subfl_flower.server.strategy import CohortStrategy
from subfl_flower.server.updates import Updates
from subfl_flower.tasks.metric import COUNT, SHARE, Metric
from subfl_flower.wire.array_bytes import read_array
from subfl_flower.wire.array_format import Stack
from subfl_flower.wire.batch import Answers
from subfl_flower.wire.contract import Contract, RunContext, arrays_of
from subfl_flower.wire.payload import ARRAYS, LAYOUT, ArraySpec, pack, unpack
from subfl_flower.wire.replies import METRICS, OUTCOME, combine, read_reply
from subfl_flower.wire.roster import Roster

ASKED = [0, 1, 2]
EXPECTED = {
    "w": ArraySpec((20, 16), "float32"),
    "b": ArraySpec((16,), "float32"),
    "wanted": ArraySpec((20,), "uint8", needed=False),
}
METRICS_SENT = {"test": SHARE, "loss": Metric(), "num_examples": Metric(COUNT.low, COUNT.high, needed=True)}
CONTRACT = Contract(uploads=EXPECTED, metrics=METRICS_SENT)
FIGURES_ALONE = Contract(metrics=METRICS_SENT)
MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def sound(seed: int = 0) -> RecordDict:
    """A reply with plain rows, packed ones, and one that all clients share."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((3, 20, 16)).astype(np.float32)
    w[1:] *= rng.random((2, 20, 16)) < 0.2
    stack = {"w": w, "b": np.broadcast_to(w[0, 0], (3, 16)), "wanted": np.ones((3, 20), np.uint8)}
    content = RecordDict({METRICS: MetricRecord({"num_examples": [3, 4, 5], "test": [0.1, math.nan, 0.3]})})
    pack(stack).into(content)
    about = {"clients": ASKED, "failures": "{}", "round": 4, "seconds": 1.0, "startup": 0.0}
    content[OUTCOME] = ConfigRecord(about)  # type: ignore[arg-type]
    return content


def sound_figures() -> RecordDict:
    """A reply without arrays, as to an evaluation."""
    content = sound()
    pack({}, 3).into(content)
    return content


KEYS = st.one_of(
    st.sampled_from(
        [
            *("clients", "failures", "round", "seconds", "startup", "num_examples", "test", "w", "b", "wanted"),
            *("w.shape", "w.shared", "w.sparse", "w.lines", "w.bitmap", "w.values", "b.shape", "b.shared", ".shape"),
            *("0/tokens", "1/tokens", "9/tokens", "/", "0/", "-1/x"),
        ]
    ),
    st.text(max_size=6),
)
INTEGERS = st.one_of(st.integers(-2, 5), st.sampled_from([2**31, 2**63 - 1, -(2**63), 10**30, 10**400]))
FLOATS = st.one_of(st.floats(), st.sampled_from([1e308, -1e308, math.inf, math.nan]))
NESTED = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text("0123-x", max_size=3), inner)),
    max_leaves=6,
)
TEXTS = st.one_of(
    st.text(max_size=10),
    NESTED.map(json.dumps),
    st.builds(
        lambda bracket, times: bracket * times, st.sampled_from(["[", '{"0":', "[[[", "-"]), st.integers(0, 40_000)
    ),
)
SCALARS = st.one_of(INTEGERS, FLOATS, st.booleans(), TEXTS, st.binary(max_size=5))
CONFIG_VALUES = st.one_of(
    SCALARS,
    *(
        st.lists(kind, max_size=4)
        for kind in (INTEGERS, FLOATS, st.booleans(), st.text(max_size=4), st.binary(max_size=3))
    ),
)
METRIC_VALUES = st.one_of(INTEGERS, FLOATS, st.lists(INTEGERS, max_size=4), st.lists(FLOATS, max_size=4))
DTYPES = st.sampled_from(["float32", "uint8", "float64", "float16", "bool", "int64", "complex64", ">f4", "S3", "M8[s]"])
SHAPES = st.lists(st.integers(0, 20), max_size=3).map(tuple)


@st.composite
def arrays(draw: st.DrawFn) -> Array:
    """Bytes of an array: of any kind and shape, whole, flipped, cut, or no array at all."""
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    values = np.frombuffer(rng.bytes(8 * 8000), np.uint8)
    dtype, shape = np.dtype(draw(DTYPES)), draw(SHAPES)
    size = dtype.itemsize * math.prod(shape)
    data = bytearray(Array(values[:size].view(dtype).reshape(shape)).data)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(st.integers(0, min(len(data) - 1, 140)))] = draw(st.integers(0, 255))
    cut = draw(st.one_of(st.just(len(data)), st.integers(0, len(data))))
    stype = draw(st.sampled_from(["numpy.ndarray"] * 9 + ["pickle"]))
    return Array(str(dtype), shape, stype, draw(st.one_of(st.just(bytes(data[:cut])), st.binary(max_size=200))))


RECORDS = st.one_of(
    st.dictionaries(KEYS, CONFIG_VALUES, max_size=8).map(ConfigRecord),
    st.dictionaries(KEYS, METRIC_VALUES, max_size=5).map(MetricRecord),
    st.dictionaries(KEYS, arrays(), max_size=5).map(ArrayRecord),
)
NAMES = st.sampled_from([ARRAYS, LAYOUT, METRICS, OUTCOME])
CONTENTS = st.dictionaries(NAMES, RECORDS, max_size=4).map(RecordDict)


@st.composite
def mutated(draw: st.DrawFn, content: RecordDict) -> RecordDict:
    """A copy in which some records, entries or bytes were dropped, exchanged, doubled or replaced."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        if not content:
            break
        name = draw(st.sampled_from(sorted(content)))
        record: Any = content[name]
        action = draw(st.sampled_from(["drop record", "replace record", "drop", "replace", "swap", "add", "flip"]))
        if action == "drop record":
            del content[name]
            continue
        if action == "replace record":
            content[name] = draw(RECORDS)
            continue
        values = arrays() if isinstance(record, ArrayRecord) else METRIC_VALUES
        values = CONFIG_VALUES if isinstance(record, ConfigRecord) else values
        keys = sorted(record)
        if action == "add" or not keys:
            record[draw(KEYS)] = draw(values)
            continue
        key = draw(st.sampled_from(keys))
        if action == "drop":
            del record[key]
        elif action == "replace":
            record[key] = draw(values)
        elif action == "swap":
            other = draw(st.sampled_from(keys))
            record[key], record[other] = record[other], record[key]
        elif isinstance(record, ArrayRecord):
            array = record[key]
            data = bytearray(array.data)
            for _ in range(draw(st.integers(1, 4)) if data else 0):  # an earlier change may have emptied it
                data[draw(st.integers(0, len(data) - 1))] ^= draw(st.integers(1, 255))
            record[key] = Array(array.dtype, array.shape, array.stype, bytes(data))
    return content


def accept(content: RecordDict, contract: Contract) -> None:
    """Read a reply as the server does: a ValueError, or something that a strategy can work with."""
    try:
        reply = read_reply(content, ASKED, contract, 4)
    except ValueError:
        return
    assert sorted([*reply.clients, *reply.failures]) == ASKED
    everyone = combine([reply], contract)
    assert math.isfinite(everyone.seconds) and math.isfinite(everyone.startup)
    assert everyone.bytes_per_client.shape == (len(everyone.clients),) and (everyone.bytes_per_client >= 0).all()
    for values in everyone.stack.values():
        assert len(values) == len(everyone.clients) and np.isfinite(values).all()
        assert (np.abs(values.astype(float)) <= 1e12).all()
    for name, values in everyone.metrics.items():
        low, high = METRICS_SENT[name].low, METRICS_SENT[name].high
        assert values.shape == (len(everyone.clients),) and not np.isinf(values).any()
        assert all(low <= value <= high or math.isnan(value) for value in values.tolist())
    if everyone.clients:
        assert (everyone.metrics["num_examples"] >= 0).all()
        expected = arrays_of(contract.uploads)
        needed = {name for name, spec in expected.items() if spec.needed}
        assert needed <= set(everyone.stack) <= set(expected)
        for name, values in everyone.stack.items():
            assert (values.shape[1:], str(values.dtype)) == (expected[name].shape, expected[name].dtype)
    for reason in reply.failures.values():
        assert isinstance(reason, str) and reason.isprintable() and len(reason) <= 300


@MANY
@given(CONTENTS, st.sampled_from([CONTRACT, FIGURES_ALONE]))
def test_replies_of_anything_at_all(content: RecordDict, contract: Contract) -> None:
    accept(content, contract)


@MANY
@given(mutated(sound()))
def test_sound_replies_with_something_wrong(content: RecordDict) -> None:
    accept(content, CONTRACT)


@MANY
@given(mutated(sound_figures()))
def test_sound_figures_of_an_evaluation_with_something_wrong(content: RecordDict) -> None:
    accept(content, CONTRACT.evaluation)


def test_the_reply_that_the_others_are_made_of_is_accepted() -> None:
    reply = read_reply(sound(), ASKED, CONTRACT, 4)
    assert reply.clients == ASKED and list(reply.stack) == list(EXPECTED)
    assert read_reply(sound_figures(), ASKED, CONTRACT.evaluation, 4).clients == ASKED


@MANY
@given(st.one_of(CONTENTS, mutated(sound())))
def test_stacks_that_are_unpacked_with_and_without_expectations(content: RecordDict) -> None:
    for limits in ({"expected": EXPECTED, "num_clients": 3}, {"num_clients": 3, "largest": 10**6}):
        try:
            stack, sizes = unpack(content, **limits)  # type: ignore[arg-type]
        except ValueError:
            continue
        assert all(len(values) == 3 for values in stack.values()) and sizes.shape == (3,)


@MANY
@given(arrays())
def test_arrays_of_any_bytes(array: Array) -> None:
    try:
        values = read_array(array)
    except ValueError:
        return
    assert values.dtype.kind in "biuf" and values.dtype.isnative and values.nbytes <= len(array.data)


# Phases outside of rounds ---------------------------------------------------------------------------------------------

ROSTER = Roster((0, 1, 2, 3), (1, 1, 1, 2), np.ones(4), np.ones(4), np.ones(4), 1, 2, False)
TOKENS: dict[int, Stack] = {client: {"tokens": np.full(4, client)} for client in range(4)}


def first_token(stack: Stack) -> int:
    tokens = stack["tokens"]
    if tokens.shape != (4,) or tokens.dtype != np.int64:
        raise ValueError("no tokens")
    return int(tokens[0])


@MANY
@given(st.one_of(CONTENTS, mutated(answer_record(Answers({c: TOKENS[c] for c in ASKED})))))
def test_answers_of_anything_at_all(content: RecordDict) -> None:
    """Node 1 sends what it likes for clients 0, 1 and 2; client 3 is on a sound node."""
    app = ClientApp()

    @app.query(ASK)
    def tokens(message: Message, context: Context) -> Message:
        found = content if context.node_id == 1 else answer_record(Answers({3: TOKENS[3]}))
        return Message(found, reply_to=message)

    with InlineGrid(app, 2).active() as grid:
        exchange = Exchange(grid, ConfigRecord({}), ROSTER, tolerant=True)
        answers = exchange.ask("tokens", first_token, largest=[1000] * 4)
    assert answers[3] == 3 and len(answers) == 4
    assert all(answer is None or isinstance(answer, int) for answer in answers)
    assert 32 <= exchange.log[0]["bytes_up"] <= 32 + 3 * 1000


# A whole round --------------------------------------------------------------------------------------------------------


class Averaging(CohortStrategy):
    """Averages what clients send."""

    def instructions(self, server_round: int, positions: Sequence[int]) -> Stack:
        return {"w": np.zeros((len(positions), 1), np.float32)}

    def aggregate(self, updates: Updates) -> None:
        self.mean = updates.arrays["w"].mean(0)


@MANY
@given(st.one_of(CONTENTS, mutated(sound())), st.booleans())
def test_a_round_with_one_hostile_node(content: RecordDict, twice: bool) -> None:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id == 1:
            return Message(content, reply_to=message)
        found = RecordDict({METRICS: MetricRecord({"num_examples": [2]})})
        pack({"w": np.ones((1, 20, 16), np.float32), "b": np.ones((1, 16), np.float32)}).into(found)
        about = {"clients": [3], "failures": "{}", "round": 4, "seconds": 1.0}
        found[OUTCOME] = ConfigRecord(about)  # type: ignore[arg-type]
        return Message(found, reply_to=message)

    strategy = Averaging(RunContext(settings=None), ROSTER, CONTRACT)
    with InlineGrid(app, 2).active() as grid:
        messages = list(strategy.configure_train(4, ArrayRecord(), ConfigRecord({}), grid))
        assert all(message.content.config_records[RUN]["round"] == 4 for message in messages)
        replies = list(grid.send_and_receive(messages))
        _, means = strategy.aggregate_train(4, replies * 2 if twice else replies)
    updates = strategy.updates
    assert updates is not None and 3 in updates.positions
    assert sorted([*updates.positions.tolist(), *updates.failures]) == [0, 1, 2, 3]
    assert np.isfinite(strategy.mean).all()
    assert means is not None and not any(math.isinf(value) for value in means.values())  # type: ignore[arg-type]
