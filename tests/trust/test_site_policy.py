"""Runs that a site's policy refuses, before the app's code is loaded."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message
from flwr.clientapp import ClientApp
from signed_messages import BUNDLE, CONFIG, NODE, Gated, Operator, bundle, delivered, site, unsigned

from subfl_flower.errors import SubflError
from subfl_flower.trust.app_code import code_digest
from subfl_flower.trust.gate import Arrival, Gate, SiteSettings
from subfl_flower.trust.policy import Policy

FEDAVG = {"fedavg": ("subfl_flower.clients.subgraphs.subgraph.SubgraphClient", "a.b.RatingsClient")}


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    """Flower's messages need a run."""
    with Gated(ClientApp(), {NODE: None}).active():  # type: ignore[dict-item]
        yield


def with_policy(folder: Path, *operators: str, clients: Any = None, **policy: Any) -> Gate:
    settings = {"policy": policy, "clients": clients or {}}
    text = SiteSettings(operators=operators, state=folder, **settings).model_dump_json(exclude_defaults=True)
    return Gate(SiteSettings.model_validate_json(text))  # as a process reads it from its environment


def order(kind: str = "train", run_id: str = "ab12", **changes: Any) -> Message:
    """A message without a signature; changes are of the configuration, with double underscores for dots."""
    config = copy.deepcopy(CONFIG)
    about = {"id": run_id, "attempt": 1, "round": 1}
    for key, value in changes.items():
        if key == "phase":
            about[key] = value
            continue
        *sections, last = key.split("__")
        place = config
        for section in sections:
            place = place[section]
        place[last] = value
    return delivered(unsigned(kind, NODE, {**about, "config": json.dumps(config)}))


def admit(gate: Gate, message: Message, code: bytes = BUNDLE) -> None:
    gate.admit(Arrival(message, NODE, code))


def refused(gate: Gate, message: Message, reason: str, code: bytes = BUNDLE) -> None:
    with pytest.raises(SubflError, match=reason):
        admit(gate, message, code)


# Runs -----------------------------------------------------------------------------------------------------------------


def test_a_policy_that_names_nothing_allows_all_but_other_code(tmp_path: Path) -> None:
    gate = with_policy(tmp_path)
    for kind in ("query.roster", "train", "evaluate", "query.ask", "query.export", "query.keep"):
        admit(gate, order(kind, privacy__mechanism="none", federation__rounds=10**6))


def test_attack_with_a_method_that_the_policy_does_not_allow(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, clients=FEDAVG, methods=["fedavg"])
    admit(gate, order())
    admit(gate, order(method__client="a.b.RatingsClient"))
    wrong = r"policy refuses this run: the method is fedgcn \(c.FedGCNClient\), and the policy allows fedavg$"
    refused(gate, order("query.roster", method__name="fedgcn", method__client="c.FedGCNClient"), wrong)


def test_attack_with_an_allowed_methods_name_on_another_ones_client(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, clients=FEDAVG, methods=["fedavg"])
    refused(gate, order(method__client="c.FedGCNClient"), r"the method is fedavg \(c.FedGCNClient\), and the policy al")
    refused(gate, order(method__client={"graph": "a"}), "the method is fedavg")
    refused(gate, order(method="fedavg"), r"the method is None \(None\)")


WEAK: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({"privacy__mechanism": "none"}, "privacy.mechanism is none, which has no epsilon of one upload, and the"),
    "no section": ({"privacy": None}, "privacy.mechanism is none, which has no epsilon"),
    "large": ({"privacy__epsilon": 1.5}, r"an epsilon of one upload is 1.5, and the policy allows at most 1"),
    "no number": ({"privacy__epsilon": "0.1"}, "which has no epsilon"),
    "truth": ({"privacy__epsilon": True}, "which has no epsilon"),
    "negative": ({"privacy__epsilon": -1.0}, "an epsilon of one upload is -1"),
    "of a value": (
        {"privacy": {"mechanism": "laplace_linf", "clip": 0.1, "noise": 0.1, "epsilon": None}},
        "an epsilon of one upload is 2,",
    ),
    "without noise": ({"privacy": {"mechanism": "laplace_linf", "clip": 0.1, "noise": 0}}, "which has no epsilon"),
    "little noise": (
        {"privacy": {"mechanism": "gaussian_l2", "noise_multiplier": 0.5}},
        "privacy.noise_multiplier is 0.5, and the policy asks for at least 1",
    ),
    "unknown": ({"privacy": {"mechanism": "mine", "epsilon": 0.1}}, "privacy.mechanism is mine, which has no epsilon"),
}


@pytest.mark.parametrize("weak", WEAK)
def test_attack_with_less_privacy_than_the_policy_asks_for(weak: str, tmp_path: Path) -> None:
    changes, reason = WEAK[weak]
    gate = with_policy(tmp_path, privacy={"most_epsilon": 1.0, "least_noise_multiplier": 1.0})
    refused(gate, order(**changes), reason)
    admit(gate, order())
    admit(gate, order(privacy={"mechanism": "laplace_linf", "clip": 0.1, "noise": 0.2, "epsilon": None}))
    admit(gate, order(privacy={"mechanism": "gaussian_l2", "noise_multiplier": 1.0}))


def test_mechanisms_are_those_that_the_policy_lists(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, privacy={"mechanisms": ["gaussian_l2", "laplace_l1"]})
    admit(gate, order())
    refused(gate, order(privacy__mechanism="laplace_linf"), "is laplace_linf, and the policy allows gaussian_l2, lapla")


RULES: dict[str, Any] = {
    "method.masking": True,
    "wire.dtype": ["float32", "float16"],
    "seed": {"least": 0, "most": 5},
    "federation.rounds": 10,
}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"method__masking": False}, "method.masking is false, and the policy allows true"),
        ({"method__masking": 1}, "method.masking is 1, and"),
        ({"method__masking": None}, "method.masking is null, and"),
        ({"method": {}}, "method.masking is null, and"),
        ({"wire__dtype": "int8"}, 'wire.dtype is "int8", and the policy allows float32, float16'),
        ({"seed": 6}, "seed is 6, and the policy allows at least 0 and at most 5"),
        ({"seed": True}, "seed is true, and"),
        ({"federation__rounds": 11}, "federation.rounds is 11, and the policy allows 10"),
    ],
)
def test_attack_with_a_setting_that_the_policy_does_not_allow(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    gate = with_policy(tmp_path, settings=RULES)
    admit(gate, order(wire__dtype="float16", seed=5))
    refused(gate, order(**changes), reason)


# Answers --------------------------------------------------------------------------------------------------------------


def test_attack_with_a_question_of_a_phase_that_is_not_answered(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, phases=["train", "structure"])
    for message in (order(), order("query.ask", phase="structure"), order("query.roster"), order("query.export")):
        admit(gate, message)
    refused(gate, order("query.ask", phase="neighbours"), "the question is 'neighbours', and the policy allows answers")
    refused(gate, order("evaluate"), "the question is 'evaluate'")
    refused(gate, order("query.leak"), "the question is 'leak'")
    refused(gate, order("query.ask", phase="roster2"), "the question is 'roster2'")


def test_attack_with_more_rounds_than_the_policy_allows(tmp_path: Path) -> None:
    refused(
        with_policy(tmp_path / "a", most_rounds=9), order("query.roster"), "federation.rounds is 10, and the policy"
    )
    gate = with_policy(tmp_path / "b", most_rounds=3)
    for _ in range(3):
        admit(gate, order(federation__rounds=3))  # always said to be round 1
    again = with_policy(tmp_path / "b", most_rounds=3)
    refused(again, order(federation__rounds=3), "this site has trained in 3 rounds of run ab12, the most that its poli")
    admit(again, order(federation__rounds=3, run_id="cd34"))
    admit(again, order("evaluate", federation__rounds=3))


def test_attack_with_a_phase_named_like_one_that_always_passes(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, most_answers=1)
    for name in ("roster", "keep", "export"):
        with pytest.raises(SubflError):
            for _ in range(2):
                admit(gate, order("query.ask", phase=name))


def test_attack_by_a_second_run_that_begins_to_count_again(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, most_runs=2, most_answers=4)
    admit(gate, order())
    admit(gate, order(run_id="cd34"))
    refused(gate, order(run_id="ef56"), "this site has taken part in 2 runs, the most that its policy allows")
    admit(gate, order("query.roster", run_id="ef56"))
    admit(gate, order("query.ask", phase="structure"))
    admit(gate, order("evaluate"))
    refused(gate, order(), "this site has given 4 answers, the most that its policy allows")
    refused(with_policy(tmp_path, most_answers=4), order(run_id="cd34"), "has given 4 answers")


def test_a_refused_message_counts_for_nothing(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, most_answers=1, phases=["train"])
    for _ in range(3):
        refused(gate, order("evaluate"), "the question is")
    admit(gate, order())


def test_signatures_and_policy_go_together(tmp_path: Path) -> None:
    operator = Operator()
    gate = with_policy(tmp_path, operator.public, most_answers=1)
    refused(gate, order(), "came without signature")
    admit(gate, operator.order())
    refused(gate, operator.order(), "has given 1 answers")


def test_a_message_that_describes_no_run_is_refused(tmp_path: Path) -> None:
    for about in ({"id": "ab12", "config": "[]"}, {"id": "ab12", "config": "{"}, {"id": "..", "config": "{}"}, {}):
        message = delivered(unsigned("train", NODE, dict(about)))
        refused(with_policy(tmp_path), message, "describes no run; does the server run this version")


# Code -----------------------------------------------------------------------------------------------------------------

OTHER = bundle(pyproject__toml="", client_app__py="x = 2")


def test_attack_with_other_code_than_came_first(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    admit(with_policy(tmp_path), order())
    assert code_digest(BUNDLE) in caplog.text
    wrong = rf"has digest {code_digest(OTHER)}, and this site runs the code that came first, {code_digest(BUNDLE)}"
    refused(with_policy(tmp_path), order(), wrong, OTHER)
    admit(with_policy(tmp_path), order())
    admit(with_policy(tmp_path), order(), bundle(pyproject__toml="", client_app__py="x = 1", a__yaml="more: 1"))


def test_attack_with_code_that_the_policy_does_not_list(tmp_path: Path) -> None:
    gate = with_policy(tmp_path, code=[code_digest(OTHER)])
    refused(gate, order(), r"which is not among the 1 that this site's policy allows \('code'\)")
    admit(gate, order(), OTHER)
    admit(with_policy(tmp_path, code="any"), order())
    refused(with_policy(tmp_path, code=[code_digest(OTHER)]), order(), "is not among")


def test_code_may_be_imported_early_only_after_it_was_let_in_and_while_it_is_allowed(tmp_path: Path) -> None:
    def settings(**policy: Any) -> SiteSettings:
        return SiteSettings(state=tmp_path, policy=Policy(**policy))

    names = [hashlib.sha256(code).hexdigest() for code in (BUNDLE, OTHER)]
    assert not any(map(settings().code.has_let_in, names))
    admit(with_policy(tmp_path), order())
    assert [settings().code.has_let_in(name) for name in names] == [True, False]
    admit(with_policy(tmp_path, code="any"), order(), OTHER)
    assert [settings().code.has_let_in(name) for name in names] == [True, False]
    assert [settings(code="any").code.has_let_in(name) for name in names] == [True, True]
    assert [settings(code=(code_digest(OTHER),)).code.has_let_in(name) for name in names] == [False, True]
    (tmp_path / "code.json").write_text("{")
    assert not settings(code="any").code.has_let_in(names[0])
    refused(with_policy(tmp_path), order(), r"code\.json is damaged .* cannot tell which code it allows")


def test_the_digest_is_of_all_that_may_be_code() -> None:
    one = code_digest(bundle(a__py="1", b__toml="2"))
    assert one == code_digest(bundle(b__toml="2", a__py="1", c__md="3", d__json="4", LICENSE="5"))
    for other in (
        bundle(a__py="1", b__toml="3"),
        bundle(a__py="1"),
        bundle(a__py="1", b__toml="2", a__pyc="x"),
        bundle(a__py="1", b__toml="2", x__so=""),
        bundle(a__py="1", b__toml="2", yaml=""),
        bundle(c__py="1", b__toml="2"),
    ):
        assert code_digest(other) != one
    for wrong in (b"", b"PK", BUNDLE[:-30]):
        with pytest.raises(SubflError, match="the app's code is no bundle of Flower's"):
            code_digest(wrong)


def test_without_a_policy_code_is_told_and_not_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    operator = Operator()
    for code in (BUNDLE, OTHER, BUNDLE):
        admit(site(tmp_path, operator.public), operator.order(), code)
    assert caplog.text.count("the app's code is new on this site") == 2
